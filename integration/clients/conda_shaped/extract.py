"""Extraction in a process pool, as conda does since it found zstd to hold the interpreter's lock; threads on request."""

from __future__ import annotations

import os
import tarfile

from . import die


def extract(archive, folder, die_at=None):
    """Runs in a worker process: imports nothing of the client but this."""
    import conda_package_handling.api

    if die_at:
        die.arm(die_at)
        count = 0
        original = tarfile.TarFile._extract_member

        def counting(self, *args, **kwargs):
            nonlocal count
            count += 1
            die.at("extract", folder, count > 8)
            return original(self, *args, **kwargs)

        tarfile.TarFile._extract_member = counting
    conda_package_handling.api.extract(os.fspath(archive), dest_dir=os.fspath(folder))
