"""The package cache: what is in it, what to fetch, fetching and extracting it."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import sys
from concurrent.futures import CancelledError, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from errno import EACCES, ENOENT, EPERM, EROFS
from os.path import basename, dirname, getsize, isdir, isfile, islink, join, lexists
from tarfile import ReadError

from . import die
from .disk import file_path_is_writable, read_json, rename, rm_rf, touch, write_json
from .download import download
from .errors import CondaError, CondaMultiError, NotWritableError, NoWritablePkgsDirError
from .extract import extract

EXTENSIONS = (".conda", ".tar.bz2")
FETCH_THREADS = 5
EXTRACT_WORKERS = min(os.cpu_count() or 1, 4)


def strip_extension(path):
    for ext in EXTENSIONS:
        if path.endswith(ext):
            return path[: -len(ext)], ext
    return path, None


def compute_sum(path, kind):
    hasher = hashlib.new(kind)
    with open(path, "rb") as f:
        while data := f.read(8192):
            hasher.update(data)
    return hasher.hexdigest()


def key(record):
    return record.get("channel") or dirname(record.get("url") or ""), record["name"], record["version"], record["build"]


class PackageCache:
    """One package directory, read once and then remembered."""

    _instances: dict[str, PackageCache] = {}

    @classmethod
    def of(cls, pkgs_dir):
        if pkgs_dir not in cls._instances:
            cls._instances[pkgs_dir] = cls(pkgs_dir)
        return cls._instances[pkgs_dir]

    def __init__(self, pkgs_dir):
        self.pkgs_dir = pkgs_dir
        self._records = None
        self._writable = "unknown"
        self.urls_path = join(pkgs_dir, "urls.txt")
        self.urls = []
        if isfile(self.urls_path):
            with open(self.urls_path, "rb") as f:
                self.urls = [line.strip().decode("utf-8") for line in f][::-1]

    def add_url(self, url):
        with open(self.urls_path, mode="a", encoding="utf-8") as f:
            f.write(url + "\n")
        self.urls.insert(0, url)

    def get_url(self, name):
        name = name if strip_extension(name)[1] else name + ".tar.bz2"
        return next((u for u in self.urls if basename(u) == name), None)

    @property
    def writable(self):
        """None: no such directory yet. Opens urls.txt for appending to find out."""
        if self._writable == "unknown":
            self._check_writable()
        return self._writable

    def _check_writable(self):
        self._writable = file_path_is_writable(self.urls_path) if isfile(self.urls_path) else None

    def create(self):
        try:
            touch(self.urls_path, mkdir=True)
            touch(join(self.pkgs_dir, "urls"))
        except NotWritableError as e:
            cause = e.__cause__
            if isinstance(cause, OSError) and cause.errno in (EACCES, EPERM, EROFS):
                return False
            raise
        self._writable = True
        return True

    @property
    def records(self):
        if self._records is None:
            self.load()
        return self._records

    def load(self):
        self._records = {}
        self._check_writable()
        if not isdir(self.pkgs_dir):
            return
        for name in self._without_twins([e.name for e in os.scandir(self.pkgs_dir)]):
            full = join(self.pkgs_dir, name)
            if islink(full):
                continue
            if (isdir(full) and isfile(join(full, "info", "index.json"))) or (isfile(full) and name.endswith(EXTENSIONS)):
                record = self._record_of(name)
                if record:
                    self._records[key(record)] = record

    @staticmethod
    def _without_twins(names):
        groups = {".conda": set(), ".tar.bz2": set(), None: set()}
        for name in names:
            stem, ext = strip_extension(name)
            groups[ext].add(stem)
        v2 = groups[".conda"]
        v1 = groups[".tar.bz2"] - v2
        return sorted([*(n + ".conda" for n in v2), *(n + ".tar.bz2" for n in v1), *(groups[None] - v2 - v1)])

    def _record_of(self, name):
        """A record for what lies there. Extracts an archive that has no directory, or only part of one, beside it."""
        from conda_package_handling.api import InvalidArchiveError

        archive = join(self.pkgs_dir, name)
        folder, _ = strip_extension(archive)
        own = dict(archive=archive, folder=folder)
        try:
            return dict(read_json(join(folder, "info", "repodata_record.json")), **own)
        except (OSError, ValueError):
            pass
        try:
            raw = read_json(join(folder, "info", "index.json"))
        except (OSError, ValueError):
            if isdir(folder) and not isfile(archive):
                return None
            try:
                if self.writable:
                    if isdir(folder):
                        rm_rf(folder)
                    try:
                        extract(archive, folder)
                    except (OSError, InvalidArchiveError) as e:
                        if getattr(e, "errno", None) == ENOENT:
                            rm_rf(archive)
                            rm_rf(folder)
                            return None
                    try:
                        raw = read_json(join(folder, "info", "index.json"))
                    except (OSError, ValueError):
                        rm_rf(archive)
                        rm_rf(folder)
                        return None
                else:
                    raw = index_of_archive(archive)
            except (EOFError, ReadError, FileNotFoundError, InvalidArchiveError):
                rm_rf(archive)
                return None
        md5 = compute_sum(archive, "md5") if isfile(archive) else None
        url = self.get_url(name)
        record = dict(raw, url=url, channel=dirname(url) if url else None, fn=basename(archive), md5=md5, size=getsize(archive))
        if self.writable:
            path = join(folder, "info", "repodata_record.json")
            try:
                write_json(path, record)
            except OSError as e:
                if e.errno in (EACCES, EPERM, EROFS) and isdir(dirname(path)):
                    raise NotWritableError(path) from e
                raise
        return dict(record, **own)

    def insert(self, record):
        write_json(join(record["folder"], "info", "repodata_record.json"), without_own(record))
        self.records[key(record)] = record


def index_of_archive(archive):
    import tempfile

    import conda_package_handling.api

    with tempfile.TemporaryDirectory() as tmp:
        conda_package_handling.api.extract(archive, tmp, "info")
        return read_json(join(tmp, "info", "index.json"))


def without_own(record):
    return {k: v for k, v in record.items() if k not in ("archive", "folder")}


def is_extracted(record):
    return isdir(record["folder"]) and isfile(join(record["folder"], "info", "index.json"))


def is_fetched(record):
    return isfile(record["archive"])


class Caches:
    """All package directories of one run: the first writable one receives, all are searched."""

    def __init__(self, dirs):
        self.all = [PackageCache.of(d) for d in dirs]

    def first_writable(self):
        for cache in self.all:
            if cache.writable is True:
                return cache
            if cache.writable is None:
                try:
                    if cache.create():
                        return cache
                except NotWritableError:
                    continue
        raise NoWritablePkgsDirError(", ".join(c.pkgs_dir for c in self.all))

    def query(self, wanted, caches=None):
        for cache in self.all if caches is None else caches:
            record = cache.records.get(key(wanted))
            if record:
                yield record

    def to_link(self, wanted):
        """The extracted package to link from: writable directories first."""
        ordered = [c for c in self.all if c.writable] + [c for c in self.all if not c.writable]
        for record in self.query(wanted, ordered):
            if is_extracted(record):
                return record
        dist = wanted["name"], wanted["version"], wanted["build"]
        for cache in ordered:
            for record in cache.records.values():
                if (record["name"], record["version"], record["build"]) == dist:
                    return record
        raise CondaError(f"No package '{'-'.join(dist)}' found in cache directories.")


class Fetch:
    """Puts an archive into the cache: moves an older one aside, downloads or links, appends to urls.txt."""

    def __init__(self, url, cache, name, md5, sha256, size):
        self.url, self.cache, self.name = url, cache, name
        self.md5, self.sha256, self.size = md5, sha256, size
        self.target = join(cache.pkgs_dir, name)
        self.hold = self.target + ".c~"

    def execute(self):
        if lexists(self.hold):
            rm_rf(self.hold)
        if lexists(self.target):
            rename(self.target, self.hold, force=True)
        if self.url.startswith("file:/"):
            source = self.url[len("file://") :]
            try:
                os.link(source, self.target)
            except OSError:
                from .disk import copy

                copy(source, self.target)
            origin = PackageCache.of(dirname(source)).get_url(self.name)
            if origin:
                self.cache.add_url(origin)
            return
        download(self.url, self.target, size=self.size, sha256=self.sha256, md5=None if self.sha256 else self.md5)
        self.cache.add_url(self.url)
        die.at("append", self.target)

    def reverse(self):
        if lexists(self.hold):
            rename(self.hold, self.target, force=True)

    def cleanup(self):
        rm_rf(self.hold)


class Extract:
    """Extracts an archive beside itself; the record comes last, and conda writes it twice."""

    def __init__(self, archive, cache, wanted):
        self.archive, self.cache, self.wanted = archive, cache, wanted
        self.target = strip_extension(archive)[0]
        self.hold = self.target + ".c~"

    def prepare(self):
        if lexists(self.target):
            rm_rf(self.target)

    def finish(self):
        try:
            raw = read_json(join(self.target, "info", "index.json"))
        except (OSError, ValueError):
            print(f"ERROR: Encountered corrupt package tarball at {self.archive}. Conda has left it in place.", file=sys.stderr)
            sys.exit(1)
        die.at("record", self.target)
        record = {**raw, **without_own(self.wanted)}
        write_json(join(self.target, "info", "repodata_record.json"), record)
        self.cache.insert(dict(record, archive=self.archive, folder=self.target))

    def reverse(self):
        rm_rf(self.target)
        if lexists(self.hold):
            rm_rf(self.target)
            rename(self.hold, self.target)

    def cleanup(self):
        rm_rf(self.hold)


def actions_for(caches, wanted):
    """What to do for one package: nothing, extract, or fetch and extract."""

    def fits(record):
        ok = True
        if wanted.get("size") is not None and record.get("size") is not None:
            ok = record["size"] == wanted["size"]
        if ok and wanted.get("md5") is not None and record.get("md5") is not None:
            ok = record["md5"] == wanted["md5"]
        return ok

    def first(records, usable):
        return next((r for r in records if usable(r)), None)

    extracted = first(caches.query(wanted), is_extracted)
    if extracted and fits(extracted) and extracted.get("url"):
        return None, None
    fetched = first(caches.query(wanted, [c for c in caches.all if c.writable]), is_fetched)
    if fetched and fits(fetched) and fetched.get("url"):
        return None, Extract(fetched["archive"], PackageCache.of(dirname(fetched["archive"])), fetched)
    read_only = first(caches.query(wanted, [c for c in caches.all if not c.writable]), is_fetched)
    cache = caches.first_writable()
    url = "file://" + read_only["archive"] if read_only and fits(read_only) else wanted["url"]
    fetch = Fetch(url, cache, basename(url), wanted.get("md5"), wanted.get("sha256"), wanted.get("size"))
    return fetch, Extract(fetch.target, cache, wanted)


def fetch_and_extract(caches, records, extract_in="process", die_at=None):
    """Downloads in five threads, extraction beside them, the largest package first."""
    paired = {}
    for i, record in enumerate(sorted(records, key=lambda r: r["size"], reverse=True)):
        fetch, extraction = actions_for(caches, record)
        if fetch or extraction:
            paired[i] = fetch, extraction
    if not paired:
        return 0
    use_processes = extract_in == "process" and EXTRACT_WORKERS > 1
    if use_processes:
        extractor = ProcessPoolExecutor(EXTRACT_WORKERS, mp_context=multiprocessing.get_context("spawn"))
    else:
        extractor = ThreadPoolExecutor(min(EXTRACT_WORKERS, 3))
    errors = []
    fetches, extractions = {}, {}

    def run_fetch(i):
        if paired[i][0]:
            paired[i][0].execute()
        return i

    def run_extract(extraction):
        extraction.prepare()
        extract(extraction.archive, extraction.target, die_at)
        extraction.finish()

    def fetched(future):
        actions = (paired[fetches_index[future]][0],) if future in fetches_index else ()
        try:
            future.result()
        except Exception as e:
            reverse(actions)
            errors.append(e)
        else:
            cleanup(actions)

    fetches_index = {}
    with ThreadPoolExecutor(FETCH_THREADS) as fetcher, extractor:
        for i in paired:
            future = fetcher.submit(run_fetch, i)
            fetches_index[future] = i
            future.add_done_callback(fetched)
            fetches[future] = i
        try:
            for future in as_completed(fetches):
                i = future.result()
                actions = paired[i]
                extraction = actions[1]
                if not extraction:
                    cleanup(actions)
                elif use_processes:
                    try:
                        extraction.prepare()
                        submitted = extractor.submit(extract, extraction.archive, extraction.target, die_at)
                    except Exception as e:
                        reverse(actions[::-1])
                        errors.append(e)
                    else:
                        extractions[submitted] = actions
                else:
                    extractions[extractor.submit(run_extract, extraction)] = actions
        except BaseException as e:
            for future in fetches:
                future.cancel()
            fetcher.shutdown(wait=False)
            errors.append(e)
        finally:
            for future in as_completed(extractions):
                actions = extractions[future]
                try:
                    future.result()
                    if use_processes:
                        actions[1].finish()
                except Exception as e:
                    reverse(actions[::-1])
                    errors.append(e)
                else:
                    cleanup(actions)
    seen = []
    for e in errors:
        if not isinstance(e, CancelledError) and e not in seen:
            seen.append(e)
    if seen:
        raise CondaMultiError(seen)
    return len(paired)


def reverse(actions):
    for action in actions:
        if action:
            action.reverse()


def cleanup(actions):
    for action in actions:
        if action:
            action.cleanup()
