"""Talks to a condafs daemon: sessions, status, packages.

Run conda in a session of its own, which is committed at the end of the block:

>>> import condafs
>>> with condafs.session(label="nightly") as s:                         # doctest: +SKIP
...     s.run(["conda", "create", "--yes", "--name", "py312", "python=3.12"])
>>> [line for c in s.commits() for line in c.what]                      # doctest: +SKIP
['+ pkgs/python-3.12.4-h0_0 (verified)', '+ pkgs/python-3.12.4-h0_0.conda (verified)']

Ask a daemon:

>>> condafs.status().head                                               # doctest: +SKIP
17
>>> [p.name for p in condafs.packages() if p.trust == "verified"]       # doctest: +SKIP
['python-3.12.4-h0_0']

All errors are :class:`CondafsError`, with a ``kind`` and a ``hint``. Nothing here needs the condafs program, nor any
other package: it speaks the protocol of the daemon's socket itself.
"""

from __future__ import annotations

import os
from typing import List, Optional, Union

from ._client import Client
from ._errors import (
    BusyError,
    CondafsError,
    CorruptError,
    NotFoundError,
    NotMountedError,
    OutOfSpaceError,
    PermissionDeniedError,
    UsageError,
)
from ._mount import Mount, find
from ._session import Session, session
from ._types import (
    Archive,
    Commit,
    Committed,
    Dropped,
    ExportReport,
    File,
    GCReport,
    ImportReport,
    Package,
    PackageFiles,
    Problem,
    Progress,
    Quarantine,
    RemovedPackage,
    Report,
    SessionInfo,
    Shelf,
    Status,
    VerifyReport,
)

__version__ = "0.1.0"

__all__ = [
    "Archive",
    "BusyError",
    "Client",
    "Commit",
    "Committed",
    "CondafsError",
    "CorruptError",
    "Dropped",
    "ExportReport",
    "File",
    "GCReport",
    "ImportReport",
    "Mount",
    "NotFoundError",
    "NotMountedError",
    "OutOfSpaceError",
    "Package",
    "PackageFiles",
    "PermissionDeniedError",
    "Problem",
    "Progress",
    "Quarantine",
    "RemovedPackage",
    "Report",
    "Session",
    "SessionInfo",
    "Shelf",
    "Status",
    "UsageError",
    "VerifyReport",
    "commit",
    "discard",
    "find",
    "packages",
    "session",
    "sessions",
    "status",
]

_Path = Union[str, "os.PathLike[str]"]


def status(mount: Optional[_Path] = None) -> Status:
    """Describes the daemon and its store.

    ``mount`` is a mount point; without it, it is the session around, ``$CONDAFS_MOUNT`` or the only mount there is.
    """
    return Client.at(mount).status()


def sessions(mount: Optional[_Path] = None) -> List[SessionInfo]:
    """Lists the live sessions that you may see: your own, or all for the store's owner and root."""
    return Client.at(mount).sessions()


def packages(mount: Optional[_Path] = None) -> List[Package]:
    """Lists the packages of the newest snapshot that you may use."""
    return Client.at(mount).packages()


def commit(session_id: str, mount: Optional[_Path] = None) -> Report:
    """Publishes what is complete in a session, which goes on unless it was kept after a failure."""
    return Client.at(mount).commit(session_id)


def discard(session_id: str, mount: Optional[_Path] = None) -> None:
    """Ends a session and throws away what it has not committed."""
    Client.at(mount).discard(session_id)
