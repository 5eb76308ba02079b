package integration

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// scratch is where this run builds its binary.
var scratch string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) (status int) {
	// Modes of what clients make must not depend on who runs the tests.
	unix.Umask(0o022)
	// A race shows in the exit status too; and no process is to wait a second at its end, as they do by default.
	err := os.Setenv("GORACE", "exitcode=66 atexit_sleep_ms=0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if scratch, err = os.MkdirTemp("", "condafs-integration-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	// Other users run the binary, too.
	if err := os.Chmod(scratch, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() {
		if err := os.RemoveAll(scratch); err != nil {
			fmt.Fprintln(os.Stderr, err)
			status = 1
		}
	}()
	return m.Run()
}

// binary builds condafs, with the race detector where that works.
var binary = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("CONDAFS_TEST_BINARY"); path != "" {
		return filepath.Abs(path)
	}
	path := filepath.Join(scratch, "condafs")
	build := func(args ...string) error {
		cmd := exec.Command("go", append(append([]string{"build"}, args...), "-o", path, "condafs/cmd/condafs")...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out)
		}
		return nil
	}
	raceErr := build("-race")
	if raceErr == nil {
		return path, nil
	}
	if err := build(); err != nil {
		return "", errors.Join(raceErr, err)
	}
	return path, nil // no C compiler here: without the race detector then
})

// tools is the Python side: an interpreter with the clients' requirements, and the channel.
type tools struct {
	python  string
	clients string // directory of the Python programs
	channel string // directory of the channel
}

var python = sync.OnceValues(func() (*tools, error) {
	cache := os.Getenv("CONDAFS_TEST_CACHE")
	if cache == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("set CONDAFS_TEST_CACHE: %w", err)
		}
		cache = filepath.Join(base, "condafs-test")
	}
	clients, err := filepath.Abs("clients")
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, err
	}
	// Several test binaries may run at once.
	lock, err := os.OpenFile(filepath.Join(cache, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return nil, err
	}
	t := &tools{clients: clients}
	if t.python, err = makeVenv(cache, filepath.Join(clients, "requirements.txt")); err != nil {
		return nil, err
	}
	t.channel, err = makeChannel(t.python, cache, filepath.Join(clients, "channel.py"))
	return t, err
})

// makeVenv makes the virtual environment unless one for these very requirements is there.
func makeVenv(cache, requirements string) (string, error) {
	dir, err := keyed(cache, "venv", requirements)
	if err != nil {
		return "", err
	}
	python := filepath.Join(dir, "bin", "python")
	err = once(dir, func() error {
		if err := command("python3", "-m", "venv", dir); err != nil {
			return err
		}
		return command(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements)
	})
	return python, err
}

func makeChannel(python, cache, program string) (string, error) {
	size := os.Getenv("CONDAFS_TEST_CHANNEL")
	if size == "" {
		size = "quick"
		if testing.Short() {
			size = "tiny"
		}
	}
	dir, err := keyed(cache, "channel-"+size, program)
	if err != nil {
		return "", err
	}
	return dir, once(dir, func() error { return command(python, program, dir, "--size", size) })
}

// keyed names a directory after the contents of the file that it is made from.
func keyed(cache, name, source string) (string, error) {
	b, err := os.ReadFile(source)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return filepath.Join(cache, fmt.Sprintf("%s-%x", name, sum[:6])), nil
}

// once makes dir, unless that has succeeded before. What failed half-way is made anew.
func once(dir string, make func() error) error {
	done := dir + ".done"
	if _, err := os.Stat(done); err == nil {
		return nil
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := make(); err != nil {
		return err
	}
	return os.WriteFile(done, nil, 0o644)
}

func command(name string, args ...string) error {
	cmd := exec.Command(name, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out.String())
	}
	return nil
}

func needTools(t *testing.T) *tools {
	t.Helper()
	p, err := python()
	if err != nil {
		t.Fatalf("make the Python clients ready: %v", err)
	}
	return p
}

func needBinary(t *testing.T) string {
	t.Helper()
	b, err := binary()
	if err != nil {
		t.Fatalf("build condafs: %v", err)
	}
	return b
}
