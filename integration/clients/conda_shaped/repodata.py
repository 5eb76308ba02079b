"""The repodata cache: cache/HASH.json beside HASH.info.json, the latter locked while either is read or replaced."""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import contextmanager
from os.path import isdir, join
from pathlib import Path

from . import net
from .lock import lock


def mkdir_sudo_safe(path):
    if isdir(path):
        return
    try:
        os.mkdir(path)
    except FileExistsError:
        if not isdir(path):
            raise
    try:
        os.chmod(path, 0o2775)
    except OSError:
        pass


class Cache:
    def __init__(self, pkgs_dir, url):
        self.folder = Path(join(pkgs_dir, "cache"))
        mkdir_sudo_safe(self.folder)
        self.name = hashlib.md5((url.rstrip("/") + "/").encode()).hexdigest()[:8]
        self.json_path = self.folder / f"{self.name}.json"
        self.state_path = self.folder / f"{self.name}.info.json"
        self.state = {}

    @contextmanager
    def locked(self, mode="a+"):
        with self.state_path.open(mode) as f, lock(f):
            yield f

    def load_state(self):
        """Reads the state alone; state of a repodata file that has changed since counts as none."""
        try:
            with self.locked("r+") as f:
                state = json.loads(f.read())
                if self.json_path.exists():
                    st = self.json_path.stat()
                    if (state.get("mtime_ns"), state.get("size")) != (st.st_mtime_ns, st.st_size):
                        state.update(etag="", mod="", cache_control="", size=0)
                self.state = state
        except (FileNotFoundError, json.JSONDecodeError):
            self.state = {}

    def read(self):
        with self.locked("r+") as f:
            self.state = json.loads(f.read())
            return self.json_path.read_text()

    def save(self, text):
        temp = self.folder / f"{self.name}.{os.urandom(2).hex()}.tmp"
        try:
            with temp.open("x") as f:
                f.write(text)
            with self.locked() as f:
                f.seek(0)
                f.truncate()
                st = temp.stat()
                self.state.update(mtime_ns=st.st_mtime_ns, size=st.st_size, refresh_ns=time.time_ns())
                temp.rename(self.json_path)
                f.write(json.dumps(self.state, indent=2))
        finally:
            try:
                temp.unlink()
            except OSError:
                pass

    def refresh(self):
        with self.locked() as f:
            f.seek(0)
            f.truncate()
            self.state["refresh_ns"] = time.time_ns()
            f.write(json.dumps(self.state, indent=2))


def fetch(pkgs_dir, channel, subdir):
    """The records of one subdir: asked for with the cached ETag, as conda does when the server allows no caching."""
    url = f"{channel}/{subdir}"
    cache = Cache(pkgs_dir, url)
    cache.load_state()
    cached = cache.json_path.exists()
    headers = {}
    if cached and cache.state.get("etag"):
        headers["If-None-Match"] = cache.state["etag"]
    if cached and cache.state.get("mod"):
        headers["If-Modified-Since"] = cache.state["mod"]
    resp = net.get(f"{url}/repodata.json", headers)
    body = resp.read()
    resp.done()
    if resp.status == 304:
        cache.refresh()
        text = cache.read()
    else:
        text = body.decode()
        cache.state = {"url": url, "etag": resp.headers.get("ETag", ""), "mod": resp.headers.get("Last-Modified", ""), "cache_control": ""}
        cache.save(text)
    data = json.loads(text)
    return [
        dict(record, fn=fn, url=f"{url}/{fn}", channel=url)
        for key in ("packages.conda", "packages")
        for fn, record in data.get(key, {}).items()
    ]


def solve(records, specs):
    """Not a solver: the named packages and all they depend on, by name; NAME=VERSION=BUILD picks one exactly."""
    by_name = {}
    for record in records:
        by_name.setdefault(record["name"], []).append(record)
    chosen, todo = {}, list(specs)
    while todo:
        name, version, build = (todo.pop().split(" ")[0].split("=") + ["", ""])[:3]
        if name in chosen:
            continue
        fits = [r for r in by_name.get(name, ()) if version in ("", r["version"]) and build in ("", r["build"])]
        if not fits:
            raise LookupError(f"PackagesNotFoundError: {name} {version} {build}".rstrip())
        chosen[name] = max(fits, key=lambda r: (r["version"], r["build"]))
        todo += chosen[name]["depends"]
    return sorted(chosen.values(), key=lambda r: r["name"])
