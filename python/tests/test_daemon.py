"""The package against a real daemon: $CONDAFS_TEST_MOUNT is its mount point, $CONDAFS_TEST_URL a channel, $CONDAFS_TEST_BINARY the program."""

import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import unittest
from datetime import timedelta
from unittest import mock

import condafs

MOUNT = os.environ.get("CONDAFS_TEST_MOUNT", "")
URL = os.environ.get("CONDAFS_TEST_URL", "")
BINARY = os.environ.get("CONDAFS_TEST_BINARY", "")


@unittest.skipUnless(MOUNT, "there is no daemon")
class Daemon(unittest.TestCase):
    def setUp(self):
        env = mock.patch.dict(os.environ)
        env.start()
        self.addCleanup(env.stop)
        for name in ("CONDAFS_MOUNT", "CONDAFS_SESSION", "CONDAFS_SOCKET"):
            os.environ.pop(name, None)
        dir = tempfile.TemporaryDirectory()
        self.addCleanup(dir.cleanup)
        self.dir = pathlib.Path(dir.name)

    def note(self, name):
        """A plain file of the cache, as seen by this process."""
        return pathlib.Path(MOUNT, "pkgs", name)

    def in_head(self, name):
        return pathlib.Path(MOUNT, ".head", "pkgs", name).exists()

    def python(self, s, code):
        return s.run([sys.executable, "-c", "import condafs\n" + code], stdout=subprocess.PIPE, text=True).stdout.strip()


class Asking(Daemon):
    def test_status(self):
        s = condafs.status(MOUNT)
        self.assertEqual((s.mount_point, s.owner), (MOUNT, os.getuid()))
        self.assertGreater(s.pid, 0)
        self.assertEqual(s.started.utcoffset().total_seconds(), 0)

    def test_finding_the_mount(self):
        os.environ["CONDAFS_MOUNT"] = MOUNT
        self.assertEqual(condafs.find().point, MOUNT)
        link = self.dir / "link"
        link.symlink_to(MOUNT)
        self.assertEqual(condafs.find(link), condafs.find(MOUNT))

    def test_no_mount_there(self):
        with self.assertRaises(condafs.NotMountedError) as e:
            condafs.status(self.dir)
        self.assertEqual(str(e.exception), f"find the daemon of {self.dir}: no condafs is mounted there; `condafs mount {self.dir}` starts one")

    def test_what_is_not_there(self):
        with self.assertRaises(condafs.NotFoundError) as e:
            condafs.commit("nosuch", MOUNT)
        self.assertEqual((e.exception.kind, e.exception.name, e.exception.hint), ("not found", "nosuch", "`condafs sessions` lists the live ones"))
        with self.assertRaises(condafs.UsageError):
            condafs.discard("no/such", MOUNT)
        with self.assertRaises(condafs.NotFoundError):
            condafs.Client.at(MOUNT).package("nosuch-1-0")

    def test_check_and_collection(self):
        c = condafs.Client.at(MOUNT)
        self.assertEqual(c.verify(full=True).problems, [])
        self.assertTrue(c.gc(dry_run=True, max_size=1 << 40, max_age=timedelta(days=300)).dry_run)
        with self.assertRaises(condafs.UsageError):
            c.gc(dry_run=True, min_free=-1)

    def test_conda_in_a_session_and_what_comes_of_it(self):
        with condafs.session(MOUNT, label="python test") as s:
            s.run([sys.executable, "-m", "conda_shaped", "install", "--json", "--channel", URL, "--prefix", str(self.dir / "env"),
                   "--extract", "thread", "lib00"], stdout=subprocess.DEVNULL, timeout=90)
        package = next(p for p in condafs.packages(MOUNT) if p.name.startswith("lib00-"))
        self.assertEqual((package.trust, package.extracted, package.owner), ("verified", True, os.getuid()))
        published = [line for c in s.commits() for line in c.what]
        self.assertTrue(any(package.name in line for line in published), published)
        self.assertEqual(package.archive.sha256, package.sha256)
        c = condafs.Client.at(MOUNT)
        files = {f.path: f for f in c.package(package.name).entries}
        self.assertEqual((files["info/index.json"].type, len(files["info/index.json"].blake3)), ("file", 64))
        self.assertEqual({r.label for r in c.log() if r.session == s.id}, {"python test"})
        seen = []
        out = self.dir / "out"
        out.mkdir()
        exported = c.export_packages(out, [package.name], progress=seen.append)
        self.assertTrue(seen and exported.exported, exported)
        self.assertTrue((out / package.name / "info" / "index.json").exists())
        self.assertGreaterEqual(c.import_packages(out).present, 1)


