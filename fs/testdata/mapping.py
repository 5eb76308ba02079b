"""Shared and private mappings of files in the directory argv[1]."""
import mmap
import os
import sys

path = os.path.join(sys.argv[1], "mapped")
page = mmap.PAGESIZE

with open(path, "wb") as f:
    f.write(b"a" * 3 * page)

with open(path, "r+b") as f:
    shared = mmap.mmap(f.fileno(), 0, flags=mmap.MAP_SHARED)
    other = mmap.mmap(os.open(path, os.O_RDONLY), 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
    private = mmap.mmap(f.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)

    shared[page:page + 5] = b"hello"
    assert other[page:page + 5] == b"hello", "two shared mappings differ"
    assert os.pread(f.fileno(), 5, page) == b"hello", "read doesn't see what a mapping wrote"

    os.pwrite(f.fileno(), b"world", 2 * page)
    assert shared[2 * page:2 * page + 5] == b"world", "a mapping doesn't see a write"

    private[0:4] = b"mine"
    assert shared[0:4] == b"aaaa" and os.pread(f.fileno(), 4, 0) == b"aaaa", "a private mapping leaked"
    shared.flush()
    shared.close()
    private.close()

with open(path, "rb") as f:
    data = f.read()
assert data[page:page + 5] == b"hello" and data[2 * page:2 * page + 5] == b"world" and len(data) == 3 * page

# A mapping lives on after close and unlink, and a truncated file loses its tail.
f = open(path, "r+b")
kept = mmap.mmap(f.fileno(), 0, flags=mmap.MAP_SHARED)
f.close()
os.unlink(path)
kept[0:4] = b"gone"
assert kept[0:4] == b"gone"

# What a mapping writes goes where it was mapped, also through a descriptor for appending.
path = os.path.join(sys.argv[1], "appended")
with open(path, "wb") as f:
    f.write(b"b" * 100)
fd = os.open(path, os.O_RDWR | os.O_APPEND)
with mmap.mmap(fd, 100, flags=mmap.MAP_SHARED) as m:
    m[10:14] = b"here"
    m.flush()
os.write(fd, b"end")
os.close(fd)
with open(path, "rb") as f:
    assert f.read() == b"b" * 10 + b"here" + b"b" * 86 + b"end"
