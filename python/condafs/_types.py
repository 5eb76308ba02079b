"""What the daemon answers, as it stands in condafs's ``control/types.go``.

Answers only ever gain fields. One that is not known here is skipped; one that an older daemon does not send has its
zero value.
"""

from __future__ import annotations

import dataclasses
import re
from datetime import datetime, timedelta, timezone
from typing import Any, Dict, List, Mapping, Optional, Type, TypeVar, Union, get_args, get_origin, get_type_hints

_T = TypeVar("_T")
_NEVER = datetime(1, 1, 1, tzinfo=timezone.utc)


@dataclasses.dataclass(frozen=True)
class Committed:
    """A unit that was published."""

    path: str = ""
    kind: str = ""
    trust: str = ""  #: verified, consistent or opaque
    deleted: bool = False  #: the session removed it


@dataclasses.dataclass(frozen=True)
class Dropped:
    """A unit that was not published, and why."""

    path: str = ""
    why: str = ""


@dataclasses.dataclass(frozen=True)
class Report:
    """What a commit did."""

    head: int = 0  #: number of the newest snapshot afterwards
    committed: List[Committed] = dataclasses.field(default_factory=list)
    pending: List[Dropped] = dataclasses.field(default_factory=list)  #: stays in the overlay
    dropped: List[Dropped] = dataclasses.field(default_factory=list)
    quarantined: List[Dropped] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Shelf:
    """The directory from which clients take verified packages natively."""

    path: str = ""
    sharing: str = ""
    packages: int = 0


@dataclasses.dataclass(frozen=True)
class Quarantine:
    """Something that a client made and that failed its evidence."""

    id: str = ""
    time: datetime = _NEVER
    path: str = ""
    reason: str = ""
    session: str = ""
    uid: int = 0
    bytes: int = 0


@dataclasses.dataclass(frozen=True)
class Status:
    """A daemon and its store."""

    version: str = ""
    pid: int = 0
    started: datetime = _NEVER
    mount_point: str = ""
    store: str = ""
    store_id: str = ""
    owner: int = 0  #: uid that the daemon runs as
    head: int = 0  #: number of the newest snapshot
    packages: int = 0  #: extracted packages in it
    archives: int = 0
    blobs: int = 0
    stored_bytes: int = 0
    logical_bytes: int = 0  #: what the newest snapshot would take without sharing of equal content
    sessions: int = 0
    shelf: Optional[Shelf] = None
    quarantine: List[Quarantine] = dataclasses.field(default_factory=list)
    quarantined_bytes: int = 0


@dataclasses.dataclass(frozen=True)
class SessionInfo:
    """A live session."""

    id: str = ""
    uid: int = 0
    label: str = ""
    command: str = ""
    explicit: bool = False  #: started by ``condafs run`` or :func:`condafs.session`
    ephemeral: bool = False
    members: List[int] = dataclasses.field(default_factory=list)  #: pids
    started: datetime = _NEVER
    base: int = 0  #: number of the snapshot that it sees
    dirty: bool = False
    overlay_bytes: int = 0
    state: str = ""  #: active, kept or waiting


@dataclasses.dataclass(frozen=True)
class Archive:
    """A package's archive."""

    file_name: str = ""
    size: int = 0
    sha256: str = ""
    trust: str = ""


@dataclasses.dataclass(frozen=True)
class Package:
    """A package of the newest snapshot: an extracted directory, an archive, or both."""

    name: str = ""  #: name-version-build
    directory: str = ""
    trust: str = ""  #: verified, consistent or opaque
    shared: bool = False  #: other users of the mount see it too
    owner: int = 0
    extracted: bool = False
    size: int = 0  #: bytes of the extracted files
    sha256: str = ""  #: of the archive that it comes from
    archive: Optional[Archive] = None


@dataclasses.dataclass(frozen=True)
class File:
    """A file, directory or symbolic link of a package."""

    path: str = ""
    type: str = ""  #: file, directory or symlink
    mode: str = ""  #: in octal, as in "0644"
    size: int = 0
    blake3: str = ""
    target: str = ""