class Sessions(Daemon):
    def test_a_block_that_ends_well_commits(self):
        with condafs.session(MOUNT, label="a block") as s:
            self.note("well.txt").write_text("x")
            mine = next(i for i in condafs.sessions(MOUNT) if i.id == s.id)
            self.assertEqual((mine.label, mine.explicit, mine.members, mine.state), ("a block", True, [os.getpid()], "active"))
            self.assertFalse(self.in_head("well.txt"))
        self.assertIn("pkgs/well.txt", [c.path for c in s.report.committed])
        self.assertTrue(self.in_head("well.txt"))

    def test_the_environment(self):
        with condafs.session(MOUNT) as s:
            dirs = s.env["CONDA_PKGS_DIRS"].split(",")
            self.assertEqual(dirs[0], MOUNT + "/pkgs")
            self.assertTrue(os.path.lexists(os.path.join(dirs[1], "urls.txt")))
            self.assertEqual((s.env["RATTLER_CACHE_DIR"], s.env["CONDAFS_SESSION"]), (MOUNT + "/rattler", s.id))
            self.assertNotIn("CONDAFS_SESSION", os.environ)
            out = s.run(["sh", "-c", 'echo "$X $CONDAFS_SESSION"; readlink "$CONDAFS_MOUNT/pkgs"'], env={"X": "1"}, stdout=subprocess.PIPE, text=True).stdout
            self.assertEqual(out.splitlines()[0], f"1 {s.id}")
            self.assertIn(s.id, out.splitlines()[1])
        with condafs.session(MOUNT, shelf=False) as s:
            self.assertEqual(s.env["CONDA_PKGS_DIRS"], MOUNT + "/pkgs")

    def test_a_block_that_fails(self):
        for how in ("keep-units", "discard", "keep"):
            with self.subTest(how):
                with self.assertRaises(subprocess.CalledProcessError):
                    with condafs.session(MOUNT, on_failure=how) as s:
                        self.note(f"fails-{how}.txt").write_text("x")
                        s.run(["sh", "-c", "exit 3"])
                self.assertFalse(self.in_head(f"fails-{how}.txt"))
                left = [i for i in condafs.sessions(MOUNT) if i.id == s.id and i.state == "kept"]
                self.assertEqual(len(left), how == "keep")
        condafs.commit(s.id, MOUNT)
        self.assertTrue(self.in_head("fails-keep.txt"))

    def test_ephemeral(self):
        with condafs.session(MOUNT, ephemeral=True) as s:
            self.note("ephemeral.txt").write_text("x")
            with self.assertRaises(condafs.UsageError):
                s.commit()
        self.assertFalse(self.in_head("ephemeral.txt"))

    def test_commit_and_discard_within(self):
        with condafs.session(MOUNT) as s:
            self.note("early.txt").write_text("x")
            self.assertIn("pkgs/early.txt", [c.path for c in s.commit().committed])
            self.assertTrue(self.in_head("early.txt"))
            self.note("never.txt").write_text("x")
            s.discard()
            with self.assertRaises(condafs.NotFoundError):
                s.commit()
        self.assertFalse(self.in_head("never.txt"))
        with condafs.session(MOUNT):  # the process is free for another one
            pass

    def test_one_at_a_time(self):
        got = []

        def other():
            try:
                with condafs.session(MOUNT):
                    pass
            except condafs.CondafsError as e:
                got.append(e)

        with condafs.session(MOUNT) as s:
            t = threading.Thread(target=other)
            t.start()
            t.join()
            self.assertEqual(self.python(s, f"with condafs.session({MOUNT!r}, new=True) as s: print(s.joined)"), "False")
            self.assertIn(s.id, [i.id for i in condafs.sessions(MOUNT)])
        self.assertIsInstance(got[0], condafs.BusyError)
        self.assertIn("multiprocessing", got[0].hint)

    def test_a_block_within_joins(self):
        with condafs.session(MOUNT) as s:
            self.assertEqual(self.python(s, "with condafs.session() as t: print(t.id, t.joined, t.env['CONDAFS_SESSION'])"), f"{s.id} True {s.id}")
            self.assertIn(s.id, [i.id for i in condafs.sessions(MOUNT)])

    def test_a_forked_child_does_not_end_it(self):
        with condafs.session(MOUNT) as s:
            pid = os.fork()
            if pid == 0:
                s.__exit__(None, None, None)
                os._exit(0)
            os.waitpid(pid, 0)
            self.assertEqual([i.state for i in condafs.sessions(MOUNT) if i.id == s.id], ["active"])

    def test_under_condafs_run(self):
        code = (
            "import condafs, os\n"
            "with condafs.session() as s: print(s.joined, s.id == os.environ['CONDAFS_SESSION'], condafs.status().mount_point)\n"
            "try:\n"
            "    with condafs.session(new=True) as s: print(s.joined)\n"
            "except condafs.CondafsError as e: print(e.kind)\n"
        )
        out = subprocess.run([BINARY, "run", "--mount", MOUNT, "--", sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
        self.assertEqual(out[0], f"True True {MOUNT}")
        self.assertIn(out[1], ("unsupported", "False"))  # in a private namespace only that one session is to be seen

    def test_misuse(self):
        with self.assertRaises(condafs.UsageError):
            condafs.session(MOUNT, on_failure="perhaps")
        s = condafs.session(MOUNT, label="tab\there")
        with self.assertRaises(condafs.UsageError):
            s.env
        with self.assertRaises(condafs.UsageError) as e:  # the daemon says so
            s.__enter__()
        self.assertIn("control character", str(e.exception))
        with condafs.session(MOUNT) as s:
            with self.assertRaises(condafs.UsageError):
                s.__enter__()


if __name__ == "__main__":
    unittest.main()
