"""Finds mounts of condafs, and the daemon behind one."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import threading
from typing import Dict, List, Optional, Union

from ._errors import error

#: The type of condafs's mounts in the kernel's list.
FSTYPE = "fuse.condafs"

# What `condafs run` and condafs.session set, and commands within go by.
ENV_MOUNT = "CONDAFS_MOUNT"
ENV_SESSION = "CONDAFS_SESSION"
ENV_SOCKET = "CONDAFS_SOCKET"

_ANSWER_TIMEOUT = 20.0  # seconds; a healthy mount needs less than a millisecond

PathLike = Union[str, "os.PathLike[str]"]


@dataclasses.dataclass(frozen=True)
class Mount:
    """A mount and the daemon behind it."""

    point: str
    socket: str

    @property
    def pkgs(self) -> str:
        """The package directory for conda and mamba."""
        return self.point + "/pkgs"

    @property
    def rattler(self) -> str:
        """The cache directory for Rattler and pixi."""
        return self.point + "/rattler"

    def shelf(self) -> str:
        """The shelf's directory if there is one that this user can read, or ""."""
        try:
            shelf = str(_read_info(self.point).get("shelf") or "")
            if shelf:
                os.lstat(os.path.join(shelf, "urls.txt"))
            return shelf
        except Exception:  # within a session's own namespace the file is not shown; without a shelf all works, too
            return ""


def find(mount: Optional[PathLike] = None) -> Mount:
    """Finds a mount and its daemon.

    It is that of ``mount``; else that of the session around (``condafs run``, :func:`condafs.session`); else that of
    ``$CONDAFS_MOUNT``; else the only one there is.
    """
    point = os.fspath(mount) if mount is not None else ""
    env = os.environ.get(ENV_MOUNT, "")
    if not point or same(point, env):
        # In a session's own namespace the mount point shows the session, without the file that names the socket.
        socket = os.environ.get(ENV_SOCKET, "")
        if socket and env:
            return Mount(env, socket)
        point = point or env
    if not point:
        points = mount_points()
        if not points:
            raise error("find the mount", "", "not mounted", "no condafs is mounted", "`condafs mount MOUNTPOINT` starts one")
        if len(points) > 1:
            raise error("find the mount", "", "usage", "several are there: " + ", ".join(points), "choose one, or set $CONDAFS_MOUNT")
        point = points[0]
    point = absolute(point)
    socket = str(_read_info(point).get("socket") or "")
    if not socket:
        raise error("find the daemon of", point, "not mounted", "its .condafs names no socket")
    return Mount(point, socket)


def same(a: str, b: str) -> bool:
    """Tells whether both are the same mount point."""
    return bool(a and b) and absolute(a) == absolute(b)


def absolute(path: str) -> str:
    """The path as the kernel's list shows it. The last component may be a dead mount, which cannot be looked at."""
    path = os.path.abspath(path)
    if os.path.islink(path):
        return os.path.realpath(path)
    head, tail = os.path.split(path)
    return os.path.join(os.path.realpath(head), tail)


def mount_points() -> List[str]:
    """Lists the mounts of condafs that this process sees, alive or dead."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as f:
        return parse_mounts(f.read())


def parse_mounts(text: str) -> List[str]:
    r"""Reads the format of ``/proc/PID/mountinfo``.

    >>> parse_mounts(r"9 1 0:50 / /a\040b rw - fuse.condafs condafs rw")
    ['/a b']
    """
    points: List[str] = []
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        # Binds of one session, as `condafs run` makes them, are no mounts of their own.
        if len(fields) < 6 or not kind or kind[0] != FSTYPE or fields[3] != "/":
            continue
        point = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m.group(1), 8)), fields[4])
        if point not in points:
            points.append(point)
    return points


def _read_info(point: str) -> Dict[str, object]:
    """Reads what the mount says of its daemon. A mount that hangs does not hang the caller."""
    op = "find the daemon of"
    got: List[Union[bytes, OSError]] = []

    def read() -> None:
        try:
            with open(os.path.join(point, ".condafs"), "rb") as f:
                got.append(f.read(1 << 16))
        except OSError as e:
            got.append(e)

    t = threading.Thread(target=read, daemon=True)
    t.start()
    t.join(_ANSWER_TIMEOUT)
    if not got:
        raise error(op, point, "not mounted", f"the mount has not answered for {_ANSWER_TIMEOUT:g} s", f"`condafs umount --lazy {point}` gives it up")
    read_bytes = got[0]
    if isinstance(read_bytes, OSError):
        if read_bytes.errno == errno.ENOTCONN:
            raise error(op, point, "not mounted", "it has died and left its mount behind", f"`condafs mount {point}` mends that")
        if read_bytes.errno in (errno.ENOENT, errno.ENOTDIR):
            raise error(op, point, "not mounted", "no condafs is mounted there", f"`condafs mount {point}` starts one")
        if isinstance(read_bytes, PermissionError):
            raise error(op, point, "permission", "permission denied", "the mount is another user's and was made without --allow-other")
        raise error(op, point, "not mounted", str(read_bytes))
    try:
        info = json.loads(read_bytes)
    except ValueError:
        info = None
    if not isinstance(info, dict):
        raise error(op, point, "not mounted", "its .condafs is not JSON")
    return info
