"""Tries what a user of a shared mount must not be able to do. Needs nothing but Python itself.

The argument is JSON. Prints JSON: for each thing that was tried, "ok" or the name of the error.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import json
import os
import socket
import stat
import struct
import sys

results = {}


def attempt(what, f):
    try:
        got = f()
        results[what] = "ok" if got is None or got is True else str(got)
    except OSError as e:
        results[what] = errno.errorcode.get(e.errno, str(e.errno))


def read(path):
    with open(path, "rb") as f:
        f.read()


def write(path, flags=os.O_WRONLY):
    os.close(os.open(path, flags, 0o644))


def another_session(mount, id, pid, fd, own, **_):
    """By its path, which is told, and by its process."""
    s = os.path.join(mount, ".sessions", id)
    pkgs, secret = os.path.join(s, "pkgs"), os.path.join(s, "pkgs", "secret.txt")
    attempt("list the session", lambda: os.listdir(s) and None)
    attempt("list its packages", lambda: os.listdir(pkgs) and None)
    attempt("stat its packages", lambda: os.stat(pkgs) and None)
    attempt("enter it", lambda: os.chdir(s))
    attempt("read its file", lambda: read(secret))
    attempt("write its file", lambda: write(secret))
    attempt("truncate its file", lambda: os.truncate(secret, 0))
    attempt("remove its file", lambda: os.unlink(secret))
    attempt("make a file in it", lambda: write(os.path.join(pkgs, "mine"), os.O_WRONLY | os.O_CREAT))
    attempt("make a directory in it", lambda: os.mkdir(os.path.join(s, "mine")))
    attempt("make a link in it", lambda: os.symlink("/", os.path.join(s, "mine")))
    attempt("rename in it", lambda: os.rename(secret, os.path.join(pkgs, "other")))
    attempt("move it away", lambda: os.rename(s, s + "x"))
    attempt("take its file", lambda: os.rename(secret, os.path.join(own, "taken")))
    attempt("link its file", lambda: os.link(secret, os.path.join(own, "taken")))
    attempt("change its mode", lambda: os.chmod(s, 0o777))
    attempt("change its owner", lambda: os.chown(s, os.getuid(), os.getgid()))
    attempt("set an attribute", lambda: os.setxattr(s, "user.x", b"x"))
    attempt("change its time", lambda: os.utime(s))
    for name in ("cwd", f"fd/{fd}", "root" + pkgs):
        attempt(f"reach it by /proc/PID/{name.split('/')[0]}", lambda: os.listdir(f"/proc/{pid}/{name}") and None)
    attempt("find it listed", lambda: id in os.listdir(os.path.join(mount, ".sessions")) or "no")


def fixed_names(mount, **_):
    """What belongs to the mount itself, or to its owner."""
    head = os.path.join(mount, ".head")
    attempt("list the head", lambda: os.listdir(head) and None)
    attempt("read from the head", lambda: os.listdir(os.path.join(head, "pkgs")) and None)
    attempt("write to the head", lambda: write(os.path.join(head, "pkgs", "x"), os.O_WRONLY | os.O_CREAT))
    attempt("write to the root", lambda: write(os.path.join(mount, "x"), os.O_WRONLY | os.O_CREAT))
    attempt("remove a magic link", lambda: os.unlink(os.path.join(mount, "pkgs")))
    attempt("replace a magic link", lambda: os.rename(os.path.join(mount, "rattler"), os.path.join(mount, "pkgs")))
    attempt("make a session", lambda: os.mkdir(os.path.join(mount, ".sessions", "aaaaaaaaaa")))
    attempt("write the daemon's file", lambda: write(os.path.join(mount, ".condafs")))


def store(store, **_):
    for name in ("objects", "staging", "sessions", "quarantine", "db"):
        attempt(f"list the store's {name}", lambda: os.listdir(os.path.join(store, name)) and None)
    attempt("list the store", lambda: os.listdir(store) and None)
    attempt("read the store's lock", lambda: read(os.path.join(store, "lock")))
    attempt("write to the store", lambda: write(os.path.join(store, "x"), os.O_WRONLY | os.O_CREAT))
    shelf = os.path.join(store, "shelf", "pkgs")
    attempt("write to the shelf", lambda: write(os.path.join(shelf, "x"), os.O_WRONLY | os.O_CREAT))
    attempt("list what the shelf is made of", lambda: os.listdir(os.path.join(store, "shelf", "new")) and None)
    for dist in os.listdir(shelf):
        at = os.path.join(shelf, dist)
        if not os.path.isdir(at):
            continue
        attempt("remove from the shelf", lambda: os.rename(at, at + "x"))
        attempt("write a package on the shelf", lambda: write(os.path.join(at, "info", "index.json")))
        attempt("open a package on the shelf to all", lambda: os.chmod(at, 0o777))
        attempt("add to a package on the shelf", lambda: write(os.path.join(at, "info", "x"), os.O_WRONLY | os.O_CREAT))
        break


def special(own, **_):
    """Bits, devices and attributes that no session has."""
    at = os.path.join(own, "special")
    os.mkdir(at)
    program = os.path.join(at, "program")
    with open(program, "w") as f:
        f.write("#!/bin/sh\nid -u\n")
    for bits in (0o4755, 0o2755, 0o6777):
        attempt(f"chmod {bits:o}", lambda: os.chmod(program, bits) or f"{stat.S_IMODE(os.stat(program).st_mode):o}")
    attempt("create with bits", lambda: write(os.path.join(at, "created"), os.O_WRONLY | os.O_CREAT) or os.chmod(os.path.join(at, "created"), 0o7755) or f"{stat.S_IMODE(os.stat(os.path.join(at, 'created')).st_mode):o}")
    attempt("mkdir with bits", lambda: os.mkdir(os.path.join(at, "dir"), 0o7755) or os.chmod(os.path.join(at, "dir"), 0o6755) or f"{stat.S_IMODE(os.stat(os.path.join(at, 'dir')).st_mode):o}")
    attempt("a device", lambda: os.mknod(os.path.join(at, "null"), stat.S_IFCHR | 0o666, os.makedev(1, 3)))
    attempt("a disk", lambda: os.mknod(os.path.join(at, "disk"), stat.S_IFBLK | 0o666, os.makedev(8, 0)))
    attempt("a whiteout", lambda: os.mknod(os.path.join(at, "whiteout"), stat.S_IFCHR | 0o666, os.makedev(0, 0)))
    for name in ("user.overlay.opaque", "user.overlay.whiteout", "user.condafs.attr", "user.condafs.origin", "trusted.overlay.opaque", "security.capability", "system.posix_acl_access"):
        attempt(f"setxattr {name}", lambda: os.setxattr(program, name, b"whiteout"))
    attempt("give it away", lambda: os.chown(program, 0, 0))
    attempt("link what is elsewhere", lambda: os.link("/etc/passwd", os.path.join(at, "passwd")))


class Connection:
    def __init__(self, path):
        self.path = path

    def status(self, method, path, body=""):
        s = socket.socket(socket.AF_UNIX)
        s.connect(self.path)
        s.sendall(f"{method} /v1{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        answer = b""
        while more := s.recv(1 << 16):
            answer += more
        s.close()
        head, _, rest = answer.partition(b"\r\n\r\n")
        return head.split()[1].decode(), rest.decode()


def commands(socket_path, id, secret_dir, **_):
    c = Connection(socket_path)
    for verb, body in (("commit", ""), ("discard", ""), ("end", '{"exit_code":0}')):
        attempt(f"{verb} it", lambda: c.status("POST", f"/sessions/{id}/{verb}", body)[0])
    attempt("see it", lambda: id in c.status("GET", "/sessions")[1] or "no")
    attempt("see it in the log", lambda: id in c.status("GET", "/log")[1] or "no")
    for verb, body in (("stop", '{"lazy":true}'), ("gc", "{}"), ("verify", '{"repair":true}'), ("import", json.dumps({"dir": secret_dir})), ("export", '{"dir":"/tmp/hostile-export"}')):
        attempt(verb, lambda: c.status("POST", f"/{verb}", body)[0])


libc = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)


class Handle(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint), ("type", ctypes.c_int), ("data", ctypes.c_ubyte * 128)]


def handles(mount, own, **_):
    """Inodes are numbered one after the other, so a handle of somebody else's can be guessed."""
    h, id = Handle(bytes=128), ctypes.c_int()
    if libc.name_to_handle_at(-100, own.encode(), ctypes.byref(h), ctypes.byref(id), 0) != 0:
        results["name a handle"] = errno.errorcode[ctypes.get_errno()]
        return
    raw = bytes(h.data[: h.bytes])
    high, low, gen = struct.unpack("=III", raw[:12])
    mine = high << 32 | low
    fd = os.open(mount, os.O_RDONLY | os.O_DIRECTORY)
    reached, refused = [], set()
    for node in list(range(1, 10)) + list(range(max(1, mine - 3000), mine + 3000)):
        g = Handle(bytes=h.bytes, type=h.type)
        ctypes.memmove(g.data, struct.pack("=III", node >> 32, node & 0xFFFFFFFF, 0 if node < 10 else gen) + raw[12:], h.bytes)
        for flags in (os.O_RDONLY | os.O_DIRECTORY, os.O_RDONLY):
            got = libc.open_by_handle_at(fd, ctypes.byref(g), flags)
            if got < 0:
                refused.add(errno.errorcode[ctypes.get_errno()])
                continue
            try:
                st = os.fstat(got)
                names = os.listdir(got) if stat.S_ISDIR(st.st_mode) else []
                if st.st_uid != os.stat(own).st_uid and node >= 1024 or "secret.txt" in names:
                    reached.append(node)
            except OSError as e:
                refused.add(errno.errorcode[e.errno])
            os.close(got)
    results["reach others by handle"] = f"ok: {reached}" if reached else "no"
    results["refused with"] = " ".join(sorted(refused))


