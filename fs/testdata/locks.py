"""Byte-range locks and flocks between two processes, on a file in the directory argv[1]."""
import fcntl
import os
import sys

path = os.path.join(sys.argv[1], "lockfile")
with open(path, "wb") as f:
    f.write(b"x" * 100)


def refused(lock):
    """Whether another process is refused the lock."""
    pid = os.fork()
    if pid == 0:
        try:
            with open(path, "r+b") as f:
                lock(f)
        except BlockingIOError:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1


with open(path, "r+b") as f:
    fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 20)
    assert refused(lambda g: fcntl.lockf(g, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 28))
    assert refused(lambda g: fcntl.lockf(g, fcntl.LOCK_EX | fcntl.LOCK_NB))
    assert not refused(lambda g: fcntl.lockf(g, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 50))
    fcntl.lockf(f, fcntl.LOCK_UN)
    assert not refused(lambda g: fcntl.lockf(g, fcntl.LOCK_EX | fcntl.LOCK_NB))

    fcntl.flock(f, fcntl.LOCK_SH)
    assert refused(lambda g: fcntl.flock(g, fcntl.LOCK_EX | fcntl.LOCK_NB))
    assert not refused(lambda g: fcntl.flock(g, fcntl.LOCK_SH | fcntl.LOCK_NB))
    # Two descriptors of one process exclude each other with flock.
    with open(path, "r+b") as g:
        try:
            fcntl.flock(g, fcntl.LOCK_EX | fcntl.LOCK_NB)
            raise AssertionError("a second descriptor got the flock")
        except BlockingIOError:
            pass
    fcntl.flock(f, fcntl.LOCK_UN)

    # A waiter gets the lock when its holder closes.
    fcntl.lockf(f, fcntl.LOCK_EX)
    ready, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        with open(path, "r+b") as g:
            os.write(go, b"x")
            fcntl.lockf(g, fcntl.LOCK_EX)
        os._exit(0)
    os.read(ready, 1)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
