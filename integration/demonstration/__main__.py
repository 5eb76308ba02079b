"""Shows the problem and its cure with real clients: N processes at once on a plain directory, and the same N on condafs.

    python3 integration/demonstration -n 8

Of every four clients two do to the cache what conda does, one installs with py-rattler, and one extracts with
conda-package-handling or conda-package-streaming. All start at once on an empty cache; then again, on the full one, with
a `conda clean` beside them. The channel is generated and served on localhost. Every byte of what they leave is judged.

The virtual environment and the channel are made at the first run and kept. A mount and a store of its own, the caches
and the environments are made below a scratch directory and removed. Exit status: 0 if nothing is broken on condafs, 3 if
something is, 1 if the demonstration could not run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
CLIENTS = HERE.parent / "clients"
sys.path.insert(0, str(CLIENTS))

from progress import Progress  # noqa: E402


def parse():
    ap = argparse.ArgumentParser(prog="demonstration", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("-n", "--clients", type=int, default=8, metavar="N", help="client processes at once (default: 8)")
    ap.add_argument("--condafs", type=Path, default=HERE.parent.parent / "condafs", help="the binary (default: ./condafs of this tree)")
    ap.add_argument("--size", choices=("tiny", "quick", "full"), default="tiny", help="of the channel's largest packages (default: tiny)")
    ap.add_argument("--scratch", help="where the scratch directory is made (default: TMPDIR)")
    ap.add_argument("--json", action="store_true")
    ap.add_argument("--tools", type=json.loads, help=argparse.SUPPRESS)  # this program's own, when it starts itself again
    args = ap.parse_args()
    if args.clients < 1:
        ap.error("-n must be at least 1")
    if not os.access(args.condafs, os.X_OK):
        ap.error(f"{args.condafs} is missing; build it with: go build -o condafs ./cmd/condafs")
    return args


def with_the_clients_interpreter(args, progress):
    """Makes the clients ready and starts this program again with the interpreter that has their packages."""
    from prepare import default_cache, prepare

    tools = prepare(default_cache(), args.size, progress.step)
    progress.end()
    os.execv(tools["python"], [tools["python"], *sys.argv, "--tools", json.dumps(tools)])


def demonstrate(args, progress):
    from check import Truth
    from report import Column, write_table
    from serve import serving
    from sides import Mounted, Plain, run

    tools = args.tools
    truth = Truth(tools["channel"])
    columns = {}
    with scratch_directory(args.scratch, progress) as scratch, serving(tools["channel"]) as server:
        for name, make in (("plain directory", Plain), ("condafs", Mounted)):
            columns[name] = column = Column()
            with make(scratch / name.split()[0], args.condafs.resolve(), progress) as side:
                run(side, column, args.clients, tools, truth, server, progress)
    progress.end()
    ok = columns["condafs"].ok
    if args.json:
        json.dump(dict(ok=ok, clients=args.clients, columns={k: c.as_dict() for k, c in columns.items()}), sys.stdout)
        print()
    else:
        write_table(columns, args.clients, sys.stdout)
    return 0 if ok else 3


@contextlib.contextmanager
def scratch_directory(parent, progress):
    folder = Path(tempfile.mkdtemp(prefix="condafs-demonstration-", dir=parent))
    try:
        yield folder
    finally:
        progress.step("removing the scratch directory")
        for inner in folder.iterdir():
            if os.path.ismount(inner / "mnt"):
                raise SystemExit(f"{inner / 'mnt'} is still mounted; end it with `condafs umount --lazy`, and remove {folder}")
        shutil.rmtree(folder)


def interrupted(signum, frame):
    raise KeyboardInterrupt  # so that whatever ends this program, its mount is taken away


def main():
    args = parse()
    os.umask(0o022)
    signal.signal(signal.SIGTERM, interrupted)
    progress = Progress(sys.stderr)
    try:
        if args.tools is None:
            with_the_clients_interpreter(args, progress)
        return demonstrate(args, progress)
    except KeyboardInterrupt:
        return 130
    finally:
        progress.end()


if __name__ == "__main__":
    sys.exit(main())
