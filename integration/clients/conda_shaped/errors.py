"""Errors that a user of conda would see, by conda's names."""


class CondaError(Exception):
    pass


class CondaHTTPError(CondaError):
    def __init__(self, url, status):
        super().__init__(f"HTTP {status} for {url}")
        self.status = status


class LockError(CondaError):
    pass


class ChecksumMismatchError(CondaError):
    def __init__(self, url, kind, expected, actual, partial_download):
        super().__init__(f"{kind} of {url} is {actual}, expected {expected}")
        self.partial_download = partial_download


class NotWritableError(CondaError):
    pass


class NoWritablePkgsDirError(CondaError):
    pass


class CondaVerificationError(CondaError):
    pass


class SafetyError(CondaError):
    pass


class ClobberError(CondaError):
    pass


class CondaMultiError(CondaError):
    def __init__(self, errors):
        super().__init__("; ".join(f"{type(e).__name__}: {e}" for e in errors))
        self.errors = errors


class CondaExitZero(CondaError):
    """conda turns a SystemExit out of its transaction into this, whose exit status is 0."""
