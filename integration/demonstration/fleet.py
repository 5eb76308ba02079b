"""The client processes: what they are, and how they are started at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

CLIENTS = Path(__file__).resolve().parent.parent / "clients"

# What each kind installs. Rattler keeps no archives, so it is not given packages without info/paths.json: nothing could
# prove in its cache that they are right.
CONDA_SPECS = "app03"
RATTLER_SPECS = "app05,odd"
EXTRACTED = ("python", "odd", "lib00", "old00", "pure00", "app03")

KINDS = ("conda", "conda", "rattler", "extractor")


class Client:
    """One process. prefix is the environment that it makes, None if it makes none."""

    def __init__(self, kind, name, args, side, prefix=None, specs=None):
        self.kind, self.name, self.args, self.prefix, self.specs = kind, name, args, prefix, specs
        self.env = dict(os.environ, PYTHONPATH=str(CLIENTS), PYTHONDONTWRITEBYTECODE="1", **side.variables)
        self.process = None
        self.error = ""

    def start(self, output):
        """In a process group of its own, so that it can be ended with its children and nothing else."""
        self.output = open(output, "w+")
        self.process = subprocess.Popen(
            self.args, env=self.env, stdout=self.output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True)

    @property
    def running(self):
        return self.process.poll() is None

    def kill(self):
        if self.running:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def ended(self):
        """Reads what the client said of itself: of a failure the exception and its first line."""
        self.output.seek(0)
        lines = self.output.read().strip().splitlines() or [""]
        self.output.close()
        try:
            said = json.loads(lines[-1])
            self.error = "" if said.get("success") else f"{said.get('exception')}: {said.get('error')}".splitlines()[0]
        except (ValueError, AttributeError):
            self.error = lines[-1]

    @property
    def failed(self):
        return self.process.returncode != 0


def fleet(n, side, round_, python, channel, url):
    out = []
    for i in range(n):
        kind = KINDS[i % len(KINDS)]
        nth = i // len(KINDS)
        name = f"{kind}-{i}"
        prefix = side.environments / f"{round_}-{name}"
        if kind == "conda":
            args = [python, "-m", "conda_shaped", "install", "--json", "--channel", url, "--prefix", str(prefix), "--extract", "thread"]
            out.append(Client(kind, name, side.command(i, args + CONDA_SPECS.split(",")), side, prefix, CONDA_SPECS))
        elif kind == "rattler":
            args = [python, str(CLIENTS / "rattler_client.py"), "--channel", url, "--prefix", str(prefix)]
            out.append(Client(kind, name, args + RATTLER_SPECS.split(","), side, prefix, RATTLER_SPECS))
        else:
            tool = ("cph", "cps")[nth % 2]
            args = [python, str(CLIENTS / "cph_client.py"), "--channel", channel, "--pkgs", str(side.pkgs), "--tool", tool]
            out.append(Client(kind, f"{tool}-{i}", args + list(EXTRACTED), side))
    return out


def cleaner(side, python):
    return Client("clean", "conda-clean", [python, "-m", "conda_shaped", "clean", "--json", "--all"], side)


def at_once(clients, outputs):
    """Starts all and waits for all. Returns the seconds that it took."""
    outputs.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    started = []
    try:
        for c in clients:
            c.start(outputs / c.name)
            started.append(c)
        while any([c.running for c in started]):
            time.sleep(0.02)
        return time.monotonic() - began
    finally:
        for c in started:
            c.kill()
            c.ended()


def ended(clients):
    return f"{sum(c.process is not None and not c.running for c in clients)} of {len(clients)} have ended"
