"""Sessions of this process, as context managers."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from types import TracebackType
from typing import Any, Dict, List, Mapping, Optional, Sequence, Type

from ._client import Client
from ._errors import error
from ._mount import ENV_MOUNT, ENV_SESSION, ENV_SOCKET, Mount, PathLike, find, same
from ._types import Commit, Report

#: What becomes of uncommitted changes when the block fails; see :func:`session`.
ON_FAILURE = ("keep-units", "discard", "keep")

_lock = threading.Lock()
_started: Dict[int, str] = {}  # by pid, as a forked child has none: the session that this process has started


def session(
    mount: Optional[PathLike] = None,
    *,
    label: str = "",
    ephemeral: bool = False,
    on_failure: str = "keep-units",
    shelf: bool = True,
    new: bool = False,
) -> "Session":
    """A session of this process and of all that it starts, for a ``with`` block.

    The block's object has ``env``, the environment to run conda, mamba, pixi or Rattler in, and ``run``, which does
    so. At the block's end what is complete is committed, and ``report`` says what that was.

    >>> with session(label="nightly", on_failure="discard") as s:          # doctest: +SKIP
    ...     subprocess.run(["conda", "env", "update", "--file", "env.yml"], env=s.env, check=True)

    If the block raises, ``on_failure`` decides: ``keep-units`` commits complete, verified packages and drops the rest;
    ``discard`` commits nothing; ``keep`` leaves the session for :func:`condafs.commit` or :func:`condafs.discard`. An
    ``ephemeral`` session never commits anything. ``shelf=False`` shows all packages on the mount, for clients that know
    one package directory only.

    Within ``condafs run``, or in a process that a block has started, this joins the session around, which goes on
    after the block; ``new=True`` starts one of its own.

    To the daemon a process is in one session at a time. So a second block at once, in another thread, is a
    :class:`condafs.BusyError`: let each have a process of its own, by ``multiprocessing`` or ``condafs run``.
    """
    if on_failure not in ON_FAILURE:
        raise error("start session", label, "usage", f"on_failure {on_failure!r} is none of {', '.join(ON_FAILURE)}")
    return Session(find(mount), label=label, ephemeral=ephemeral, on_failure=on_failure, shelf=shelf, new=new)


class Session:
    """A session; :func:`session` makes one."""

    def __init__(self, mount: Mount, *, label: str, ephemeral: bool, on_failure: str, shelf: bool, new: bool) -> None:
        self.mount = mount
        self.label = label
        self.ephemeral = ephemeral
        self.on_failure = on_failure
        #: The session's id; "" before the block.
        self.id = ""
        #: Whether the block joined a session that was there, and that goes on after it.
        self.joined = False
        #: What the block's end committed; empty before it, and for one that has joined. Packages are committed as they
        #: are completed, too: see :meth:`commits`.
        self.report = Report()
        self._client = Client(mount.socket)
        self._use_shelf = shelf
        self._new = new
        self._pkgs_dirs: List[str] = []
        self._pid = 0
        self._over = False

    def __enter__(self) -> "Session":
        if self.id:
            raise error("start session", self.label, "usage", "a session's block can be entered once")
        outer = os.environ.get(ENV_SESSION, "")
        if outer and not self._new and same(self.mount.point, os.environ.get(ENV_MOUNT, "")):
            self.id, self.joined = outer, True
            return self
        # The magic link becomes a directory where a session's own namespace shows that session alone.
        if not os.path.islink(self.mount.pkgs) and os.path.isdir(self.mount.pkgs):
            raise error("start a new session in", self.mount.point, "unsupported",
                        "it shows another session here, in a private mount namespace", "start that one with `condafs run --namespace=never`")
        self._pid = os.getpid()
        with _lock:
            if self._pid in _started:
                raise error("start session", self.label, "busy", f"this process is in session {_started[self._pid]}",
                            "let the other one have a process of its own, by multiprocessing or `condafs run`")
            started = self._client._start(
                self.label, " ".join(_printable(a) for a in sys.argv)[:500], self.ephemeral,
                self._use_shelf and bool(self.mount.shelf()), self.on_failure)
            self.id = _started[self._pid] = started.id
        self._pkgs_dirs = [d for d in (self.mount.pkgs, started.shelf) if d]
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], failure: Optional[BaseException], _: Optional[TracebackType]) -> None:
        if self.joined or self._pid != os.getpid():  # the session is not ours to end: another's, or the parent's of this fork
            return
        with _lock:
            _started.pop(self._pid, None)
        if self._over:
            return
        self._over = True
        try:
            self.report = self._client._end(self.id, exit_code(failure))
        except Exception as e:
            if failure is None:
                raise
            # The block's own failure matters more, and must not be hidden by this.
            print(f"condafs: {e}", file=sys.stderr)

    @property
    def env(self) -> Dict[str, str]:
        """This process's environment with what points conda, mamba, pixi and Rattler at the session."""
        self._must_be_started()
        env = dict(os.environ)
        if self.joined:
            return env  # it does already
        env.update({
            "CONDA_PKGS_DIRS": ",".join(self._pkgs_dirs),
            "RATTLER_CACHE_DIR": self.mount.rattler,
            ENV_MOUNT: self.mount.point,
            ENV_SESSION: self.id,
            ENV_SOCKET: self.mount.socket,
        })
        return env

    def run(self, args: Sequence[PathLike], *, env: Optional[Mapping[str, str]] = None, check: bool = True, **more: Any) -> "subprocess.CompletedProcess[Any]":
        """Runs a command in the session, as :func:`subprocess.run` does, and raises if it fails.

        ``env`` is added to the session's environment.
        """
        return subprocess.run(args, env={**self.env, **(env or {})}, check=check, **more)

    def commit(self) -> Report:
        """Publishes what is complete by now. The session goes on."""
        self._must_be_started()
        return self._client.commit(self.id)

    def commits(self) -> List[Commit]:
        """Lists all commits of the session so far, the newest first."""
        return [c for c in self._client.log() if c.session == self.id]

    def discard(self) -> None:
        """Ends the session and throws away what it has not committed."""
        self._must_be_started()
        self._client.discard(self.id)
        self._over = True

    def _must_be_started(self) -> None:
        if not self.id:
            raise error("use session", self.label, "usage", "it is not started yet", "use it in a `with` block")
        if self._over:
            raise error("use session", self.id, "stale", "it is over")


def exit_code(failure: Optional[BaseException]) -> int:
    """What a shell would tell of a block that ended so.

    >>> exit_code(None), exit_code(ValueError()), exit_code(KeyboardInterrupt()), exit_code(SystemExit(3))
    (0, 1, 130, 3)
    """
    if failure is None:
        return 0
    if isinstance(failure, KeyboardInterrupt):
        return 130
    if isinstance(failure, subprocess.CalledProcessError):
        signal = -failure.returncode
        return 128 + signal if signal > 0 else failure.returncode & 0xFF
    if isinstance(failure, SystemExit):
        code = 0 if failure.code is None else failure.code
        return code & 0xFF if isinstance(code, int) else 1  # sys.exit("what went wrong")
    return 1


def _printable(text: str) -> str:
    return "".join(c if c >= " " and c != "\x7f" else " " for c in text.encode("utf-8", "replace").decode())
