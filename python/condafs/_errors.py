"""Errors, by what the caller can do about them."""

from __future__ import annotations

from typing import Dict, Mapping, Type


class CondafsError(Exception):
    """A request that failed, in the daemon or on the way to it.

    ``op`` is what was being done and ``name`` to what; ``kind`` is one of condafs's kinds of errors ("not found",
    "busy", …), ``message`` the cause, and ``hint`` what somebody can do about it, or "".

    >>> e = CondafsError("start session", "nightly", "full", "no space left", "free some")
    >>> str(e), e.kind, e.hint
    ('start session nightly: no space left; free some', 'full', 'free some')
    """

    def __init__(self, op: str, name: str = "", kind: str = "other", message: str = "", hint: str = "") -> None:
        super().__init__(op, name, kind, message, hint)
        self.op = op
        self.name = name
        self.kind = kind
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        what = " ".join(part for part in (self.op, self.name) if part)
        why = self.message or ("" if self.kind == "other" else self.kind)
        text = ": ".join(part for part in (what, why) if part)
        return "; ".join(part for part in (text, self.hint) if part)


class UsageError(CondafsError):
    """The request itself is wrong."""


class NotFoundError(CondafsError):
    """There is no such session, package or file, or it has gone."""


class NotMountedError(CondafsError):
    """Nothing is mounted, or no daemon answers behind the mount."""


class PermissionDeniedError(CondafsError):
    """Not allowed for this user."""


class BusyError(CondafsError):
    """Somebody else holds it; later it may work."""


class CorruptError(CondafsError):
    """Content does not match what it should be."""


class OutOfSpaceError(CondafsError):
    """No space or quota is left, or another limit was reached."""


_BY_KIND: Dict[str, Type[CondafsError]] = {
    "usage": UsageError,
    "not found": NotFoundError,
    "stale": NotFoundError,
    "not mounted": NotMountedError,
    "permission": PermissionDeniedError,
    "busy": BusyError,
    "corrupt": CorruptError,
    "full": OutOfSpaceError,
    "too many": OutOfSpaceError,
}


def error(op: str, name: str, kind: str, message: str = "", hint: str = "") -> CondafsError:
    """Makes the exception of a kind. Kinds of a newer daemon are plain CondafsErrors."""
    return _BY_KIND.get(kind, CondafsError)(op, name, kind, message, hint)


def from_wire(w: Mapping[str, object]) -> CondafsError:
    """Makes the exception that the daemon's answer tells of."""

    def text(key: str) -> str:
        return str(w.get(key) or "")

    return error(text("op"), text("name"), text("kind") or "other", text("message"), text("hint"))
