"""The plugin for conda: ``conda condafs``, a check for ``conda doctor``, and a warning for caches beside the mount.

conda finds it by the entry point ``conda``. Its hooks are called on each start of conda, so they import no more than
they need. A condafs that is not there, or that does not answer, never stops conda.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any, Callable, Dict, Iterator, List, Optional

from conda.plugins import hookimpl

#: Commands that use the package cache.
USES_CACHE = {"create", "install", "update", "remove", "env_create", "env_update", "env_remove"}


@hookimpl
def conda_subcommands() -> Iterator[Any]:
    from conda.plugins import types

    yield types.CondaSubcommand(
        name="condafs",
        summary="Look at the condafs package cache, and at its sessions.",
        action=main,
        configure_parser=configure_parser,
    )


@hookimpl
def conda_health_checks() -> Iterator[Any]:
    from conda.plugins import types

    yield types.CondaHealthCheck(name="condafs", action=check_health)


@hookimpl
def conda_pre_commands() -> Iterator[Any]:
    from conda.plugins import types

    yield types.CondaPreCommand(name="condafs-warning", action=warn, run_for=USES_CACHE)


def configure_parser(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``conda condafs``."""
    parser.description = "Looks at the condafs package cache, and at its sessions."
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--mount", metavar="POINT", help="mount point (default: that of pkgs_dirs, $CONDAFS_MOUNT, or the only one)")
    common.add_argument("--json", action="store_true", help="print JSON")
    commands = parser.add_subparsers(dest="condafs_command", metavar="COMMAND", required=True)
    for name, of in _COMMANDS.items():
        sub = commands.add_parser(name, parents=[common], help=of.__doc__, description=of.__doc__)
        if name in ("commit", "discard"):
            sub.add_argument("session", metavar="ID", help="of a session, as `conda condafs sessions` shows it")


def main(args: argparse.Namespace) -> int:
    """Runs ``conda condafs COMMAND``."""
    from . import CondafsError
    from ._client import Client

    try:
        client = Client.at(args.mount or mount_of(pkgs_dirs()))
        return _COMMANDS[args.condafs_command](client, args)
    except CondafsError as e:
        print(f"condafs: {e}", file=sys.stderr)
        return _EXIT_STATUS.get(e.kind, 1)


#: As the condafs program has them.
_EXIT_STATUS = {"usage": 2, "corrupt": 3, "not mounted": 4}


def _status(client: Any, args: argparse.Namespace) -> int:
    """what is mounted, and what is in its store"""
    s = client.status()
    if args.json:
        return _print_json(s)
    print(f"mount        {s.mount_point} (pid {s.pid}, version {s.version})")
    print(f"store        {s.store}: {size(s.stored_bytes)}, for {size(s.logical_bytes)} of content")
    print(f"packages     {s.packages}, and {s.archives} archives, at snapshot {s.head}")
    print(f"sessions     {s.sessions}")
    print(f"package dirs {', '.join(pkgs_dirs()) or '-'}")
    print(f"             {explain(pkgs_dirs(), [s.mount_point]) or 'conda uses the mount'}")
    if s.quarantine:
        print(f"quarantine   {len(s.quarantine)}: {size(s.quarantined_bytes)}; `condafs status` names them")
    return 0


def _sessions(client: Any, args: argparse.Namespace) -> int:
    """lists the live sessions"""
    sessions = client.sessions()
    if args.json:
        return _print_json(sessions)
    for s in sessions:
        what = s.label or s.command or "-"
        print(f"{s.id}  {s.state:8}  uid {s.uid}  {size(s.overlay_bytes):>9}  {printable(what)}")
    return 0


def _packages(client: Any, args: argparse.Namespace) -> int:
    """lists the packages of the newest snapshot, with size and trust"""
    packages = client.packages()
    if args.json:
        return _print_json(packages)
    for p in packages:
        print(f"{p.trust:10}  {size(p.size or (p.archive.size if p.archive else 0)):>9}  {printable(p.name)}")
    return 0


def _commit(client: Any, args: argparse.Namespace) -> int:
    """publishes what is complete in a session"""
    r = client.commit(args.session)
    if args.json:
        return _print_json(r)
    print(f"{len(r.committed)} committed at snapshot {r.head}, {len(r.pending)} pending, {len(r.quarantined)} in quarantine")
    return 0


