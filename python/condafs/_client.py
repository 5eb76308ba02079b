"""The client of the daemon's socket: HTTP with JSON over a Unix socket."""

from __future__ import annotations

import http.client
import json
import os
import socket
from datetime import timedelta
from typing import Any, Callable, List, Mapping, Optional, Sequence, Type, TypeVar
from urllib.parse import quote

from ._errors import error, from_wire
from ._mount import PathLike, find
from ._types import (
    Commit,
    ExportReport,
    GCReport,
    ImportReport,
    Package,
    PackageFiles,
    Progress,
    Report,
    SessionInfo,
    Started,
    Status,
    VerifyReport,
    build,
)

_T = TypeVar("_T")

ProgressFunc = Callable[[Progress], None]


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: Optional[float]) -> None:
        super().__init__("condafs", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Client:
    """Asks one daemon. Objects have no state but the socket's path, so threads and forked processes may share one.

    >>> client = Client.at("/home/me/conda-cache")                 # doctest: +SKIP
    >>> client.gc(dry_run=True).bytes                              # doctest: +SKIP
    4096

    ``timeout``, in seconds, bounds how long the daemon may be silent; without one, a commit or a check takes as long
    as it takes. What you may ask for is decided by who you are: the kernel tells the daemon.
    """

    def __init__(self, socket: str, timeout: Optional[float] = None) -> None:
        self.socket = socket
        self.timeout = timeout

    @classmethod
    def at(cls, mount: Optional[PathLike] = None, timeout: Optional[float] = None) -> "Client":
        """The client of a mount's daemon; see :func:`condafs.find` for which it is without ``mount``."""
        return cls(find(mount).socket, timeout)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.socket!r})"

    def status(self) -> Status:
        """Describes the daemon and its store."""
        return self._ask(Status, "GET", "/status")

    def sessions(self) -> List[SessionInfo]:
        """Lists the live sessions that you may see."""
        return self._ask(List[SessionInfo], "GET", "/sessions")

    def packages(self) -> List[Package]:
        """Lists the packages of the newest snapshot that you may use."""
        return self._ask(List[Package], "GET", "/packages")

    def package(self, name: str) -> PackageFiles:
        """Describes one package (name-version-build) with its files."""
        return self._ask(PackageFiles, "GET", "/packages/" + quote(name, safe=""))

    def log(self, limit: int = 0) -> List[Commit]:
        """Lists commits, the newest first; 0 means all that are kept."""
        return self._ask(List[Commit], "GET", f"/log?limit={limit:d}")

    def commit(self, session_id: str) -> Report:
        """Publishes what is complete in a session, which goes on unless it was kept after a failure."""
        return self._ask(Report, "POST", f"/sessions/{quote(session_id, safe='')}/commit")

    def discard(self, session_id: str) -> None:
        """Ends a session and throws away what it has not committed."""
        self._ask(_Nothing, "POST", f"/sessions/{quote(session_id, safe='')}/discard")

    def verify(self, full: bool = False, progress: Optional[ProgressFunc] = None) -> VerifyReport:
        """Checks the store and changes nothing; with ``full`` it reads every byte. For the store's owner."""
        return self._ask(VerifyReport, "POST", "/verify", {"full": full}, progress)

    def gc(
        self, dry_run: bool = False, progress: Optional[ProgressFunc] = None, *, max_size: int = 0, min_free: int = 0, max_age: Optional[timedelta] = None,
    ) -> GCReport:
        """Frees what nothing refers to. For the store's owner.

        With a limit, in bytes, packages that were not used for longest leave the newest snapshot first.
        """
        limits = {"max_size": max_size, "min_free": min_free, "max_age": int(max_age.total_seconds()) if max_age else 0}
        return self._ask(GCReport, "POST", "/gc", {"dry_run": dry_run, **limits}, progress)

    def import_packages(self, directory: PathLike, progress: Optional[ProgressFunc] = None) -> ImportReport:
        """Takes the packages of a plain package directory into the store. For the store's owner."""
        return self._ask(ImportReport, "POST", "/import", {"dir": os.path.abspath(directory)}, progress)

    def export_packages(self, directory: PathLike, names: Sequence[str] = (), progress: Optional[ProgressFunc] = None) -> ExportReport:
        """Writes packages, or all of them, to a plain directory. For the store's owner."""
        return self._ask(ExportReport, "POST", "/export", {"dir": os.path.abspath(directory), "names": list(names)}, progress)

    def _start(self, label: str, command: str, ephemeral: bool, beside_shelf: bool, on_failure: str) -> Started:
        return self._ask(Started, "POST", "/sessions", {
            "label": label, "command": command, "ephemeral": ephemeral, "beside_shelf": beside_shelf, "on_failure": on_failure,
        })

    def _end(self, session_id: str, exit_code: int) -> Report:
        return self._ask(Report, "POST", f"/sessions/{quote(session_id, safe='')}/end", {"exit_code": exit_code})

    def _ask(self, of: Type[_T], method: str, path: str, body: Optional[Mapping[str, Any]] = None, progress: Optional[ProgressFunc] = None) -> _T:
        """Makes one request and follows its answer to the result."""
        # Each request has a connection of its own: the kernel tells the daemon who made the connection, and this
        # process may have forked since.
        c = _Connection(self.socket, self.timeout)
        try:
            c.request(method, "/v1" + path, None if body is None else json.dumps(body))
            return _follow(of, c.getresponse(), progress)
        except (OSError, http.client.HTTPException) as e:
            raise self._unreachable(e) from e
        except ValueError as e:
            raise error("ask daemon", self.socket, "version", str(e)) from e
        finally:
            c.close()

    def _unreachable(self, e: Exception) -> Exception:
        """Explains why no answer came."""
        if isinstance(e, (FileNotFoundError, ConnectionRefusedError)):
            return error("connect to the daemon", self.socket, "not mounted", "nobody listens there", "start it with `condafs mount MOUNTPOINT`")
        if isinstance(e, PermissionError):
            return error("connect to the daemon", self.socket, "permission", "permission denied", "the mount is another user's and was made without --allow-other")
        if isinstance(e, (ConnectionError, http.client.IncompleteRead, http.client.BadStatusLine)):
            return error("ask daemon", self.socket, "not mounted", "it hung up before it answered", "see its log file")
        if isinstance(e, socket.timeout):
            return error("ask daemon", self.socket, "input/output", f"no answer within {self.timeout:g} s")
        return error("ask daemon", self.socket, "input/output", f"no answer: {e}")


class _Nothing:
    """The result of what has none."""


def _follow(of: Type[_T], answer: http.client.HTTPResponse, progress: Optional[ProgressFunc]) -> _T:
    """Reads lines up to the result or error."""
    for raw in answer:
        line = json.loads(raw)
        if not isinstance(line, dict):
            raise ValueError("the daemon sent what is not an object")
        if "error" in line:
            raise from_wire(line["error"])
        if "result" in line:
            return _NOTHING if of is _Nothing else build(of, line["result"])  # type: ignore[return-value]
        if "progress" in line and progress is not None:
            progress(build(Progress, line["progress"]))
    raise http.client.IncompleteRead(b"")


_NOTHING = _Nothing()
