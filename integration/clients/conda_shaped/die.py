"""Ends the client by SIGKILL at a chosen point, for tests of what a dead client leaves. Off unless `--die-at` asks for it.

Points: `download` (half of an archive is written), `extract` (half of a package's files are there), `record` (all files are
there, `repodata_record.json` is not), `link` (half of a package is in the environment), `append` (after urls.txt).
"""

import os
import signal

point, name = None, None


def arm(spec):
    """spec is POINT or POINT:PACKAGE, where PACKAGE is the start of a file or directory name."""
    global point, name
    point, _, name = spec.partition(":")


def at(here, path, reached=True, flush=None):
    if point == here and reached and os.path.basename(str(path)).startswith(name):
        if flush is not None:
            flush.flush()
        os.kill(os.getpid(), signal.SIGKILL)