def _discard(client: Any, args: argparse.Namespace) -> int:
    """ends a session and throws away what it has not committed"""
    client.discard(args.session)
    return _print_json({}) if args.json else 0


_COMMANDS: Dict[str, Callable[[Any, argparse.Namespace], int]] = {
    "status": _status, "sessions": _sessions, "packages": _packages, "commit": _commit, "discard": _discard,
}


def check_health(prefix: str, verbose: bool) -> None:
    """Is the package cache on a mount, and does its daemon answer? For ``conda doctor``."""
    from conda.base.constants import OK_MARK, X_MARK

    from . import CondafsError
    from ._client import Client
    from ._mount import mount_points

    dirs, points = pkgs_dirs(), mount_points()
    wrong = explain(dirs, points)
    if wrong:
        print(f"{X_MARK} condafs: {wrong}\n")
        return
    try:
        s = Client.at(mount_of(dirs), timeout=20).status()
    except CondafsError as e:
        print(f"{X_MARK} condafs: {e}\n")
        return
    print(f"{OK_MARK} condafs: the package cache is on {s.mount_point}, and its daemon answers.")
    if verbose:
        print(f"    version {s.version}, store {s.store}, snapshot {s.head}, {s.packages} packages, {s.sessions} sessions")
    if s.quarantine:
        print(f"{X_MARK} condafs: {len(s.quarantine)} in quarantine, which did not match their evidence:")
        for q in s.quarantine[: None if verbose else 5]:
            print(f"    {printable(q.path)}: {printable(q.reason)}")
    print()


def warn(command: str) -> None:
    """Warns before a command whose cache is not on the mount. Without a mount, and without $CONDAFS_MOUNT, there is none to miss."""
    from ._mount import ENV_MOUNT, mount_points

    if _quiet():
        return
    try:
        points = mount_points()
        wrong = explain(pkgs_dirs(), points) if points or os.environ.get(ENV_MOUNT) else ""
    except OSError:
        return  # it is a warning only: conda goes on without
    if wrong:
        print(f"condafs: warning: {wrong}", file=sys.stderr)


def explain(dirs: List[str], points: List[str]) -> str:
    """Says what is wrong with conda's package directories, or "".

    >>> explain(["/mnt/c/pkgs", "/store/shelf/pkgs"], ["/mnt/c"])
    ''
    >>> explain(["/home/me/pkgs"], ["/mnt/c"])
    'conda takes packages from /home/me/pkgs, which is not on a condafs mount; `eval "$(condafs env --mount /mnt/c)"` points it at /mnt/c'
    """
    if not points:
        return "nothing is mounted; `condafs mount MOUNTPOINT` starts one"
    if not dirs:
        return "conda has no package directory"
    if not any(_below(dirs[0], p) for p in points):
        at = points[0]
        return f'conda takes packages from {dirs[0]}, which is not on a condafs mount; `eval "$(condafs env --mount {at})"` points it at {at}'
    return ""


def mount_of(dirs: List[str]) -> Optional[str]:
    """The mount that conda downloads to, or None if that is on none."""
    from ._mount import mount_points

    for point in mount_points():
        if dirs and _below(dirs[0], point):
            return point
    return None


def _below(path: str, point: str) -> bool:
    path = os.path.abspath(path)
    if path.startswith(point + "/"):
        return True  # without a look at the path, which would start a session
    return os.path.realpath(path).startswith(point + "/")


def pkgs_dirs() -> List[str]:
    """conda's package directories, the one that it downloads to first."""
    from conda.base.context import context

    return [str(d) for d in context.pkgs_dirs]


def _quiet() -> bool:
    from conda.base.context import context

    return bool(getattr(context, "quiet", False))


def size(n: float) -> str:
    """A number of bytes for people.

    >>> size(0), size(1536), size(5 << 30)
    ('0 B', '1.5 KiB', '5.0 GiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n < 1024:
            return f"{n} B" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1024
    return f"{n:.1f} TiB"


def printable(text: str) -> str:
    """Names come from clients: none may play tricks on a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _print_json(value: Any) -> int:
    import dataclasses

    def plain(v: Any) -> Any:
        return dataclasses.asdict(v) if dataclasses.is_dataclass(v) and not isinstance(v, type) else v

    value = [plain(v) for v in value] if isinstance(value, list) else plain(value)
    print(json.dumps(value, indent=2, default=str))
    return 0
