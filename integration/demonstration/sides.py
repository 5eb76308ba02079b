"""The two sides that are compared: a plain directory, and a mount of condafs with a store of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time

from fleet import CONDA_SPECS, RATTLER_SPECS, at_once, cleaner, ended, fleet

PATIENCE = 300  # seconds for sessions to end; they take a moment


class Plain:
    name = "a plain directory"

    def __init__(self, folder, condafs, progress):
        self.environments = folder / "envs"
        self.pkgs = self.judged_pkgs = folder / "pkgs"
        self.judged_rattler = folder / "rattler"
        self.shelves = []
        self.variables = dict(CONDA_PKGS_DIRS=str(self.pkgs), RATTLER_CACHE_DIR=str(self.judged_rattler))
        self.outputs = folder / "outputs"

    def __enter__(self):
        self.environments.mkdir(parents=True)
        return self

    def __exit__(self, *_):
        pass

    def command(self, i, args):
        return args

    def settle(self):
        pass

    def verify(self):
        return None


class Mounted:
    name = "condafs"

    def __init__(self, folder, condafs, progress):
        self.condafs, self.progress = str(condafs), progress
        self.point, self.store, self.log = folder / "mnt", folder / "store", folder / "daemon.log"
        self.environments = folder / "envs"
        self.pkgs = self.point / "pkgs"
        # Judged is the newest snapshot: what the store keeps, not what a session sees.
        self.judged_pkgs, self.judged_rattler = self.point / ".head" / "pkgs", self.point / ".head" / "rattler"
        self.outputs = folder / "outputs"

    def __enter__(self):
        self.environments.mkdir(parents=True)
        self.point.mkdir()
        self._condafs("mount", "--store", self.store, "--log-file", self.log, self.point)
        self.variables = json.loads(self._condafs("env", "--json"))
        self.shelves = self.variables["CONDA_PKGS_DIRS"].split(",")[1:]
        return self

    def __exit__(self, *_):
        self.progress.step("condafs: unmounting")
        self._condafs("umount", self.point)
        log = self.log.read_text(errors="replace")
        if found := re.search("WARNING: DATA RACE|panic", log):
            raise SystemExit(f"the daemon's log:\n{log[found.start():][:5000]}")

    def command(self, i, args):
        """Every second conda runs under `condafs run`; the other clients just use the mount."""
        return args if i % 2 == 0 else [self.condafs, "run", "--mount", str(self.point), "--", *args]

    def settle(self):
        """Returns when all sessions have ended: then what clients made has been committed or dropped."""
        self.progress.step("condafs: waiting for the sessions to end")
        until = time.monotonic() + PATIENCE
        while sessions := json.loads(self._condafs("sessions", "--json")):
            if time.monotonic() > until:
                raise SystemExit(f"sessions that do not end: {sessions}")
            time.sleep(0.1)

    def verify(self):
        """Hashes everything in the store again. Returns "" or what is wrong."""
        self.progress.step("condafs: hashing everything in the store again")
        done = self._start("verify", "--full", "--json")
        try:
            report = json.loads(done.stdout)
        except ValueError:
            return done.stderr.strip() or f"exit status {done.returncode}"
        if done.returncode == 0 and not report["problems"] and report["full"] and report["hashed"] == report["blobs"] > 0:
            return ""
        return json.dumps(report)

    def _start(self, *args):
        return subprocess.run(
            [self.condafs, *map(str, args)], env=dict(os.environ, CONDAFS_MOUNT=str(self.point)),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def _condafs(self, *args):
        done = self._start(*args)
        if done.returncode != 0:
            raise SystemExit(f"condafs {args[0]} ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout


def run(side, column, n, tools, truth, server, progress):
    """Two rounds on one side: cold, and warm with a cleaner beside. At the end everything in the store is hashed again."""
    before = server.state.bytes
    for round_ in ("cold", "warm"):
        clients = fleet(n, side, round_, tools["python"], tools["channel"], server.url)
        beside = ""
        if round_ == "warm":
            clients.append(cleaner(side, tools["python"]))
            beside = ", conda clean beside them"
        progress.step(f"{side.name}: {n} clients at once, {round_}{beside}", lambda: ended(clients))
        column.seconds += at_once(clients, side.outputs / round_)
        side.settle()
        progress.step(f"{side.name}: judging every byte", lambda: f"{column.environments} environments")
        column.judge_clients(truth, clients)
        # After a cleaning nothing must be there any more, but what is there must be right.
        expected = ([], []) if round_ == "warm" else (CONDA_SPECS.split(","), RATTLER_SPECS.split(","))
        column.judge_caches(truth, side.judged_pkgs, side.judged_rattler, *expected)
        for shelf in side.shelves:
            column.judge_caches(truth, shelf, shelf, [], [])
    column.megabytes = (server.state.bytes - before) / 1e6
    column.head = side.verify()
