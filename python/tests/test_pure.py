"""What needs no daemon."""

import doctest
import importlib
import os
import pathlib
import subprocess
import unittest
from datetime import datetime, timezone

import condafs
from condafs import _errors, _mount, _session, _types

MODULES = ["condafs", "condafs._errors", "condafs._types", "condafs._mount", "condafs._client", "condafs._session", "condafs.conda_plugin"]


def load_tests(loader, tests, pattern):
    for name in MODULES:
        tests.addTests(doctest.DocTestSuite(importlib.import_module(name)))
    return tests


class Errors(unittest.TestCase):
    def test_the_daemons_errors_keep_their_meaning(self):
        e = _errors.from_wire({"op": "import", "name": "/d", "kind": "corrupt", "message": "bad bytes", "hint": "look"})
        self.assertIsInstance(e, condafs.CorruptError)
        self.assertEqual((str(e), e.kind, e.hint), ("import /d: bad bytes; look", "corrupt", "look"))

    def test_a_kind_without_a_cause_says_itself(self):
        self.assertEqual(str(_errors.from_wire({"op": "session", "name": "x", "kind": "not found"})), "session x: not found")

    def test_kinds_of_a_newer_daemon(self):
        e = _errors.from_wire({"kind": "of tomorrow", "message": "m"})
        self.assertIs(type(e), condafs.CondafsError)
        self.assertEqual(e.kind, "of tomorrow")


class Answers(unittest.TestCase):
    def test_null_and_missing_are_zero(self):
        self.assertEqual(_types.build(condafs.Report, {"head": 3, "committed": None}), condafs.Report(head=3))

    def test_nested(self):
        p = _types.build(condafs.PackageFiles, {"name": "a-1-0", "archive": {"size": 7}, "entries": [{"path": "bin/a", "later": {}}]})
        self.assertEqual((p.archive.size, p.entries[0].path), (7, "bin/a"))

    def test_what_is_not_of_its_type_is_an_error(self):
        for wrong in ({"head": "3"}, {"head": True}, {"committed": {}}, []):
            with self.subTest(wrong), self.assertRaises(ValueError):
                _types.build(condafs.Report, wrong)

    def test_times(self):
        utc = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
        for text, micros in (("2026-01-02T03:04:05Z", 0), ("2026-01-02T04:04:05.5+01:00", 500000), ("2026-01-02T01:04:05.000001-02:00", 1)):
            self.assertEqual(_types.parse_time(text), utc.replace(microsecond=micros))
        with self.assertRaises(ValueError):
            _types.parse_time("yesterday")


class Ends(unittest.TestCase):
    def test_exit_codes_are_a_shells(self):
        for failure, code in (
            (None, 0), (ValueError(), 1), (KeyboardInterrupt(), 130), (SystemExit(), 0), (SystemExit(3), 3), (SystemExit(-1), 255),
            (SystemExit("why"), 1), (subprocess.CalledProcessError(4, "x"), 4), (subprocess.CalledProcessError(-9, "x"), 137),
        ):
            with self.subTest(repr(failure)):
                self.assertEqual(_session.exit_code(failure), code)


class Mounts(unittest.TestCase):
    def test_list_of_mounts(self):
        text = (
            "9 1 0:50 / /mnt/c rw shared:1 - fuse.condafs condafs rw\n"
            "9 1 0:50 /.sessions/x /mnt/c rw - fuse.condafs condafs rw\n"
            "9 1 0:51 / /mnt/o rw - fuse.other other rw\nnonsense\n"
            "9 1 0:52 / /mnt/d\\011e rw - fuse.condafs condafs rw\n"
        )
        self.assertEqual(_mount.parse_mounts(text), ["/mnt/c", "/mnt/d\te"])


class Package(unittest.TestCase):
    def test_all_that_is_exported_is_there(self):
        self.assertEqual([n for n in condafs.__all__ if not hasattr(condafs, n)], [])

    def test_it_is_typed(self):
        self.assertTrue((pathlib.Path(condafs.__file__).parent / "py.typed").exists())

    def test_the_entry_point_is_the_plugin(self):
        text = (pathlib.Path(__file__).parent.parent / "pyproject.toml").read_text()
        self.assertIn('[project.entry-points.conda]\ncondafs = "condafs.conda_plugin"\n', text)
        self.assertTrue(os.path.exists(os.path.join(os.path.dirname(condafs.__file__), "conda_plugin.py")))
        self.assertIn(f'version = "{condafs.__version__}"', text)


if __name__ == "__main__":
    unittest.main()
