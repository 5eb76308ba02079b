package posix

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"condafs/internal/longrun"
)

// fromSystem finds a program that scripts/prerequisites.sh installs.
func fromSystem(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%v: install it (on Debian: apt-get install %s), or run ./test.sh once, which does", err, name)
	}
	return path
}

// fromCrate finds a program in PATH or in the tests' cache, and otherwise has cargo build it there.
func fromCrate(t *testing.T, name, version string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	path := filepath.Join(cacheDir(t), "crates", name+"-"+version, "bin", name)
	if _, err := os.Stat(path); err == nil {
		return path
	}
	if !longrun.Wanted() {
		t.Skipf("%s is not built yet, which takes minutes: CONDAFS_LONG=1 go test ./integration/posix does it once", name)
	}
	cmd := exec.Command("cargo", "install", "--locked", "--root", filepath.Dir(filepath.Dir(path)), name+"@"+version)
	// What is slow in these suites is the file system: a build without optimisation takes a third of the time.
	cmd.Args = append(cmd.Args, "--debug")
	cmd.Env = append(os.Environ(), "CARGO_PROFILE_DEV_DEBUG=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s (it needs cargo and, on Debian, libacl1-dev): %v\n%s", name, err, tail(string(out)))
	}
	return path
}

// cacheDir is where all integration tests keep what they make once (integration/clients/prepare.py).
func cacheDir(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("CONDAFS_TEST_CACHE"); dir != "" {
		return dir
	}
	if os.Getuid() == 0 {
		return "/var/cache/condafs-test"
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "condafs-test")
}

// testdata is the path of a file of ours, for processes that work elsewhere.
func testdata(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}
