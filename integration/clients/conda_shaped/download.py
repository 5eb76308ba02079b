"""Downloads: into NAME.partial under a lock, resumed where a former try ended, checked, renamed."""

from __future__ import annotations

import hashlib
import os
from contextlib import contextmanager
from os.path import exists
from pathlib import Path

from . import die, net
from .errors import ChecksumMismatchError, ClobberError, CondaError, CondaHTTPError
from .lock import lock

CHUNK = 1 << 14


def download(url, target, md5=None, sha256=None, size=None):
    if exists(target):
        raise ClobberError(f"{target} exists already, for {url}")
    try:
        _download(url, target, md5, sha256, size)
    except ChecksumMismatchError as e:
        if not e.partial_download:
            raise
        _download(url, target, md5, sha256, size)


def _download(url, target_path, md5, sha256, size):
    resumable = bool(size and (md5 or sha256))
    with partial_file(target_path, url, md5, sha256, size) as target:
        have = os.fstat(target.fileno()).st_size
        if size is not None and have >= size:
            return  # the check comes on the way out
        headers = {}
        if resumable and have > 0:
            headers = {"Range": f"bytes={have}-"}
            target.seek(have)
        resp = net.get(url, headers)
        if resumable and resp.status != 206:
            target.seek(0)
            target.truncate()
        expected = int(resp.headers.get("Content-Length", 0))
        streamed = 0
        while chunk := resp.read(CHUNK):
            streamed += len(chunk)
            target.write(chunk)
            die.at("download", target_path, streamed * 2 > expected, flush=target)
        if expected and streamed != expected:
            raise CondaError(f"Downloaded bytes did not match Content-Length: {url}: {streamed} of {expected}")
        resp.done()


@contextmanager
def partial_file(target_path, url, md5, sha256, size):
    target_path = Path(target_path)
    partial = target_path.parent / f"{target_path.name}.partial"
    resumed = partial.exists()

    def check(f):
        if md5 or sha256:
            kind, want = ("sha256", sha256) if sha256 else ("md5", md5)
            hasher = hashlib.new(kind)
            f.seek(0)
            while data := f.read(CHUNK):
                hasher.update(data)
            if hasher.hexdigest() != want:
                raise ChecksumMismatchError(url, kind, want, hasher.hexdigest(), resumed)
        if size is not None and (actual := os.fstat(f.fileno()).st_size) != size:
            raise ChecksumMismatchError(url, "size", size, actual, resumed)

    try:
        with partial.open("r+b" if resumed else "w+b") as f, lock(f):
            yield f
            check(f)
    except CondaHTTPError as e:
        if 400 <= e.status < 500:
            partial.unlink()
        raise
    except ChecksumMismatchError:
        partial.unlink()
        raise
    try:
        partial.rename(target_path)
    except OSError:  # meant for Windows, taken everywhere: it removes what another process has just completed
        target_path.unlink()
        partial.rename(target_path)
