"""Installs with py-rattler as its users do: solve, then install, with the cache that RATTLER_CACHE_DIR names."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from pathlib import Path


async def run(args):
    from rattler import Client, Gateway, Platform, install, solve

    # py-rattler's gateway does not follow RATTLER_CACHE_DIR by itself; this is where rattler's own programs put repodata
    repodata = Path(os.environ["RATTLER_CACHE_DIR"]) / "repodata"
    started = time.monotonic()
    records = await solve(
        sources=[args.channel], specs=args.specs, platforms=[Platform("linux-64"), Platform("noarch")],
        gateway=Gateway(cache_dir=repodata, client=Client()))
    solved = time.monotonic()
    if args.prefix:
        await install(records, target_prefix=args.prefix, show_progress=False, execute_link_scripts=False)
    return dict(packages=len(records), seconds=dict(solve=round(solved - started, 3), install=round(time.monotonic() - solved, 3)))


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--channel", required=True)
    ap.add_argument("--cache", help="default: RATTLER_CACHE_DIR")
    ap.add_argument("--prefix")
    ap.add_argument("specs", nargs="+")
    args = ap.parse_args()
    if args.cache:
        os.environ["RATTLER_CACHE_DIR"] = args.cache
    try:
        result = dict(success=True, **asyncio.run(run(args)))
    except Exception as e:
        print(json.dumps(dict(success=False, exception=type(e).__name__, error=str(e))))
        return 1
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    # py-rattler's own threads crash the interpreter while it shuts down ("PyGILState_Release"), with the work done
    os._exit(status)
