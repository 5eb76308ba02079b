"""conda clean: removes tarballs, the repodata cache, unused packages, or whole package directories."""

from __future__ import annotations

import os
from os.path import isdir, join

from .cache import EXTENSIONS
from .disk import rm_rf


class InUse(Exception):
    """Not an error: a file has other names, so an environment uses the package."""


def size_of(path):
    st = os.lstat(path)
    if st.st_nlink > 1:
        raise InUse(path)
    return st.st_size


def clean(caches, everything=False, tarballs=False, index_cache=False, packages=False, force_pkgs_dirs=False):
    dirs = [c.pkgs_dir for c in caches.all if c.writable and isdir(c.pkgs_dir)]
    removed = []

    def remove(path):
        try:
            rm_rf(path)
        except OSError:
            pass  # conda warns and goes on
        removed.append(path)

    if force_pkgs_dirs:
        for d in dirs:
            remove(d)
        return removed
    if tarballs or everything:
        for path in [p for d in dirs for p in archives_in(d)]:
            remove(path)
    if index_cache or everything:
        for d in dirs:
            if isdir(join(d, "cache")):
                remove(join(d, "cache"))
    if packages or everything:
        for path in [p for d in dirs for p in packages_in(d)]:
            remove(path)
    return removed


def archives_in(pkgs_dir):
    _, _, files = next(os.walk(pkgs_dir))
    for name in files:
        if name.removesuffix(".partial").endswith(EXTENSIONS):
            try:
                size_of(join(pkgs_dir, name))
            except (InUse, OSError):
                continue
            yield join(pkgs_dir, name)


def packages_in(pkgs_dir):
    _, names, _ = next(os.walk(pkgs_dir))
    for name in names:
        folder = join(pkgs_dir, name)
        if not isdir(join(folder, "info")):
            continue
        try:
            for root, _, files in os.walk(folder):
                for file in files:
                    size_of(join(root, file))
        except (InUse, OSError):
            continue
        yield folder
