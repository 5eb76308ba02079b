"""Another user uses the mount argv[1], on which argv[2] is somebody else's session."""
import os
import sys

mount, foreign = sys.argv[1:]
assert foreign not in os.listdir(os.path.join(mount, ".sessions"))
link = os.readlink(os.path.join(mount, "pkgs"))
assert link != f".sessions/{foreign}/pkgs"
own = link.split("/")[1]
assert os.listdir(os.path.join(mount, ".sessions")) == [own]
pkg = os.path.join(mount, "pkgs", "own-1-0")
os.mkdir(pkg)
with open(os.path.join(pkg, "f"), "w") as f:
    f.write("mine")
with open(os.path.join(pkg, "f")) as f:
    assert f.read() == "mine"
st = os.stat(os.path.join(pkg, "f"))
assert (st.st_uid, st.st_gid) == (os.getuid(), os.getgid()), st
for path in (f".sessions/{foreign}", f".sessions/{foreign}/pkgs"):
    try:
        os.listdir(os.path.join(mount, path))
        raise AssertionError(f"could list {path}")
    except PermissionError:
        pass
