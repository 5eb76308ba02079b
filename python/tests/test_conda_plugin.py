"""The plugin, called as conda calls it: by pluggy, with the types of its documentation."""

import argparse
import contextlib
import io
import json
import os
import sys
import unittest
from unittest import mock

import pluggy
from conda.plugins.hookspec import CondaSpecs

import condafs
from condafs import conda_plugin

MOUNT = os.environ.get("CONDAFS_TEST_MOUNT", "")


def hooks():
    manager = pluggy.PluginManager("conda")
    manager.add_hookspecs(CondaSpecs)
    manager.register(conda_plugin)
    manager.check_pending()
    return manager.hook


class Plugin(unittest.TestCase):
    def setUp(self):
        env = mock.patch.dict(os.environ, {"CONDA_PKGS_DIRS": "/nowhere/pkgs"})
        env.start()
        self.addCleanup(env.stop)
        for name in ("CONDAFS_MOUNT", "CONDAFS_SESSION", "CONDAFS_SOCKET"):
            os.environ.pop(name, None)

    def conda(self, *args):
        """Runs `conda condafs ARGS`: its status and what it printed."""
        (command,) = [c for many in hooks().conda_subcommands() for c in many]
        self.assertEqual(command.name, "condafs")
        parser = argparse.ArgumentParser()
        command.configure_parser(parser)
        return self.printed(command.action, parser.parse_args(args))

    def check(self, verbose=False):
        (check,) = [c for many in hooks().conda_health_checks() for c in many]
        return self.printed(check.action, sys.prefix, verbose)[1]

    def warned(self, command="create"):
        (pre,) = [c for many in hooks().conda_pre_commands() for c in many]
        self.assertIn(command, pre.run_for)
        return self.printed(pre.action, command)[2]

    @staticmethod
    def printed(f, *args):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = f(*args)
        return status, out.getvalue(), err.getvalue()


class WithoutDaemon(Plugin):
    def setUp(self):
        super().setUp()
        none = mock.patch("condafs._mount.mount_points", lambda: [])
        none.start()
        self.addCleanup(none.stop)

    def test_commands_say_what_is_wrong(self):
        self.assertEqual(self.conda("status"), (4, "", "condafs: find the mount: no condafs is mounted; `condafs mount MOUNTPOINT` starts one\n"))

    def test_doctor(self):
        self.assertEqual(self.check(), "XX condafs: nothing is mounted; `condafs mount MOUNTPOINT` starts one\n\n")

    def test_nobody_is_warned_who_does_not_use_it(self):
        self.assertEqual(self.warned(), "")
        os.environ["CONDAFS_MOUNT"] = "/mnt/c"
        self.assertIn("nothing is mounted", self.warned())

    def test_conda_is_imported_when_it_calls_only(self):
        self.assertNotIn("conda", condafs.__dict__)
        code = "import sys, condafs; sys.exit('conda' in sys.modules)"
        self.assertEqual(os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", code]), 0)


@unittest.skipUnless(MOUNT, "there is no daemon")
class WithDaemon(Plugin):
    def setUp(self):
        super().setUp()
        # The machine may have others' mounts.
        only = mock.patch("condafs._mount.mount_points", lambda: [MOUNT])
        only.start()
        self.addCleanup(only.stop)

    def test_the_cache_is_not_on_the_mount(self):
        warning = self.warned()
        self.assertIn("/nowhere/pkgs, which is not on a condafs mount", warning)
        self.assertIn(MOUNT, warning)
        self.assertTrue(self.check().startswith("XX condafs: conda takes packages from /nowhere/pkgs"))
        with mock.patch("conda.base.context.context.quiet", True):
            self.assertEqual(self.warned("env_create"), "")

    def test_the_cache_is_on_the_mount(self):
        for dir in ("pkgs", "unshelved"):
            os.environ["CONDA_PKGS_DIRS"] = f"{MOUNT}/{dir},/nowhere/shelf/pkgs"
            self.assertEqual(self.warned(), "")
            self.assertTrue(self.check().startswith(f"OK condafs: the package cache is on {MOUNT}, and its daemon answers."))
        self.assertIn(condafs.status(MOUNT).store, self.check(verbose=True))

    def test_commands(self):
        status, out, err = self.conda("status")
        self.assertEqual((status, err), (0, ""))
        self.assertIn(MOUNT, out)
        self.assertIn("not on a condafs mount", out)
        with self.assertRaises(condafs.NotFoundError), condafs.session(MOUNT, label="seen by conda") as s:  # it is thrown away
            self.assertIn(f"{s.id}  active", self.conda("sessions", "--mount", MOUNT)[1])
            (mine,) = [i for i in json.loads(self.conda("sessions", "--json")[1]) if i["id"] == s.id]
            self.assertEqual(mine["label"], "seen by conda")
            self.assertEqual(self.conda("commit", s.id)[0], 0)
            self.assertEqual(self.conda("discard", s.id), (0, "", ""))
            status, _, err = self.conda("discard", s.id)
            self.assertEqual(status, 1)
            self.assertIn("not found", err)
        self.assertEqual(self.conda("packages")[0], 0)
        self.assertEqual(json.loads(self.conda("status", "--json")[1])["mount_point"], MOUNT)

    def test_a_command_is_needed(self):
        with self.assertRaises(SystemExit), contextlib.redirect_stderr(io.StringIO()):
            self.conda()


if __name__ == "__main__":
    unittest.main()
