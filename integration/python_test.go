package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"condafs/internal/longrun"
)

// pythonDir is where the Python package lies.
func pythonDir(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../python")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// The package's own tests, against a real daemon. Without conda: tests/stubs stands for its plugin hooks.
func TestPythonPackage(t *testing.T) {
	s, m, dir := serve(t), newMount(t), pythonDir(t)
	c := pythonClient(t, "the tests of python/", "-m", "unittest", "discover", "-t", dir, "-s", filepath.Join(dir, "tests"))
	c.cmd.Dir = dir
	paths := []string{dir, filepath.Join(dir, "tests", "stubs"), needTools(t).clients}
	c.cmd.Env = append(c.cmd.Env, "PYTHONPATH="+strings.Join(paths, ":"),
		"CONDAFS_TEST_MOUNT="+m.point, "CONDAFS_TEST_URL="+s.url, "CONDAFS_TEST_BINARY="+m.bin)
	c.start(t)
	c.wait(t)
	if c.err != nil || !strings.Contains(c.stderr.String(), "\nOK\n") { // nothing was skipped
		t.Fatalf("%v\n%s", c.err, tail(c.stderr.String()))
	}
	m.settle()
	m.mustBeIntact()
}

// The plugin in a real conda, which finds it by its entry point.
func TestCondaPlugin(t *testing.T) {
	python := os.Getenv("CONDAFS_TEST_CONDA")
	if python == "" {
		if longrun.Wanted() {
			t.Log("there is no conda; CONDAFS_TEST_CONDA names a Python interpreter that has it")
		}
		t.Skip("it needs a conda: CONDAFS_TEST_CONDA names a Python interpreter that has it")
	}
	m, dir := newMount(t), testDir(t)
	out, err := exec.Command(needTools(t).python, "-m", "pip", "install", "--quiet", "--no-deps", "--target", dir, pythonDir(t)).CombinedOutput()
	if err != nil {
		t.Fatalf("install the package: %v\n%s", err, out)
	}
	prefix := filepath.Join(dir, "env")
	if err := os.MkdirAll(filepath.Join(prefix, "conda-meta"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(prefix, "conda-meta", "history"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	conda := func(env []string, args ...string) string {
		t.Helper()
		cmd := exec.Command(python, append([]string{"-m", "conda"}, args...)...)
		cmd.Env = append(os.Environ(), "HOME="+dir, "CONDARC=/dev/null", "CONDA_OFFLINE=true", "CONDA_SOLVER=classic",
			"PYTHONPATH="+dir+":"+os.Getenv("PYTHONPATH"))
		cmd.Env = append(cmd.Env, env...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Logf("%s: %v", strings.Join(cmd.Args, " "), err) // what it says is looked at
		}
		return string(out)
	}
	on := []string{"CONDA_PKGS_DIRS=" + m.pkgs()}
	off := []string{"CONDA_PKGS_DIRS=" + filepath.Join(dir, "pkgs"), "CONDAFS_MOUNT=" + m.point}
	for _, x := range []struct {
		what string
		said string
		want string
	}{
		{"status", conda(on, "condafs", "status"), m.store},
		{"help", conda(on, "--help"), "condafs"},
		{"doctor", conda(on, "doctor", "--prefix", prefix), "condafs: the package cache is on " + m.point},
		{"doctor beside the mount", conda(off, "doctor", "--prefix", prefix), "is not on a condafs mount"},
		{"create beside the mount", conda(off, "create", "--yes", "--prefix", filepath.Join(dir, "made")), "condafs: warning: conda takes packages from"},
	} {
		if !strings.Contains(x.said, x.want) {
			t.Errorf("%s: no %q in\n%s", x.what, x.want, x.said)
		}
	}
	if said := conda(on, "create", "--yes", "--prefix", filepath.Join(dir, "right")); strings.Contains(said, "warning: conda takes") {
		t.Errorf("a warning although the cache is on the mount:\n%s", said)
	}
}