def farm(own, secrets, **_):
    """Links to what only root may read, wherever the daemon looks when the session ends; and FIFOs where it would wait."""
    pkgs = own
    os.makedirs(os.path.join(pkgs, "cache"), exist_ok=True)
    secret = os.path.join(secrets, "secret.json")
    for name in ("urls.txt", "urls", "cache/0badcafe.json", "cache/0badcafe.info.json", "cache/0badcafe.state.json", "linked-1.0-0.conda", "linked-1.0-0.tar.bz2", "plain.txt"):
        at = os.path.join(pkgs, name)
        if os.path.lexists(at):
            os.unlink(at)
        os.symlink(secret, at)
    for dist, links in {
        "record-1.0-0": {"info/repodata_record.json": secret},
        "index-1.0-0": {"info/index.json": secret, "info/repodata_record.json": secret},
        "info-1.0-0": {"info": secrets},
        "paths-1.0-0": {"info/paths.json": secret},
        "root-1.0-0": {"lib": "/"},
        "proc-1.0-0": {"lib": "/proc/self/root", "fd": "/proc/self/fd"},
        "up-1.0-0": {"lib": "../../../../../../../../../.."},
    }.items():
        at = os.path.join(pkgs, dist)
        os.makedirs(os.path.join(at, "info"))
        if "info" in links:
            os.rmdir(os.path.join(at, "info"))
        for name, to in links.items():
            os.symlink(to, os.path.join(at, name))
        record = os.path.join(at, "info", "repodata_record.json")
        if "info" not in links and not os.path.lexists(record):
            with open(record, "w") as f:
                json.dump({"name": dist.split("-")[0], "version": "1.0", "build": "0"}, f)
    os.symlink(secrets, os.path.join(pkgs, "whole-1.0-0"))
    at = os.path.join(pkgs, "fifo-1.0-0", "info")
    os.makedirs(at)
    for name in ("index.json", "paths.json", "repodata_record.json"):
        os.mkfifo(os.path.join(at, name))
    os.mkfifo(os.path.join(pkgs, "fifo-2.0-0.conda"))
    os.mkfifo(os.path.join(pkgs, "cache", "0badf00d.json"))
    s = socket.socket(socket.AF_UNIX)
    os.chdir(pkgs)
    s.bind("socket-1.0-0.conda")
    s.close()
    results["farm"] = "laid"


