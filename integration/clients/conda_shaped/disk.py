"""conda's helpers for files: removal that never raises for files, touch, write tests, links and copies."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import uuid
from os.path import abspath, basename, dirname, isdir, isfile, islink, join, lexists

from .errors import ClobberError, CondaError, NotWritableError


def make_writable(path):
    mode = os.lstat(path).st_mode
    if stat.S_ISDIR(mode):
        os.chmod(path, stat.S_IMODE(mode) | stat.S_IWRITE | stat.S_IEXEC)
    elif stat.S_ISREG(mode):
        os.chmod(path, stat.S_IMODE(mode) | stat.S_IWRITE)


def unlink_or_rename_to_trash(path):
    try:
        make_writable(path)
        os.unlink(path)
    except OSError:
        try:
            os.rename(path, path + ".conda_trash")
        except OSError:
            pass  # conda warns and goes on


def rm_rf(path):
    path = abspath(path)
    if isdir(path) and not islink(path):
        try:
            shutil.rmtree(path)
        except Exception:
            pass  # conda lets the slower walk below catch what remains
        for root, _, files in os.walk(path, topdown=False):
            for file in files:
                unlink_or_rename_to_trash(join(root, file))
    elif lexists(path):
        unlink_or_rename_to_trash(path)
    if isdir(path) and not islink(path):
        delete_trash(path)
    return not lexists(path)


def delete_trash(path):
    for root, dirs, files in os.walk(path, topdown=True):
        dirs[:] = [d for d in dirs if d not in ("envs", "pkgs")]
        for file in files:
            if ".conda_trash" in file or file.endswith(".c~"):
                try:
                    os.unlink(join(root, file))
                except OSError:
                    pass


def mkdir_p(path):
    try:
        os.makedirs(path)
    except OSError as e:
        if not (e.errno == errno.EEXIST and isdir(path)):
            raise


def touch(path, mkdir=False):
    try:
        if lexists(path):
            os.utime(path, None)
            return
        folder = dirname(path)
        if not isdir(folder) and mkdir:
            mkdir_p(folder)
        elif not isdir(folder):
            raise OSError("Target path is not a directory.")
        with open(path, "a"):
            pass
    except OSError as e:
        raise NotWritableError(f"{path}: {e}") from e


def file_path_is_writable(path):
    if not isdir(dirname(path)):
        return os.access(path, os.W_OK)
    existed = lexists(path)
    try:
        open(path, "a+").close()
    except OSError:
        return False
    if not existed:
        rm_rf(path)
    return True


def rename(source, destination, force=False):
    if lexists(destination) and force:
        rm_rf(destination)
    if not lexists(source):
        return
    try:
        os.rename(source, destination)
    except OSError as e:
        if e.errno not in (errno.EINVAL, errno.EXDEV, errno.EPERM):
            raise
        shutil.move(source, destination)


def write_json(path, obj):
    with open(path, mode="w", encoding="utf-8") as f:
        json.dump(obj, f)


def read_json(path):
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def hardlink_supported(source, folder):
    test = join(folder, f".tmp.{basename(source)}.{str(uuid.uuid4())[:8]}")
    if not isfile(source):
        raise OSError(f"Path {source} is not a file")
    if lexists(test):
        rm_rf(test)
    try:
        create_link(source, test, "hardlink")
        return not islink(test) and os.lstat(test).st_ino == os.lstat(source).st_ino
    except OSError:
        return False
    finally:
        rm_rf(test)


def copy(source, target):
    if islink(source):
        to = os.readlink(source)
        if not to.startswith("/"):
            os.symlink(to, target)
            return
    with open(source, "rb") as src, open(target, "wb") as dst:
        shutil.copyfileobj(src, dst, 4 << 20)
    try:
        shutil.copystat(source, target)
    except OSError:
        pass


def create_link(source, target, kind):
    if kind == "directory":
        if lexists(target) and not isdir(target):
            raise ClobberError(f"{target} is in the way of a directory")
        mkdir_p(target)
        return
    if not lexists(source):
        raise CondaError(f"Cannot link a source that does not exist. {source}")
    if lexists(target):
        raise ClobberError(f"{target} exists already")
    if kind == "hardlink":
        if isdir(source):
            raise CondaError(f"Cannot hard link a directory. {source}")
        try:
            os.link(source, target)
            return
        except OSError:
            pass  # conda falls back to a copy without a word
    copy(source, target)
