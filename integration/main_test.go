package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"condafs/internal/longrun"
	"condafs/internal/racetest"
)

// scratch is where this run builds its binary.
var scratch string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) (status int) {
	// Modes of what clients make must not depend on who runs the tests.
	unix.Umask(0o022)
	err := racetest.Children()
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

// raced are the arguments of a build with the race detector, but for the decoders of compressed data: others' code, used by one
// goroutine at a time, which the detector would make take most of the tests' time.
var raced = []string{"-race", "-gcflags=compress/...=-race=false", "-gcflags=github.com/klauspost/compress/...=-race=false"}

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
	raceErr := build(raced...)
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
	clients, err := filepath.Abs("clients")
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("python3", filepath.Join(clients, "prepare.py"), "--size", channelSize())
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, stderr.String())
	}
	var made struct{ Python, Channel string }
	if err := json.Unmarshal(out, &made); err != nil {
		return nil, fmt.Errorf("%s printed %q: %w", strings.Join(cmd.Args, " "), out, err)
	}
	return &tools{made.Python, clients, made.Channel}, nil
})

func channelSize() string {
	if size := os.Getenv("CONDAFS_TEST_CHANNEL"); size != "" {
		return size
	}
	if !longrun.Wanted() {
		return "tiny"
	}
	return "quick"
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
