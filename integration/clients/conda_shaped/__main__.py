"""Command line: install SPEC… into a new environment, or clean the package directories."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback

from . import die
from .errors import CondaError, CondaExitZero


def install(args):
    from .cache import Caches, fetch_and_extract
    from .link import install as link
    from .repodata import fetch, solve

    caches = Caches(args.pkgs)
    started = time.monotonic()
    writable = caches.first_writable().pkgs_dir
    records = [r for subdir in ("linux-64", "noarch") for r in fetch(writable, args.channel, subdir)]
    chosen = solve(records, args.specs)
    solved = time.monotonic()
    try:
        fetched = fetch_and_extract(caches, chosen, args.extract, args.die_at)
        extracted = time.monotonic()
        kinds = [] if args.download_only else link(caches, chosen, os.path.abspath(args.prefix), args.copy, args.safety_checks)
    except SystemExit as e:
        raise CondaExitZero(f"Exiting {e}") from e
    return dict(
        packages=len(chosen), fetched=fetched, hardlinked=kinds.count("hardlink"), copied=kinds.count("copy"),
        seconds=dict(solve=round(solved - started, 3), fetch=round(extracted - solved, 3), link=round(time.monotonic() - extracted, 3)))


def clean(args):
    from .cache import Caches
    from .clean import clean as run

    removed = run(Caches(args.pkgs), everything=args.all, tarballs=args.tarballs, index_cache=args.index_cache,
                  packages=args.packages, force_pkgs_dirs=args.force_pkgs_dirs)
    return dict(removed=len(removed))


def parse(argv):
    ap = argparse.ArgumentParser(prog="conda_shaped", description=__doc__)
    default = [d for d in os.environ.get("CONDA_PKGS_DIRS", "").split(",") if d]
    sub = ap.add_subparsers(dest="command", required=True)
    for name, run in (("install", install), ("clean", clean)):
        p = sub.add_parser(name)
        p.set_defaults(run=run)
        p.add_argument("--pkgs", type=lambda s: s.split(","), default=default, help="package directories (default: CONDA_PKGS_DIRS)")
        p.add_argument("--json", action="store_true")
        if name == "install":
            p.add_argument("--channel", required=True)
            p.add_argument("--prefix", required=True)
            p.add_argument("--copy", action="store_true", help="always_copy: true")
            p.add_argument("--safety-checks", choices=("warn", "enabled"), default="warn")
            p.add_argument("--extract", choices=("process", "thread"), default="process")
            p.add_argument("--download-only", action="store_true")
            p.add_argument("--die-at", help="POINT[:PACKAGE]: end by SIGKILL there")
            p.add_argument("specs", nargs="+")
        else:
            p.add_argument("-a", "--all", action="store_true")
            p.add_argument("-t", "--tarballs", action="store_true")
            p.add_argument("-i", "--index-cache", action="store_true")
            p.add_argument("-p", "--packages", action="store_true")
            p.add_argument("-f", "--force-pkgs-dirs", action="store_true")
    args = ap.parse_args(argv)
    if not args.pkgs:
        ap.error("--pkgs or CONDA_PKGS_DIRS is needed")
    return args


def main(argv=None):
    args = parse(argv)
    if getattr(args, "die_at", None):
        die.arm(args.die_at)
    result, status = {"success": True}, 0
    try:
        result.update(args.run(args))
    except CondaExitZero as e:
        result.update(success=False, exception="CondaExitZero", error=str(e))
    except CondaError as e:
        result.update(success=False, exception=type(e).__name__, error=str(e))
        status = 1
    except Exception as e:
        traceback.print_exc()
        result.update(success=False, exception=type(e).__name__, error=str(e), unexpected=True)
        status = 1
    if args.json:
        print(json.dumps(result))
    elif not result["success"]:
        print(f"{result['exception']}: {result['error']}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
