"""Directories that are deeper than any path may be long, in the directory argv[1]."""
import os
import sys

NAME, DEPTH = "d" * 200, 40  # 8,000 bytes

fd = os.open(sys.argv[1], os.O_RDONLY)
for i in range(DEPTH):
    os.mkdir(NAME, dir_fd=fd)
    down = os.open(NAME, os.O_RDONLY, dir_fd=fd)
    os.close(fd)
    fd = down
with open(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=fd), "w") as f:
    f.write("bottom")
os.rename("file", "renamed", src_dir_fd=fd, dst_dir_fd=fd)
with open(os.open("renamed", os.O_RDONLY, dir_fd=fd)) as f:
    assert f.read() == "bottom"
assert os.listdir(fd) == ["renamed"]
os.unlink("renamed", dir_fd=fd)
for i in range(DEPTH):
    up = os.open("..", os.O_RDONLY, dir_fd=fd)
    os.close(fd)
    fd = up
    os.rmdir(NAME, dir_fd=fd)
assert os.listdir(fd) == []
