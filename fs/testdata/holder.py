"""Holds a file being written, a mapping, locks, one of which somebody waits for, an open directory half read, a working
directory, a removed file and a file of a package (or another that was committed), below the directory given. For each line
that it reads it uses all of them, checks them and says ok."""
import fcntl
import mmap
import os
import sys

top = sys.argv[1]
home = os.path.join(top, "held-1.0-0")
os.makedirs(os.path.join(home, "many"))
for i in range(400):
    open(os.path.join(home, "many", f"entry{i:04}-with-a-name-of-some-length-so-that-it-takes-several-replies"), "w").close()
os.chdir(home)

writer = open("written", "wb", buffering=0)
mapped_file = open("mapped", "wb+")
mapped_file.truncate(8192)
mapped = mmap.mmap(mapped_file.fileno(), 8192)
lock = open("lockfile", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
record_lock = open("records", "w+")
fcntl.lockf(record_lock, fcntl.LOCK_EX, 10)
waits_for = open("waited-for", "w+")
fcntl.lockf(waits_for, fcntl.LOCK_EX)
waiter = os.fork()
if waiter == 0:  # waits for the lock until the end
    with open("waited-for", "r+") as f:
        fcntl.lockf(f, fcntl.LOCK_EX)
    os._exit(0)
removed = open("removed", "w+b", buffering=0)
removed.write(b"removed")
os.unlink("removed")
package = open(os.path.join(top, sys.argv[2] if len(sys.argv) > 2 else "one-1.0-0/lib/a.txt"), "rb")
content = package.read()
directory = os.scandir("many")
seen = {next(directory).name}

rounds = 0
print("ready", flush=True)
for line in sys.stdin:
    if line.strip() == "end":
        break
    rounds += 1
    writer.write(b"%06d\n" % rounds)
    with open("written", "rb") as f:
        assert f.read() == b"".join(b"%06d\n" % i for i in range(1, rounds + 1))
    mapped[rounds] = rounds % 251
    mapped.flush()
    with open("mapped", "rb") as f:
        data = f.read()
    assert len(data) == 8192 and all(data[i] == i % 251 for i in range(1, rounds + 1))
    pid = os.fork()
    if pid == 0:  # the locks hold against another process
        status = 0
        with open("lockfile", "w") as other, open("records", "r+") as records:
            for take in (lambda: fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB),
                         lambda: fcntl.lockf(records, fcntl.LOCK_EX | fcntl.LOCK_NB, 10)):
                try:
                    take()
                    status = 1
                except OSError:
                    pass
        os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0, "a lock was lost"
    removed.seek(0)
    assert removed.read(7) == b"removed"
    removed.seek(rounds + 100)
    removed.write(b"x")
    assert os.fstat(removed.fileno()).st_nlink == 0
    package.seek(0)
    assert package.read() == content
    for _ in range(20):
        entry = next(directory, None)
        if entry is not None:
            assert entry.name not in seen, f"{entry.name} was listed twice"
            seen.add(entry.name)
    assert os.getcwd().endswith("held-1.0-0")
    with open(f"relative{rounds}", "w") as f:
        f.write("relative to the working directory")
    os.rename(f"relative{rounds}", "relative")
    print("ok", flush=True)
seen.update(entry.name for entry in directory)
assert len(seen) == 400, f"{len(seen)} of 400 entries were listed"
directory.close()
assert os.waitpid(waiter, os.WNOHANG) == (0, 0), "the waiting process has got the lock"
fcntl.lockf(waits_for, fcntl.LOCK_UN)
assert os.waitpid(waiter, 0)[1] == 0
print("ended", flush=True)
