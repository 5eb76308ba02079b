"""Judges environments and caches by their bytes, against the channel's truth.json. Trusts no exit status.

An environment is right when every file of every package it should hold is there, with the right bytes (the prefix replaced
by this module's own code, not the client's), the right link targets and the right executable bits, and each package has its
record in conda-meta. A cache is right when every archive has its hash and every extracted directory all of its files.

Prints one JSON object; its exit status is 0 when all is right, 3 when something is broken.
"""

from __future__ import annotations

import argparse
import functools
import glob
import hashlib
import json
import os
import re
import stat
import sys

from conda_package_streaming.package_streaming import stream_conda_component

MAX_DETAILS = 20


class Truth:
    def __init__(self, channel):
        self.channel = channel
        with open(os.path.join(channel, "truth.json")) as f:
            self.packages = json.load(f)["packages"]
        self.by_name = {p["name"]: fn for fn, p in self.packages.items()}

    def closure(self, specs):
        names, todo = set(), list(specs)
        while todo:
            name = re.split(r"[ =<>]", todo.pop())[0]
            if name not in names:
                names.add(name)
                todo += self.packages[self.by_name[name]]["depends"]
        return sorted(self.by_name[n] for n in names)

    def items(self, fn, info):
        return [it for it in self.packages[fn]["items"] if info or not it["p"].startswith("info/")]

    @functools.cache
    def originals(self, fn):
        """The bytes of the files with a placeholder, out of the archive."""
        wanted = {it["p"] for it in self.packages[fn]["items"] if "ph" in it}
        out = {}
        if wanted:
            path = os.path.join(self.channel, self.packages[fn]["subdir"], fn)
            for tar, member in stream_conda_component(path):
                if member.name in wanted:
                    out[member.name] = tar.extractfile(member).read()
        return out

    @functools.cache
    def sha_with_prefix(self, fn, path, placeholder, mode, prefix):
        return hashlib.sha256(replace(self.originals(fn)[path], placeholder.encode(), prefix.encode(), mode)).hexdigest()


def replace(data, old, new, mode):
    if mode == "text":
        data = data.replace(old, new)
        first, newline, rest = data.partition(b"\n")
        if first.startswith(b"#!") and (len(first) > 127 or b" " in new):
            interpreter, _, options = first[2:].strip().partition(b" ")
            first = b"#!/usr/bin/env " + interpreter.rsplit(b"/", 1)[-1] + (b" " + options if options else b"")
        return first + newline + rest
    out, at = bytearray(), 0
    while (found := data.find(old, at)) >= 0:
        end = data.index(b"\0", found)
        string = data[found:end].replace(old, new)
        out += data[at:found] + string + b"\0" * (end - found - len(string))
        at = end
    return bytes(out + data[at:])


