"""Makes ready what the clients need, once: a virtual environment with the pinned requirements, and the channel.

Both are kept in a cache directory under names that follow from what they are made of, so that a change makes them
anew. Needs nothing but the standard library. Prints one JSON object with the paths.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SIZES = ("tiny", "quick", "full")


def default_cache():
    cache = os.environ.get("CONDAFS_TEST_CACHE")
    if cache:
        return Path(cache).resolve()
    if os.getuid() == 0:  # root's home is closed to other users, whom some tests work as
        return Path("/var/cache/condafs-test")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "condafs-test"


def prepare(cache, size, say):
    """Returns the paths of the interpreter and of the channel. say is told what happens next."""
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / "lock"):
        python = virtual_environment(cache, say)
        return dict(python=str(python), channel=str(channel(cache, python, size, say)))


@contextlib.contextmanager
def locked(path):
    """Several test runs may be at it at once."""
    with open(path, "w") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


def virtual_environment(cache, say):
    requirements = HERE / "requirements.txt"
    made_of = requirements.read_bytes() + sys.version.encode()

    def make(folder):
        say("making a virtual environment")
        run(sys.executable, "-m", "venv", folder)
        say("fetching the real clients: " + ", ".join(names(requirements)))
        run(folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements,
            hint="The clients come from PyPI. Without network, `condafs demo` shows the same with built-in ones.")

    return once(cache, "venv", made_of, make) / "bin" / "python"


def names(requirements):
    lines = requirements.read_text().splitlines()
    return [line.split("==")[0] for line in lines if line and not line.startswith("#")]


def channel(cache, python, size, say):
    program = HERE / "channel.py"

    def make(folder):
        say("making a channel of generated packages")
        run(python, program, folder, "--size", size)

    return once(cache, f"channel-{size}", program.read_bytes(), make)


def once(cache, name, made_of, make):
    """Makes a directory unless that has succeeded before. What failed half-way is made anew."""
    folder = cache / f"{name}-{hashlib.sha256(made_of).hexdigest()[:12]}"
    done = folder.with_name(folder.name + ".done")
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        make(folder)
        done.touch()
    return folder


def run(*args, hint=""):
    done = subprocess.run([os.fspath(a) for a in args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, args))} ended with {done.returncode}:\n{done.stdout}{hint}")


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--size", choices=SIZES, default="quick", help="of the channel")
    args = ap.parse_args()
    print(json.dumps(prepare(default_cache(), args.size, lambda text: print(text, file=sys.stderr))))


if __name__ == "__main__":
    main()
