"""conda's lock: one byte of the file itself, tried ten times, a second apart. Closing any handle of the file lets it go."""

import fcntl
import time
from contextlib import contextmanager

from .errors import LockError

LOCK_BYTE = 21
ATTEMPTS = 10


@contextmanager
def lock(f):
    for attempt in range(ATTEMPTS):
        try:
            fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, LOCK_BYTE)
            break
        except OSError as e:
            if attempt > ATTEMPTS - 2:
                raise LockError("Failed to acquire lock.") from e
            time.sleep(1)
    try:
        yield
    finally:
        try:
            fcntl.lockf(f, fcntl.LOCK_UN, 1, LOCK_BYTE)
        except OSError as e:
            raise LockError("Failed to release lock.") from e