def sha256_file(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while data := f.read(1 << 18):
            digest.update(data)
    return digest.hexdigest()


class Report:
    def __init__(self):
        self.counts = dict(
            environments=0, environments_ok=0, environments_broken=0, environments_absent=0, packages_broken=0,
            files_checked=0, files_missing=0, files_wrong=0,
            archives_ok=0, archives_corrupt=0, archives_missing=0, directories_ok=0, directories_broken=0, directories_missing=0,
            leftovers=0)
        self.wrong_environments = []
        self.details = []

    def note(self, text):
        if len(self.details) < MAX_DETAILS:
            self.details.append(text)

    def add(self, key, n=1):
        self.counts[key] += n

    @property
    def ok(self):
        return not any(v for k, v in self.counts.items() if k.endswith(("_broken", "_absent", "_missing", "_wrong", "_corrupt")))


def compare(report, path, item, sha):
    """None if the path is right, else why not."""
    try:
        st = os.lstat(path)
    except OSError:
        report.add("files_missing")
        return "missing"
    report.add("files_checked")
    why = None
    try:
        if item["t"] == "link":
            if not stat.S_ISLNK(st.st_mode):
                why = "is no symlink"
            elif (to := os.readlink(path)) != item["link"]:
                why = f"points to {to}"
        elif item["t"] == "dir":
            why = None if stat.S_ISDIR(st.st_mode) else "is no directory"
        elif not stat.S_ISREG(st.st_mode):
            why = "is no file"
        # A umask leaves the owner's bits as they are in the archive. conda lets him write before it removes one of a file's names.
        elif st.st_mode & 0o700 not in (item["mode"] & 0o700, item["mode"] & 0o700 | 0o200):
            why = f"has mode {stat.S_IMODE(st.st_mode):o}"
        elif sha256_file(path) != sha:
            why = f"has other bytes ({st.st_size} of them)"
    except OSError as e:
        why = f"cannot be read: {e}"
    if why:
        report.add("files_wrong")
    return why


def check_environment(report, truth, prefix, fns, recorded_prefix=None):
    """recorded_prefix: what the client was told, where that differs from where the environment is now."""
    report.add("environments")
    if not glob.glob(os.path.join(glob.escape(prefix), "conda-meta", "*.json")):
        report.add("environments_absent")
        report.wrong_environments.append(prefix)
        report.note(f"{prefix}: no environment")
        return
    told = recorded_prefix or prefix
    broken = False
    for fn in fns:
        package = truth.packages[fn]
        wrong = []
        if not os.path.isfile(os.path.join(prefix, "conda-meta", f"{package['name']}-{package['version']}-{package['build']}.json")):
            wrong.append("no record in conda-meta")
        for it in truth.items(fn, info=False):
            if it["t"] == "dir":
                continue
            path = os.path.join(prefix, target(package, it["p"]))
            sha = truth.sha_with_prefix(fn, it["p"], it["ph"], it["fm"], told) if "ph" in it else it.get("sha256")
            if why := compare(report, path, it, sha):
                wrong.append(f"{it['p']} {why}")
        for definition in package["entry_points"]:
            if not os.access(os.path.join(prefix, "bin", definition.split("=")[0].strip()), os.X_OK):
                report.add("files_missing")
                wrong.append(f"entry point {definition} missing")
        if wrong:
            broken = True
            report.add("packages_broken")
            report.note(f"{prefix}: {fn}: {len(wrong)} wrong: {'; '.join(wrong[:3])}")
    report.add("environments_broken" if broken else "environments_ok")
    if broken:
        report.wrong_environments.append(prefix)


def target(package, path):
    if package["noarch"] == "python":
        if path.startswith("site-packages/"):
            return "lib/python3.12/" + path
        if path.startswith("python-scripts/"):
            return "bin/" + path.removeprefix("python-scripts/")
    return path


def check_directory(report, truth, folder, fn):
    """Every file of the package must be there and right, and nothing else but what clients add."""
    wrong, expected = [], set()
    for it in truth.items(fn, info=True):
        expected.add(it["p"])
        if why := compare(report, os.path.join(folder, it["p"]), it, it.get("sha256")):
            wrong.append(f"{it['p']} {why}")
    for root, _, files in os.walk(folder):
        for name in files:
            rel = os.path.relpath(os.path.join(root, name), folder)
            if rel not in expected and rel != "info/repodata_record.json":
                wrong.append(f"{rel} does not belong there")
    if wrong:
        report.note(f"{folder}: {len(wrong)} wrong: {'; '.join(wrong[:3])}")
    return not wrong


def check_record(report, truth, folder, fn):
    path = os.path.join(folder, "info", "repodata_record.json")
    try:
        with open(path) as f:
            record = json.load(f)
    except (OSError, ValueError) as e:
        report.note(f"{path}: {e}")
        return False
    package = truth.packages[fn]
    for field in ("name", "version", "build", "sha256", "md5"):
        if record.get(field) not in (None, package[field]):
            report.note(f"{path}: {field} is {record.get(field)}")
            return False
    return True


def check_cache(report, truth, pkgs, fns):
    """A conda package directory; fns are the packages that must be there, others are checked when they are."""
    for fn, package in truth.packages.items():
        archive = os.path.join(pkgs, fn)
        folder = os.path.join(pkgs, f"{package['name']}-{package['version']}-{package['build']}")
        if os.path.isfile(archive):
            if sha256_file(archive) == package["sha256"]:
                report.add("archives_ok")
            else:
                report.add("archives_corrupt")
                report.note(f"{archive}: {os.path.getsize(archive)} bytes with another hash")
        elif fn in fns:
            report.add("archives_missing")
        if os.path.isdir(folder):
            ok = check_directory(report, truth, folder, fn)
            ok = check_record(report, truth, folder, fn) and ok
            report.add("directories_ok" if ok else "directories_broken")
        elif fn in fns:
            report.add("directories_missing")
    for name in os.listdir(pkgs) if os.path.isdir(pkgs) else ():
        if name.endswith((".partial", ".c~", ".conda_trash", ".tmp")):
            report.add("leftovers")


def check_rattler_cache(report, truth, cache, fns):
    """Rattler's pkgs directory: NAME-VERSION-BUILD, in some versions of rattler with a hash behind."""
    pkgs = os.path.join(cache, "pkgs")
    found = {n: os.path.join(pkgs, n) for n in os.listdir(pkgs)} if os.path.isdir(pkgs) else {}
    for fn, package in truth.packages.items():
        dist = f"{package['name']}-{package['version']}-{package['build']}"
        folders = [p for n, p in found.items() if os.path.isdir(p) and (n == dist or n.startswith(dist + "-"))]
        if not folders and fn in fns:
            report.add("directories_missing")
            report.note(f"{pkgs}: {dist} missing")
        for folder in folders:
            report.add("directories_ok" if check_directory(report, truth, folder, fn) else "directories_broken")


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--channel", required=True, help="directory of the channel")
    ap.add_argument("--specs", required=True, help="what the environments and caches must hold, with all dependencies: a,b,c; or none")
    ap.add_argument("--env", action="append", default=[], metavar="PREFIX", help="PREFIX, or PREFIX=SPEC,SPEC for its own specs")
    ap.add_argument("--cache", action="append", default=[], help="a conda package directory")
    ap.add_argument("--rattler-cache", action="append", default=[])
    args = ap.parse_args()
    truth = Truth(args.channel)
    fns = truth.closure([] if args.specs == "none" else args.specs.split(","))
    report = Report()
    for env in args.env:
        prefix, _, specs = env.partition("=")
        check_environment(report, truth, prefix, truth.closure(specs.split(",")) if specs else fns)
    for cache in args.cache:
        check_cache(report, truth, cache, fns)
    for cache in args.rattler_cache:
        check_rattler_cache(report, truth, cache, fns)
    json.dump(dict(ok=report.ok, **report.counts, wrong_environments=report.wrong_environments, details=report.details), sys.stdout)
    print()
    return 0 if report.ok else 3


if __name__ == "__main__":
    sys.exit(main())
