"""Links packages out of the cache into an environment: reads manifests, checks sizes, rewrites prefixes, links or copies, records."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import stat
import sys
import uuid
from os.path import basename, dirname, getsize, isdir, isfile, islink, join, lexists

from . import die
from .disk import copy, create_link, hardlink_supported, make_writable, mkdir_p, read_json, rm_rf, write_json
from .errors import CondaError, CondaMultiError, CondaVerificationError, SafetyError

DEFAULT_PLACEHOLDER = "/opt/anaconda1anaconda2anaconda3"
MAX_SHEBANG = 127
PYTHON = "python3.12"


class Package:
    """What the cache says about one package that is to be linked."""

    def __init__(self, record, cached):
        self.record, self.folder, self.archive = record, cached["folder"], cached["archive"]
        link_json = join(self.folder, "info", "link.json")
        self.metadata = read_json(link_json) if isfile(link_json) else {}
        self.noarch = record.get("noarch") or self.metadata.get("noarch", {}).get("type")
        self.paths = self._read_paths()

    def _read_paths(self):
        info = join(self.folder, "info")
        paths = join(info, "paths.json")
        if isfile(paths):
            data = read_json(paths)
            if data.get("paths_version") != 1:
                raise CondaError("this conda only supports paths.json schema version 1")
            return [dict(p) for p in data["paths"]]
        prefixed = dict(parse_has_prefix(lines(join(info, "has_prefix"))))
        no_link = set(lines(join(info, "no_link"))) | set(lines(join(info, "no_softlink")))
        out = []
        for path in lines(join(info, "files")):
            entry = {"_path": path, "path_type": "softlink" if islink(join(self.folder, path)) else "hardlink"}
            if path in prefixed:
                entry["prefix_placeholder"], entry["file_mode"] = prefixed[path]
            if path in no_link:
                entry["no_link"] = True
            out.append(entry)
        return out

    def target(self, path):
        if self.noarch == "python":
            if path.startswith("site-packages/"):
                return f"lib/{PYTHON}/{path}"
            if path.startswith("python-scripts/"):
                return "bin/" + path[len("python-scripts/") :]
        return path


def lines(path):
    try:
        with open(path) as f:
            return [line.strip() for line in f if line.strip() and not line.startswith("#")]
    except FileNotFoundError:
        return []


def parse_has_prefix(rows):
    for row in rows:
        parts = [p.strip("\"'") for p in shlex.split(row, posix=False)]
        if len(parts) == 1:
            yield parts[0], (DEFAULT_PLACEHOLDER, "text")
        else:
            yield parts[2], (parts[0], parts[1])


class LinkFile:
    """One file of a package on its way into the environment."""

    def __init__(self, package, entry, prefix, kind, scratch):
        self.package, self.entry, self.prefix, self.scratch = package, entry, prefix, scratch
        self.path = entry["_path"]
        self.short = package.target(self.path)
        self.source = join(package.folder, self.path)
        self.target = join(prefix, self.short)
        self.placeholder = entry.get("prefix_placeholder") if entry["path_type"] != "softlink" else None
        self.kind = "copy" if entry["path_type"] == "softlink" or entry.get("no_link") else kind
        self.rewritten = None
        self.done = False

    def verify(self):
        """Returns an error instead of raising it, as conda collects them. Sizes are checked, hashes are not."""
        if not lexists(self.source):
            return CondaVerificationError(
                f"The package for {self.package.record['name']} located at {self.package.folder} appears to be corrupted. "
                f"The path '{self.path}' specified in the package manifest cannot be found.")
        error = None
        if self.entry["path_type"] == "hardlink" and (size := self.entry.get("size_in_bytes")):
            if getsize(self.source) != size:
                return SafetyError(f"{self.source} has an incorrect size: reported {size}, actual {getsize(self.source)}")
        elif self.entry["path_type"] not in ("hardlink", "softlink"):
            raise NotImplementedError(self.entry["path_type"])
        if self.placeholder:
            mkdir_p(self.scratch)
            self.rewritten = join(self.scratch, str(uuid.uuid4()))
            copy(self.source, self.rewritten)
            make_writable(self.rewritten)
            rewrite_prefix(self.rewritten, self.prefix, self.placeholder, self.entry.get("file_mode", "text"))
            with open(self.rewritten, "rb") as f:
                self.entry["sha256_in_prefix"] = hashlib.sha256(f.read()).hexdigest()
        return error

    def execute(self):
        if self.placeholder:
            create_link(self.rewritten or self.source, self.target, "copy" if self.kind == "copy" else "hardlink")
        else:
            create_link(self.source, self.target, self.kind)
        self.done = True

    def reverse(self):
        if self.done and not isdir(self.target):
            rm_rf(self.target)


def rewrite_prefix(path, prefix, placeholder, mode):
    with open(path, "rb+") as f:
        data = f.read()
        new = replace_prefix(data, prefix.encode(), placeholder.encode(), mode)
        if new != data:
            f.seek(0)
            f.write(new)
            f.truncate()


def replace_prefix(data, prefix, placeholder, mode):
    if mode == "text":
        return shorten_shebang(data.replace(placeholder, prefix))

    def pad(match):
        missing = (len(placeholder) - len(prefix)) * match.group().count(placeholder)
        if missing < 0:
            raise CondaError("PaddingError: the prefix is longer than the placeholder")
        return match.group().replace(placeholder, prefix) + b"\0" * missing

    return re.sub(re.escape(placeholder) + rb"(?:(?!\0).)*\0", pad, data, flags=re.DOTALL)


def shorten_shebang(data):
    """Kernels cut a #! line after 127 bytes; conda lets env find the interpreter then."""
    match = re.match(rb"^(#!((?:\\ |[^ \n\r])+)(.*))", data)
    if match:
        whole, executable, options = match.groups()
        if len(whole) > MAX_SHEBANG or b"\\ " in executable:
            data = data.replace(whole, b"#!/usr/bin/env " + executable.rsplit(b"/", 1)[-1] + options)
    return data