def greedy(own, limits, **_):
    """Goes up to each limit, one after the other."""
    held = []
    block = b"x" * (1 << 20)
    many = os.path.join(own, f"many-{os.getpid()}")

    def fill():
        with open(os.path.join(own, "big"), "wb", buffering=0) as f:
            for _ in range(limits["bytes"] // len(block) + 2):
                f.write(block)

    def opened():
        with open(os.path.join(own, "some"), "w"):
            pass
        for _ in range(limits["open"] + 2):
            held.append(open(os.path.join(own, "some")))

    def files():
        os.mkdir(many)
        for i in range(limits["files"] + 2):
            os.close(os.open(os.path.join(many, str(i)), os.O_WRONLY | os.O_CREAT))

    attempt("bytes", fill)
    attempt("room comes back", lambda: os.unlink(os.path.join(own, "big")) or write(os.path.join(own, "again"), os.O_WRONLY | os.O_CREAT))
    attempt("open", opened)
    for f in held:
        f.close()
    attempt("files come back", lambda: read(os.path.join(own, "some")))
    attempt("files", files)
    attempt("remove", lambda: os.unlink(os.path.join(many, "0")))


def sessions_only(mount, limits, **_):
    """Starts processes that look at the mount, more than may have a session at a time."""
    ends, magic = [], os.path.join(mount, "pkgs")

    def start():
        for _ in range(limits["sessions"] + 2):
            r, w = os.pipe()
            ready_r, ready_w = os.pipe()
            if os.fork() == 0:
                for end in ends + [w]:
                    os.close(end)
                code = 0
                try:
                    os.readlink(magic)
                except OSError as e:
                    code = e.errno
                os.write(ready_w, bytes([code]))
                os.read(r, 1)
                os._exit(0)
            os.close(r)
            os.close(ready_w)
            ends.append(w)
            code = os.read(ready_r, 1)[0]
            os.close(ready_r)
            if code:
                raise OSError(code, "session")

    attempt("sessions", start)
    for w in ends:
        os.close(w)
    for _ in ends:
        os.wait()


def main():
    said = json.loads(sys.argv[1])
    mount = said["mount"]
    if "own" not in said and said.get("session", True):
        said["own"] = os.path.join(mount, os.readlink(os.path.join(mount, "pkgs")))
    for what in said.pop("try"):
        globals()[what](**said)
    print(json.dumps(results))


main()
