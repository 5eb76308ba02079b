"""shutil's copytree, move and rmtree, os.walk and os.fwalk in the directory argv[1]."""
import os
import shutil
import sys

base = sys.argv[1]
tree = os.path.join(base, "tree")
for d in range(20):
    for s in range(3):
        os.makedirs(os.path.join(tree, f"d{d}", f"s{s}"))
        for f in range(10):
            with open(os.path.join(tree, f"d{d}", f"s{s}", f"f{f}"), "w") as out:
                out.write(f"{d} {s} {f}")
os.symlink("d0", os.path.join(tree, "link"))
os.link(os.path.join(tree, "d0", "s0", "f0"), os.path.join(tree, "hard"))

copy = os.path.join(base, "copy")
shutil.copytree(tree, copy, symlinks=True)
moved = shutil.move(copy, os.path.join(base, "moved"))
names = sorted(os.path.relpath(os.path.join(r, n), tree) for r, ds, fs in os.walk(tree) for n in ds + fs)
again = sorted(os.path.relpath(os.path.join(r, n), moved) for r, ds, fs in os.walk(moved) for n in ds + fs)
assert names == again and len(names) == 20 * (1 + 3 + 30) + 2, len(names)
assert sum(len(fs) for _, _, fs, _ in os.fwalk(tree)) == 20 * 30 + 1  # the link is a directory's
shutil.rmtree(tree)
shutil.rmtree(moved)
assert os.listdir(base) == [], os.listdir(base)
