//go:build condafs_faults

package failpoint

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestParse(t *testing.T) {
	for _, bad := range []string{"x", "x=", "x=boom", "x=kill@0", "x=kill@", "x=delay:soon", "x=ENOENT"} {
		if r, err := parse(bad); err == nil {
			t.Errorf("%s: %+v", bad, r[0])
		}
	}
	rules, err := parse("a=kill b=EIO@2 c=delay:3ms@4+ d=fsync:/x")
	if err != nil || len(rules) != 4 {
		t.Fatal(err)
	}
	if r := rules[2]; r.point != "c" || r.delay != 3*time.Millisecond || r.from != 4 || !r.sticky {
		t.Errorf("%+v", r)
	}
}

func TestCounts(t *testing.T) {
	var got []bool
	for _, spec := range []string{"p=EIO@2", "p=EIO@2+"} {
		rules, err := parse(spec)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			got = append(got, rules[0].due())
		}
	}
	if want := []bool{false, true, false, false, true, true}; !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

func TestSetIsForOneStore(t *testing.T) {
	full := func(Point) error { return unix.ENOSPC }
	unset := Set("/store/a", full)
	if err := Err(BlobReady, "/store/a/sessions/x"); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("err = %v", err)
	}
	if err := Err(BlobReady, "/store/b"); err != nil {
		t.Errorf("another store: %v", err)
	}
	unset()
	if err := Err(BlobReady, "/store/a"); err != nil {
		t.Errorf("not armed any more: %v", err)
	}
}

// The environment arms a whole process, which dies at the second pass and leaves word
// of what it has passed.
func TestKill(t *testing.T) {
	if os.Getenv("CONDAFS_FAILPOINT_CHILD") != "" {
		for _, p := range []Point{GCMarked, GCRemove, GCMarked, GCSwept} {
			Hit(p, "/anywhere")
		}
		return
	}
	log := filepath.Join(t.TempDir(), "log")
	cmd := exec.Command(os.Args[0], "-test.run", "TestKill$")
	cmd.Env = append(os.Environ(), "CONDAFS_FAILPOINT_CHILD=1", armEnv+"=gc.marked=kill@2", logEnv+"="+log)
	err := cmd.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != unix.SIGKILL {
		t.Fatalf("it ended with %v", err)
	}
	b, err := os.ReadFile(log)
	if want := "gc.marked\ngc.remove\nkill gc.marked\n"; err != nil || string(b) != want {
		t.Errorf("the log is %q, %v", strings.TrimSpace(string(b)), err)
	}
}