@dataclasses.dataclass(frozen=True)
class PackageFiles(Package):
    """A package with the files of its extracted directory."""

    entries: List[File] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Commit:
    """One line of the log."""

    seq: int = 0
    time: datetime = _NEVER
    uid: int = 0
    pid: int = 0
    session: str = ""
    label: str = ""
    command: str = ""
    what: List[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something damaged."""

    kind: str = ""
    digest: str = ""
    file: str = ""
    detail: str = ""
    quarantined: str = ""
    fixed: str = ""
    paths: List[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class VerifyReport:
    """What a check of the store found."""

    blobs: int = 0
    bytes: int = 0
    hashed: int = 0
    full: bool = False
    problems: List[Problem] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class RemovedPackage:
    """A package that left the newest snapshot."""

    path: str = ""
    bytes: int = 0
    used: datetime = _NEVER  #: last, to a day


@dataclasses.dataclass(frozen=True)
class GCReport:
    """What a collection freed, or would free."""

    dry_run: bool = False
    blobs: int = 0
    trees: int = 0
    bytes: int = 0
    kept_blobs: int = 0
    kept_bytes: int = 0
    removed: List[RemovedPackage] = dataclasses.field(default_factory=list)  #: for the limits, longest unused first
    removed_bytes: int = 0  #: theirs, before sharing of equal content
    linked: int = 0  #: packages that stay, as environments have links to them
    over: int = 0  #: bytes above the limits although nothing more can go
    awaited_bytes: int = 0  #: of packages removed before, which sessions still have


@dataclasses.dataclass(frozen=True)
class ImportReport:
    """What came of an import."""

    imported: List[Committed] = dataclasses.field(default_factory=list)
    present: int = 0
    rejected: List[Dropped] = dataclasses.field(default_factory=list)
    skipped: List[Dropped] = dataclasses.field(default_factory=list)
    bytes: int = 0


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """What came of an export."""

    exported: List[str] = dataclasses.field(default_factory=list)
    present: int = 0
    rejected: List[Dropped] = dataclasses.field(default_factory=list)
    bytes: int = 0


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a long piece of work has come. ``total`` is 0 while it is not known."""

    phase: str = ""
    done: int = 0
    total: int = 0
    unit: str = ""
    item: str = ""


@dataclasses.dataclass(frozen=True)
class Started:
    """A session that was just started."""

    id: str = ""
    shelf: str = ""


def build(cls: Type[_T], value: object) -> _T:
    """Makes a ``cls`` of decoded JSON.

    >>> build(Dropped, {"path": "pkgs/x", "why": "cut short", "of_a_newer_daemon": 1})
    Dropped(path='pkgs/x', why='cut short')
    """
    made: _T = _convert(cls, value)
    return made


def _convert(hint: Any, value: Any) -> Any:
    if get_origin(hint) is Union:  # Optional[X]
        return None if value is None else _convert(get_args(hint)[0], value)
    if get_origin(hint) is list:
        (of,) = get_args(hint)
        return [_convert(of, v) for v in _expect(list, value)]
    if dataclasses.is_dataclass(hint):
        given: Mapping[str, Any] = _expect(dict, value)
        hints = _hints(hint)
        return hint(**{  # type: ignore[operator]
            f.name: _convert(hints[f.name], given[f.name])
            for f in dataclasses.fields(hint)
            if f.name in given and (given[f.name] is not None or get_origin(hints[f.name]) is Union)
        })
    if hint is datetime:
        return parse_time(_expect(str, value))
    return _expect(hint, value)


_known_hints: Dict[Any, Dict[str, Any]] = {}


def _hints(cls: Any) -> Dict[str, Any]:
    if cls not in _known_hints:
        # "bytes" is a field's name here, not the type.
        _known_hints[cls] = get_type_hints(cls)
    return _known_hints[cls]


def _expect(cls: type, value: Any) -> Any:
    if not isinstance(value, cls) or (cls is int and isinstance(value, bool)):
        raise ValueError(f"the daemon sent {value!r} where {cls.__name__} was expected")
    return value


_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:Z|([+-])(\d\d):(\d\d))")


def parse_time(text: str) -> datetime:
    """Reads a time as Go writes it: with up to nine digits of a second, and Z.

    >>> parse_time("2026-01-02T03:04:05.123456789Z").isoformat()
    '2026-01-02T03:04:05.123456+00:00'
    """
    m = _TIME.fullmatch(text)
    if m is None:
        raise ValueError(f"the daemon sent {text!r}, which is no time")
    plain, fraction, sign, hours, minutes = m.groups()
    at = datetime.strptime(plain, "%Y-%m-%dT%H:%M:%S")
    zone = timezone.utc
    if sign:
        offset = timedelta(hours=int(hours), minutes=int(minutes))
        zone = timezone(-offset if sign == "-" else offset)
    return at.replace(microsecond=int((fraction or "0").ljust(6, "0")[:6]), tzinfo=zone)