def leaf_directories(paths):
    folders = set()
    for path in paths:
        folders.add(dirname(path))
    folders.discard("")
    return sorted(f for f in folders if not any(o != f and o.startswith(f + "/") for o in folders))


def install(caches, records, prefix, always_copy=False, safety="warn"):
    """Makes the environment; on an error what was linked is taken back, as conda does."""
    created = not isdir(prefix)
    mkdir_p(prefix)
    scratch = join(prefix, ".condatmp")
    cached = [caches.to_link(r) for r in records]
    packages = [Package(r, c) for r, c in zip(records, cached)]
    kinds = ["copy" if always_copy else
             "hardlink" if hardlink_supported(join(p.folder, "info", "index.json"), prefix) else "copy" for p in packages]
    files = [[LinkFile(p, e, prefix, kind, scratch) for e in p.paths] for p, kind in zip(packages, kinds)]
    done = []
    ok = False
    try:
        history_test(prefix)
        raise_verification([e for group in files for f in group if (e := f.verify())] + clobbers(files), safety)
        for package, group in zip(packages, files):
            mkdir_p(join(prefix, "conda-meta"))
            for folder in leaf_directories(f.short for f in group):
                create_link(None, join(prefix, folder), "directory")
            for i, f in enumerate(group):
                done.append(f)
                f.execute()
                die.at("link", package.folder, i * 2 >= len(group))
        scripts = [write_entry_points(package, prefix) for package in packages]
        for package, group, kind, extra in zip(packages, files, kinds, scripts):
            record(package, group, prefix, kind, extra)
        with open(join(prefix, "conda-meta", "history"), "a") as f:
            f.write("==> conda-shaped install <==\n" + "".join(f"+{r['channel']}::{r['name']}-{r['version']}-{r['build']}\n" for r in records))
        ok = True
    except BaseException:
        for f in reversed(done):
            f.reverse()
        raise
    finally:
        rm_rf(scratch)
        if created and not ok:
            rm_rf(prefix)
    return kinds


def history_test(prefix):
    path = join(prefix, "conda-meta", "history")
    existed = lexists(path)
    mkdir_p(dirname(path))
    open(path, "a").close()
    if not existed:
        rm_rf(path)


def clobbers(groups):
    seen, errors = {}, []
    for group in groups:
        for f in group:
            if f.short in seen or lexists(f.target):
                errors.append(CondaError(f"ClobberError: {f.short}"))
            seen[f.short] = f
    return errors


def raise_verification(errors, safety):
    """By default conda only warns of a wrong size and links the file."""
    fatal = []
    for e in errors:
        if isinstance(e, SafetyError) and safety == "warn":
            print(f"SafetyError: {e}", file=sys.stderr)
        else:
            fatal.append(e)
    if fatal:
        raise CondaMultiError(fatal)


def write_entry_points(package, prefix):
    out = []
    for definition in package.metadata.get("noarch", {}).get("entry_points", []):
        command, _, where = (s.strip() for s in definition.partition("="))
        module, _, func = where.partition(":")
        path = join(prefix, "bin", command)
        mkdir_p(dirname(path))
        with open(path, "w") as f:
            f.write(f"#!{prefix}/bin/{PYTHON}\nimport sys\nfrom {module} import {func}\nif __name__ == '__main__':\n    sys.exit({func}())\n")
        mode = os.stat(path).st_mode
        os.chmod(path, mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
        out.append(f"bin/{command}")
    return out


def record(package, group, prefix, kind, extra):
    r = package.record
    path = join(prefix, "conda-meta", basename(package.folder) + ".json")
    if lexists(path):
        rm_rf(path)
    write_json(path, {
        **{k: v for k, v in r.items() if k not in ("archive", "folder")},
        "extracted_package_dir": package.folder,
        "package_tarball_full_path": package.archive,
        "link": {"source": package.folder, "type": 1 if kind == "hardlink" else 3},
        "files": [f.short for f in group] + extra,
        "paths_data": {"paths_version": 1, "paths": [dict(f.entry, _path=f.short) for f in group]},
    })
