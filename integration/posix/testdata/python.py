"""Runs CPython's own test_os, test_shutil and test_tempfile, and prints for each case: case, name, verdict, message."""

import sys
import unittest

MODULES = "test.test_tempfile", "test.test_shutil", "test.test_os"
# With --quick, what takes longest and asks least of the file system is left out.
SLOW = "URandom", "Spawn", "Exec", "TerminalSize", "PublicAPI", "Getrandom", "Sendfile", "Win32", "NonPortable", "Environ", "many"


class Result(unittest.TestResult):
    def report(self, test, verdict, message=""):
        name = test.id().replace("unittest.loader.", "").replace("\t", " ")
        print("case", name, verdict, message.replace("\n", " | ").replace("\t", " "), sep="\t", file=sys.__stdout__, flush=True)

    def addSuccess(self, test):
        self.report(test, "pass")

    def addSkip(self, test, reason):
        self.report(test, "skip", reason)

    def addFailure(self, test, error):
        self.report(test, "fail", self._exc_info_to_string(error, test))

    addError = addFailure

    def addExpectedFailure(self, test, error):
        self.report(test, "pass")

    def addSubTest(self, test, subtest, error):
        if error is not None:
            self.addFailure(test, error)


def cases(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from cases(test)
        else:
            yield test


def main():
    quick = "--quick" in sys.argv
    suite = unittest.TestSuite()
    for module in MODULES:
        for test in cases(unittest.defaultTestLoader.loadTestsFromName(module)):
            if not quick or not any(word in test.id() for word in SLOW):
                suite.addTest(test)
    suite.run(Result())


if __name__ == "__main__":
    main()
