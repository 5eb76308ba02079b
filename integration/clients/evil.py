"""Puts one bad thing into a package directory, the way a broken or hostile client might leave it, and exits with status 0.

Prints the path of the bad thing below the package directory. The kinds are the functions below.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import sys
import tarfile
import zipfile

try:
    import compression.zstd as zstd
except ImportError:
    import backports.zstd as zstd

import conda_package_handling.api as cph


class Bench:
    """One good package of the channel, extracted in the package directory with a true record, ready to be spoilt."""

    def __init__(self, channel, pkgs, name, with_archive=True):
        with open(os.path.join(channel, "truth.json")) as f:
            packages = json.load(f)["packages"]
        self.fn, self.package = next((fn, p) for fn, p in packages.items() if p["name"] == name)
        self.pkgs = pkgs
        self.source = os.path.join(channel, self.package["subdir"], self.fn)
        self.archive = os.path.join(pkgs, self.fn)
        self.dist = f"{name}-{self.package['version']}-{self.package['build']}"
        self.folder = os.path.join(pkgs, self.dist)
        os.makedirs(pkgs, exist_ok=True)
        if with_archive:
            shutil.copyfile(self.source, self.archive)

    def extract(self):
        cph.extract(self.source, dest_dir=self.folder)

    def path(self, name):
        return os.path.join(self.folder, name)

    def record(self, **changes):
        keys = ("name", "version", "build", "subdir", "depends", "md5", "sha256", "size")
        record = {k: self.package[k] for k in keys}
        record.update(fn=self.fn, build_number=0, url=f"http://localhost/{self.package['subdir']}/{self.fn}")
        record.update(channel=f"http://localhost/{self.package['subdir']}", **changes)
        with open(self.path("info/repodata_record.json"), "w") as f:
            json.dump(record, f)

    def edit_paths(self, edit):
        name = self.path("info/paths.json")
        with open(name) as f:
            data = json.load(f)
        edit(data["paths"])
        with open(name, "w") as f:
            json.dump(data, f)

    def some_file(self):
        return next(it["p"] for it in self.package["items"] if it["t"] == "file" and it["p"].startswith("include/"))


def truncated_archive(b):
    with open(b.archive, "r+b") as f:
        f.truncate(os.path.getsize(b.archive) // 2)
    return b.fn


def garbage_archive(b):
    with open(b.archive, "wb") as f:
        f.write(b"<html>503 Service Unavailable</html>")
    return b.fn


def archive_of_another(b, channel):
    other = Bench(channel, b.pkgs, "data-files", with_archive=False)
    shutil.copyfile(other.source, b.archive)
    return b.fn


def record_with_wrong_hash(b):
    b.extract()
    b.record(sha256="0" * 64, md5="0" * 32)
    return b.dist


def record_with_wrong_name(b):
    b.extract()
    b.record(name="somebody-else")
    return b.dist


def record_is_garbage(b):
    b.extract()
    with open(b.path("info/repodata_record.json"), "wb") as f:
        f.write(b"{]\xff\x00")
    return b.dist


def changed_file(b):
    b.extract()
    with open(b.path(b.some_file()), "r+b") as f:
        first = f.read(1)
        f.seek(0)
        f.write(bytes([first[0] ^ 1]))
    b.record()
    return b.dist


def missing_file(b):
    b.extract()
    os.unlink(b.path(b.some_file()))
    b.record()
    return b.dist


def extra_file(b):
    b.extract()
    with open(b.path("lib/stowaway.so"), "w") as f:
        f.write("not in the archive")
    b.record()
    return b.dist


def paths_leave_package(b):
    b.extract()
    b.edit_paths(lambda paths: paths[0].update(_path="../../../../evil"))
    b.record()
    return b.dist


def paths_absolute(b):
    b.extract()
    b.edit_paths(lambda paths: paths[0].update(_path="/etc/passwd"))
    b.record()
    return b.dist


def paths_twice(b):
    b.extract()
    b.edit_paths(lambda paths: paths.append(dict(paths[0])))
    b.record()
    return b.dist


def symlink_out(b):
    b.extract()
    os.unlink(b.path(f"lib/{b.package['name']}.so"))
    os.symlink("../../../../../../etc/passwd", b.path(f"lib/{b.package['name']}.so"))
    b.record()
    return b.dist


def tar_zst(members):
    out = io.BytesIO()
    with tarfile.TarFile(fileobj=out, mode="w") as tar:
        for name, data in members:
            ti = tarfile.TarInfo(name)
            ti.size = len(data)
            tar.addfile(ti, io.BytesIO(data))
    return zstd.compress(out.getvalue())


def conda(b, pkg):
    """A .conda archive in the place of the good one, whose pkg part is these bytes."""
    index = json.dumps({k: b.package[k] for k in ("name", "version", "build", "subdir", "depends")} | {"build_number": 0}).encode()
    with zipfile.ZipFile(b.archive, "w") as z:
        z.writestr("metadata.json", '{"conda_pkg_format_version": 2}')
        z.writestr(f"pkg-{b.dist}.tar.zst", pkg)
        z.writestr(f"info-{b.dist}.tar.zst", tar_zst([("info/index.json", index), ("info/paths.json", b'{"paths": [], "paths_version": 1}')]))
    return b.fn


def bomb(b):
    """A few megabytes that say they are a file of a terabyte of zeros."""
    block = 64 << 20
    count = (1 << 40) // block
    header = tarfile.TarInfo("share/zeros")
    header.size = count * block
    zeros = zstd.compress(bytes(block), options={zstd.CompressionParameter.compression_level: 1})
    return conda(b, zstd.compress(header.tobuf(tarfile.GNU_FORMAT)) + zeros * min(count, (8 << 20) // len(zeros)))


def archive_with_dotdot(b):
    return conda(b, tar_zst([("../../evil", b"outside")]))


def archive_with_absolute(b):
    return conda(b, tar_zst([("/tmp/condafs-evil", b"outside")]))


def odd_names(b):
    """Nothing is bad here, only unusual: 255 bytes, a path longer than PATH_MAX, bytes that are no UTF-8, newlines."""
    root = os.fsencode(os.path.join(b.pkgs, "odd-names"))
    os.mkdir(root)
    for name in (b"x" * 255, b"\xff\xfe\x80", b"new\nline", b" ", b"\xe2\x80\xae"):
        with open(os.path.join(root, name), "wb") as f:
            f.write(name)
    fd = os.open(root, os.O_RDONLY)
    for _ in range(25):
        os.mkdir(b"d" * 200, dir_fd=fd)
        deeper = os.open(b"d" * 200, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    with open(os.open(b"bottom", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=fd), "wb") as f:
        f.write(b"below PATH_MAX")
    os.close(fd)
    try:
        os.mkdir(os.path.join(root, b"y" * 256))
    except OSError as e:
        assert e.errno == 36, e
    else:
        sys.exit("a name of 256 bytes was taken")
    return "odd-names"


KINDS = [truncated_archive, garbage_archive, archive_of_another, record_with_wrong_hash, record_with_wrong_name, record_is_garbage,
         changed_file, missing_file, extra_file, paths_leave_package, paths_absolute, paths_twice, symlink_out, bomb,
         archive_with_dotdot, archive_with_absolute, odd_names]


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--channel", required=True, help="directory of the channel")
    ap.add_argument("--pkgs", required=True)
    ap.add_argument("--name", default="lib00", help="package to spoil, a .conda of the lib kind")
    ap.add_argument("kind", choices=[k.__name__ for k in KINDS])
    args = ap.parse_args()
    kind = next(k for k in KINDS if k.__name__ == args.kind)
    b = Bench(args.channel, args.pkgs, args.name, with_archive=kind is not odd_names)
    print(json.dumps({"success": True, "path": kind(b, args.channel) if kind is archive_of_another else kind(b)}))


if __name__ == "__main__":
    sys.exit(main())
