package posix

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"condafs/internal/longrun"
)

var (
	long  = flag.Duration("long", 0, "how long fsx and stress-ng go on")
	write = flag.Bool("write", false, "write the figures into POSIX.md")
	child = flag.Bool("posixtest", false, "be the process that runs go-fuse's cases, in the current directory")
)

// scratch holds the binary, the stores and the native directory. Other users work below it.
var scratch string

func TestMain(m *testing.M) {
	flag.Parse()
	if *child {
		os.Exit(m.Run())
	}
	unix.Umask(0o022)
	status, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "FAIL:", err)
		status = 1
	}
	os.Exit(status)
}

func run(m *testing.M) (status int, err error) {
	if scratch, err = os.MkdirTemp("", "posix-"); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	if err := os.Chmod(scratch, 0o755); err != nil {
		return 1, err
	}
	if *write && !longrun.Wanted() {
		return 1, errors.New("-write: the figures are those of whole suites, with CONDAFS_LONG")
	}
	ready, err := places()
	if err != nil {
		return 1, err
	}
	status = m.Run()
	for _, p := range ready {
		err = errors.Join(err, p.end())
	}
	if status == 0 && err == nil && *write {
		err = writeFigures()
	}
	return status, err
}
