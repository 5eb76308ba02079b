"""Makes a conda channel out of nothing: the same packages for the same seed.

The packages hold what real ones hold and what file systems get wrong: symlinks to files and to
directories, dangling ones, hard links, prefix placeholders in text and in binaries, executable bits,
empty files, empty directories, unicode in both normal forms, long names, deep paths, thousands of small
files, one huge file; `.conda` and `.tar.bz2`; and old packages without `info/paths.json`.

Beside the channel stands `truth.json`: for each package every path with type, mode, size and SHA-256.
check.py judges caches and environments by it, never by what a client says.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import random
import shutil
import sys
import tarfile
import tempfile
import time

import conda_package_handling.api as cph
from conda_package_streaming.create import conda_builder

LONG_PLACEHOLDER = ("/home/builder/work/_h_env" + "_placehold" * 30)[:255]
OLD_PLACEHOLDER = "/opt/anaconda1anaconda2anaconda3"
MTIME = 1_700_000_000
WORDS = "import def return class self path name value yield async await with open read write".split()

# How large the two large packages are, and how many of the ordinary files (the more or less equal ones) of the others
# there are: one in so many. "tiny" is for tests that do not look at speed.
SIZES = {
    "tiny": {"many": 300, "big": 1 << 20, "one_in": 5},
    "quick": {"many": 2000, "big": 16 << 20, "one_in": 1},
    "full": {"many": 5000, "big": 200 << 20, "one_in": 1},
}


class Package:
    def __init__(self, name, version="1.0", build="0", subdir="linux-64", ext=".conda", noarch=None, depends=(), old=False):
        self.name, self.version, self.build = name, version, build
        self.subdir = "noarch" if noarch else subdir
        self.noarch, self.ext, self.old = noarch, ext, old
        self.depends = list(depends)
        self.items: dict[str, dict] = {}
        self.entry_points: list[str] = []

    @property
    def dist(self):
        return f"{self.name}-{self.version}-{self.build}"

    @property
    def fn(self):
        return self.dist + self.ext

    def file(self, path, data: bytes, mode=0o644, placeholder=None, file_mode="text", no_link=False):
        self.items[path] = dict(t="file", data=data, mode=mode, ph=placeholder, fm=file_mode, no_link=no_link)

    def link(self, path, target):
        self.items[path] = dict(t="link", link=target)

    def hard(self, path, of):
        self.items[path] = dict(self.items[of], of=of)

    def dir(self, path):
        self.items[path] = dict(t="dir")

    def index(self):
        index = dict(
            name=self.name, version=self.version, build=self.build, build_number=0, depends=self.depends,
            constrains=[], license="MIT", subdir=self.subdir, timestamp=MTIME * 1000,
            arch=None if self.noarch else "x86_64", platform=None if self.noarch else "linux",
        )
        if self.noarch:
            index["noarch"] = self.noarch
        return index

    def paths(self):
        out = []
        for path, it in sorted(self.items.items()):
            if it["t"] == "dir":
                continue
            if it["t"] == "link":
                # conda-build records the target's hash, and that of nothing for a dangling link
                out.append(dict(_path=path, path_type="softlink", sha256=hashlib.sha256(b"").hexdigest(), size_in_bytes=0))
                continue
            entry = dict(_path=path, path_type="hardlink", sha256=sha256(it["data"]), size_in_bytes=len(it["data"]))
            if it["ph"]:
                entry.update(prefix_placeholder=it["ph"], file_mode=it["fm"])
            if it["no_link"]:
                entry["no_link"] = True
            out.append(entry)
        return {"paths": out, "paths_version": 1}

    def members(self):
        """All members in the order of the archive, the info part included."""
        items = dict(self.items)

        def info(name, text, mode=0o644):
            items["info/" + name] = dict(t="file", data=text.encode(), mode=mode, ph=None, fm=None, no_link=False)

        listed = sorted(p for p, it in self.items.items() if it["t"] != "dir")
        info("index.json", json.dumps(self.index(), indent=2, sort_keys=True))
        info("about.json", json.dumps({"summary": f"generated package {self.name}", "home": "http://localhost"}))
        info("files", "".join(p + "\n" for p in listed))
        info("licenses/LICENSE", "MIT\n")
        info("recipe/meta.yaml", f"package:\n  name: {self.name}\n  version: {self.version}\n")
        info("test/run_test.sh", "#!/bin/sh\nexit 0\n", 0o755)
        if self.noarch == "python":
            link = {"noarch": {"type": "python"}, "package_metadata_version": 1}
            if self.entry_points:
                link["noarch"]["entry_points"] = self.entry_points
            info("link.json", json.dumps(link))
        if not self.old:
            info("paths.json", json.dumps(self.paths(), indent=1))
        prefixed = [(p, it) for p, it in sorted(self.items.items()) if it.get("ph")]
        if prefixed:
            lines = [
                p if self.old and it["ph"] == OLD_PLACEHOLDER and it["fm"] == "text" else f'{it["ph"]} {it["fm"]} {p}'
                for p, it in prefixed
            ]
            info("has_prefix", "".join(line + "\n" for line in lines))
        if self.old and any(it.get("no_link") for it in self.items.values()):
            info("no_link", "".join(p + "\n" for p, it in sorted(self.items.items()) if it.get("no_link")))
        return items


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def text(rng, size):
    words = [rng.choice(WORDS) for _ in range(max(1, size // 6))]
    lines = [" ".join(words[i : i + 10]) for i in range(0, len(words), 10)]
    return ("\n".join(lines) + f"\n# {rng.getrandbits(64):x}\n").encode()


def binary_with_prefix(rng, size):
    """Looks like a library that holds its prefix twice, once as a directory and once below it."""
    body = rng.randbytes(size).replace(b"/home", b"/HOME")
    a = LONG_PLACEHOLDER.encode() + b"/lib\0"
    b = LONG_PLACEHOLDER.encode() + b"/share/x\0\0\0"
    half = size // 2
    return b"\x7fELF" + body[:half] + a + b"\0mid\0" + b + body[half:]


def make_python(one_in):
    rng = random.Random("python")
    p = Package("python", "3.12.4", "h0_0")
    p.file("bin/python3.12", f"#!/bin/sh\n# stands for the interpreter\n# {LONG_PLACEHOLDER}\nexit 0\n".encode(), 0o755, LONG_PLACEHOLDER)
    p.link("bin/python3", "python3.12")
    p.link("bin/python", "python3.12")
    p.file("lib/libpython3.12.so.1.0", binary_with_prefix(rng, 400_000), 0o755, LONG_PLACEHOLDER, "binary")
    p.link("lib/libpython3.12.so", "libpython3.12.so.1.0")
    p.file("lib/python3.12/_sysconfigdata.py", f"prefix = '{LONG_PLACEHOLDER}'\n".encode() + text(rng, 4000), 0o644, LONG_PLACEHOLDER)
    for i in range(0, 120, one_in):
        p.file(f"lib/python3.12/{'encodings/' if i % 3 == 0 else ''}mod_{i:03}.py", text(rng, rng.randrange(200, 9000)))
    p.file("lib/python3.12/site-packages/README.txt", b"modules go here\n")
    return p


def make_lib(i, seed, one_in):
    rng = random.Random(f"{seed}/lib{i}")
    name = f"lib{i:02}"
    deps = sorted(rng.sample(range(i), min(i, 2)))
    p = Package(name, f"{1 + i % 3}.{i}", f"h{rng.getrandbits(24):06x}_0", ext=".tar.bz2" if i % 6 == 5 else ".conda",
                depends=[f"lib{d:02}" for d in deps])
    so = f"lib/{name}.so.{p.version}"
    p.file(so, binary_with_prefix(rng, rng.randrange(10_000, 120_000)), 0o755, LONG_PLACEHOLDER, "binary")
    p.link(f"lib/{name}.so.{1 + i % 3}", f"{name}.so.{p.version}")
    p.link(f"lib/{name}.so", f"{name}.so.{1 + i % 3}")
    p.file(f"lib/pkgconfig/{name}.pc", f"prefix={LONG_PLACEHOLDER}\nlibdir={LONG_PLACEHOLDER}/lib\n".encode(), 0o644, LONG_PLACEHOLDER)
    p.file(f"bin/{name}-config", f"#!{LONG_PLACEHOLDER}/bin/python\nprint('{LONG_PLACEHOLDER}')\n".encode(), 0o755, LONG_PLACEHOLDER)
    for h in range(0, rng.randrange(4, 20), one_in):
        p.file(f"include/{name}/h{h}.h", text(rng, rng.randrange(100, 3000)))
    p.file(f"share/{name}/blob.bin", rng.randbytes(rng.randrange(1000, 200_000)))
    p.file(f"share/{name}/empty", b"")
    if i % 4 == 0:  # the linker's names as hard links, as some builds leave them
        p.hard(f"share/{name}/blob-again.bin", f"share/{name}/blob.bin")
    if i % 5 == 0:
        p.file(f"share/{name}/keep-a-copy.conf", text(rng, 300), no_link=True)
    return p


def make_pure(i, seed, one_in):
    rng = random.Random(f"{seed}/pure{i}")
    name = f"pure{i:02}"
    deps = sorted(rng.sample(range(i), min(i, 2)))
    p = Package(name, f"2.{i}.1", f"pyhd8ed1ab_{i % 2}", ext=".tar.bz2" if i % 8 == 7 else ".conda", noarch="python",
                depends=["python >=3.8"] + [f"pure{d:02}" for d in deps])
    p.file(f"site-packages/{name}/__init__.py", text(rng, 500))
    for f in range(0, rng.randrange(10, 40), one_in):
        sub = f"sub{f % 3}/" if f % 4 == 0 else ""
        p.file(f"site-packages/{name}/{sub}m{f:02}.py", text(rng, rng.randrange(50, 12_000)))
    p.file(f"site-packages/{name}-{p.version}.dist-info/METADATA", f"Name: {name}\nVersion: {p.version}\n".encode())
    p.file(f"site-packages/{name}-{p.version}.dist-info/REQUESTED", b"")
    if i % 5 == 0:
        p.entry_points = [f"{name} = {name}.m00:main"]
    if i % 6 == 0:
        p.file(f"python-scripts/{name}-run", f"#!{LONG_PLACEHOLDER}/bin/python\nprint(1)\n".encode(), 0o755, LONG_PLACEHOLDER)
    return p


def make_old(i, seed):
    rng = random.Random(f"{seed}/old{i}")
    name = f"old{i:02}"
    p = Package(name, f"0.{i}", "0", ext=".tar.bz2", old=True)
    p.file(f"bin/{name}", f"#!{OLD_PLACEHOLDER}/bin/python\nprint('{OLD_PLACEHOLDER}')\n".encode(), 0o755, OLD_PLACEHOLDER)
    p.file(f"lib/{name}.so", binary_with_prefix(rng, 20_000), 0o755, LONG_PLACEHOLDER, "binary")
    p.link(f"lib/{name}.so.0", f"{name}.so")
    p.file(f"etc/{name}.conf", f"dir = {OLD_PLACEHOLDER}/etc\n".encode(), 0o644, OLD_PLACEHOLDER)
    p.file(f"etc/{name}.local", text(rng, 200), no_link=True)
    for f in range(12):
        p.file(f"share/{name}/f{f}.dat", rng.randbytes(rng.randrange(1, 5000)))
    return p


def make_odd():
    rng = random.Random("odd")
    p = Package("odd", "1.0", "0")
    p.file("share/odd/real.txt", text(rng, 1000))
    p.file("share/odd/dir/inside.txt", text(rng, 100))
    p.link("share/odd/to-file", "real.txt")
    p.link("share/odd/to-dir", "dir")
    p.link("share/odd/up-and-down", "../../share/odd/dir/inside.txt")
    p.link("share/odd/dangling", "nowhere/at/all")
    p.link("share/odd/dangling-to-dependency", "../lib00/of-another-package")
    p.hard("share/odd/second-name.txt", "share/odd/real.txt")
    p.hard("share/odd/dir/third-name.txt", "share/odd/real.txt")
    p.file("share/odd/ünïcödé/日本語.txt", "中身\n".encode())
    p.file("share/odd/nfc-\u00e9.txt", b"composed\n")
    p.file("share/odd/nfd-e\u0301.txt", b"decomposed\n")
    p.file("share/odd/emoji-🐍.py", b"print('snake')\n")
    p.file("share/odd/" + "n" * 240 + ".txt", b"a long name\n")
    p.file("share/odd/" + "/".join(f"level-{i:02}" for i in range(40)) + "/deep.txt", b"far down\n")
    p.file("share/odd/with space and 'quotes' \"too\".txt", b"quoted\n")
    p.file("share/odd/back\\slash.txt", b"a backslash is a letter here\n")
    p.file("share/odd/-dash", b"-rf\n")
    p.file("share/odd/.hidden/.file", b"hidden\n")
    p.file("share/odd/UPPER.txt", b"upper\n")
    p.file("share/odd/upper.txt", b"lower\n")
    p.file("share/odd/pkg.conda.partial", b"only looks like a download\n")
    p.file("share/odd/trash.c~", b"only looks like trash\n")
    p.file("share/odd/urls.txt", b"only looks like conda's list\n")
    p.file("share/odd/read-only", b"0444\n", 0o444)
    p.file("share/odd/private", b"0600\n", 0o600)
    p.file("bin/odd-tool", b"#!/bin/sh\nexit 0\n", 0o755)
    p.dir("share/odd/empty-dir")
    p.dir("var/odd/empty/nested")
    for i in range(3):
        p.file(f"share/odd/empty-{i}", b"")
    return p


def make_many(count):
    rng = random.Random("many")
    p = Package("many", "1.0", "0", depends=["lib00"])
    body = text(rng, 4000)
    for i in range(count):
        p.file(f"share/many/{i % 40:02}/{i // 40 % 10}/f{i:05}.txt", body[: rng.randrange(10, 1500)] + str(i).encode())
    return p


def make_big(size):
    rng = random.Random("big")
    p = Package("big", "1.0", "0", depends=["lib01"])
    block = rng.randbytes(min(size, 8 << 20))
    out = bytearray()
    n = 0
    while len(out) < size:  # no two blocks alike, and nothing for zstd to find
        mask = (n * 37 + 11) % 256
        out += block if n == 0 else block.translate(bytes(b ^ mask for b in range(256)))
        n += 1
    p.file("share/big/model.bin", bytes(out[:size]))
    return p


def make_apps(seed, one_in):
    for i in range(10):
        rng = random.Random(f"{seed}/app{i}")
        name = f"app{i:02}"
        deps = ["python >=3.12,<3.13"]
        deps += [f"lib{d:02}" for d in sorted(rng.sample(range(24), 4))]
        deps += [f"pure{d:02}" for d in sorted(rng.sample(range(24), 4))]
        if i % 3 == 0:
            deps += [f"old{i // 3 % 3:02}", "odd"]
        p = Package(name, f"{i}.0", f"py312h{rng.getrandbits(24):06x}_0", ext=".tar.bz2" if i == 4 else ".conda", depends=deps)
        p.file(f"bin/{name}", f"#!{LONG_PLACEHOLDER}/bin/python\nimport {name}\n".encode(), 0o755, LONG_PLACEHOLDER)
        for f in range(0, 20, one_in):
            p.file(f"lib/python3.12/site-packages/{name}/m{f}.py", text(rng, rng.randrange(100, 20_000)))
        p.file(f"lib/python3.12/site-packages/{name}/_core.so", binary_with_prefix(rng, rng.randrange(50_000, 400_000)), 0o755, LONG_PLACEHOLDER, "binary")
        yield p


def generate(size="quick", seed=1):
    one_in = SIZES[size]["one_in"]
    packages = [make_python(one_in)]
    packages += [make_lib(i, seed, one_in) for i in range(24)]
    packages += [make_pure(i, seed, one_in) for i in range(24)]
    packages += [make_old(i, seed) for i in range(3)]
    packages += [make_odd(), make_many(SIZES[size]["many"]), make_big(SIZES[size]["big"])]
    data = Package("data-files", "1.0", "0", noarch="generic")
    data.file("share/data-files/table.csv", text(random.Random("data"), 50_000))
    packages.append(data)
    packages += list(make_apps(seed, one_in))
    packages.append(Package("world", depends=[p.name for p in packages if p.name not in ("many", "big")]))
    packages.append(Package("universe", depends=["world", "many", "big"]))
    return packages


def tarinfo(path, it):
    ti = tarfile.TarInfo(path)
    ti.mtime = MTIME
    ti.mode = it.get("mode", 0o755)
    if it["t"] == "dir":
        ti.type, ti.mode = tarfile.DIRTYPE, 0o755
    elif it["t"] == "link":
        ti.type, ti.linkname, ti.mode = tarfile.SYMTYPE, it["link"], 0o777
    elif "of" in it:
        ti.type, ti.linkname = tarfile.LNKTYPE, it["of"]
    else:
        ti.size = len(it["data"])
    return ti


def write_streamed(p, folder):
    """As conda-package-streaming writes a .conda: members go into a tar file for each part."""
    with conda_builder(p.dist, folder, compression_level=1) as tar:
        for path, it in in_archive_order(p.members()):
            tar.addfile(tarinfo(path, it), io.BytesIO(it["data"]) if it["t"] == "file" and "of" not in it else None)


def in_archive_order(items):
    """Hard links come after what they link to."""
    return sorted(items.items(), key=lambda kv: ("of" in kv[1], kv[0]))


def write_from_disk(p, folder, scratch):
    """As conda-build writes a package: a directory on disk, packed by conda-package-handling."""
    root = os.path.join(scratch, p.dist)
    names = []
    for path, it in in_archive_order(p.members()):
        full = os.path.join(root, path)
        os.makedirs(full if it["t"] == "dir" else os.path.dirname(full), exist_ok=True)
        names.append(path)
        if it["t"] == "link":
            os.symlink(it["link"], full)
        elif it["t"] == "file" and "of" in it:
            os.link(os.path.join(root, it["of"]), full)
        elif it["t"] == "file":
            with open(full, "wb") as f:
                f.write(it["data"])
            os.chmod(full, it["mode"])
        os.utime(full, (MTIME, MTIME), follow_symlinks=False)
    cph.create(root, sorted(names, key=lambda n: (not n.startswith("info/"), n)), os.path.join(folder, p.fn), **(
        {"compression_level": 1} if p.ext == ".conda" else {}))
    shutil.rmtree(root)


def write_channel(out, size="quick", seed=1):
    truth = {"placeholder": LONG_PLACEHOLDER, "size": size, "seed": seed, "packages": {}}
    repodata = {s: {"info": {"subdir": s}, "packages": {}, "packages.conda": {}, "removed": [], "repodata_version": 1}
                for s in ("noarch", "linux-64")}
    with tempfile.TemporaryDirectory() as scratch:
        for p in generate(size, seed):
            folder = os.path.join(out, p.subdir)
            os.makedirs(folder, exist_ok=True)
            if p.ext == ".conda" and not p.name.startswith("app"):
                write_streamed(p, folder)
            else:
                write_from_disk(p, folder, scratch)
            full = os.path.join(folder, p.fn)
            with open(full, "rb") as f:
                data = f.read()
            os.utime(full, (MTIME, MTIME))
            record = dict(p.index(), md5=hashlib.md5(data).hexdigest(), sha256=sha256(data), size=len(data))
            record = {k: v for k, v in record.items() if v is not None}
            repodata[p.subdir]["packages.conda" if p.ext == ".conda" else "packages"][p.fn] = record
            truth["packages"][p.fn] = dict(
                name=p.name, version=p.version, build=p.build, subdir=p.subdir, noarch=p.noarch, depends=p.depends, old=p.old,
                entry_points=p.entry_points, md5=record["md5"], sha256=record["sha256"], size=record["size"],
                items=[truth_item(path, it) for path, it in sorted(p.members().items())],
            )
    for subdir, content in repodata.items():
        with open(os.path.join(out, subdir, "repodata.json"), "w") as f:
            json.dump(content, f, indent=1, sort_keys=True)
    with open(os.path.join(out, "truth.json"), "w") as f:
        json.dump(truth, f)
    return truth


def truth_item(path, it):
    if it["t"] == "dir":
        return dict(p=path, t="dir")
    if it["t"] == "link":
        return dict(p=path, t="link", link=it["link"])
    out = dict(p=path, t="file", sha256=sha256(it["data"]), size=len(it["data"]), mode=it["mode"])
    if it["ph"]:
        # what the file becomes in an environment is computed from its bytes, so keep the small ones
        out.update(ph=it["ph"], fm=it["fm"])
    if it["no_link"]:
        out["no_link"] = True
    if "of" in it:
        out["of"] = it["of"]
    return out


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("out", help="directory to make; must not exist or be empty")
    ap.add_argument("--size", choices=sorted(SIZES), default="quick")
    ap.add_argument("--seed", type=int, default=1)
    args = ap.parse_args()
    if os.path.isdir(args.out) and os.listdir(args.out):
        ap.error(f"{args.out} is not empty")
    started = time.monotonic()
    truth = write_channel(args.out, args.size, args.seed)
    packages = truth["packages"].values()
    json.dump(dict(packages=len(packages), files=sum(len(p["items"]) for p in packages),
                   archive_bytes=sum(p["size"] for p in packages), seconds=round(time.monotonic() - started, 2)), sys.stdout)
    print()


if __name__ == "__main__":
    main()
