//go:build condafs_faults

package index

import (
	"bufio"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"condafs/internal/failpoint"
	"condafs/internal/longrun"
)

// What the child of these tests passes: all of this package's points but those of links,
// records and an orderly end, which the engine's and the daemon's tests pass.
var indexPoints = []failpoint.Point{
	failpoint.IdentityWritten, failpoint.IdentityRenamed,
	failpoint.OpenDirs, failpoint.OpenDatabase, failpoint.OpenRecovered, failpoint.OpenMarked,
	failpoint.BlobStaged, failpoint.BlobReady, failpoint.BlobRenamed, failpoint.BlobDuplicate,
	failpoint.JournalBegun, failpoint.JournalWrite,
	failpoint.JournalWrite, failpoint.CommitBegin, failpoint.CommitSync, failpoint.CommitSynced, failpoint.CommitTrees, failpoint.CommitWritten, failpoint.CommitShown,
	failpoint.RedoStored, failpoint.RedoDecided, failpoint.RedoApplied, failpoint.RedoLast,
	failpoint.GCMarked, failpoint.GCRemove, failpoint.GCSwept, failpoint.GCForget, failpoint.GCForgot,
}

// A child is killed at each point, at a random pass of it, on a new store or on what the
// last one left. Where it died in a redo, the next one dies when it takes that up.
func TestKilledAtPoints(t *testing.T) {
	points := indexPoints
	if !longrun.Wanted() {
		points = nil
		for _, i := range rand.Perm(len(indexPoints))[:3] {
			points = append(points, indexPoints[i])
		}
	}
	dir, last, life := memDir(t), make(map[string]string), 0
	kill := func(p failpoint.Point, pass int) {
		t.Helper()
		life++
		killAt(t, dir, life, fmt.Sprintf("%s=kill@%d", p, pass), last)
	}
	for _, p := range points {
		if strings.HasPrefix(string(p), "identity.") || rand.IntN(3) == 0 {
			dir, last = memDir(t), make(map[string]string)
		}
		t.Run(string(p), func(t *testing.T) {
			pass := 1
			if !strings.HasPrefix(string(p), "identity.") && !strings.HasPrefix(string(p), "open.") && p != failpoint.JournalBegun {
				pass += rand.IntN(4)
			}
			kill(p, pass)
			if strings.HasPrefix(string(p), "redo.") && p != failpoint.RedoStored {
				kill(failpoint.RedoRepeat, 1)
			}
			s, err := Open(dir, Options{Logger: quiet})
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(checkAfterCrash(s, last), s.Close()); err != nil {
				t.Errorf("killed at pass %d: %v", pass, err)
			}
		})
	}
}

// killAt runs a child that dies by what it is armed with, and adds what it said.
func killAt(t *testing.T, dir string, life int, spec string, said map[string]string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashEnv+"="+dir, lifeEnv+"="+fmt.Sprint(life), "CONDAFS_FAILPOINTS="+spec)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	now := make(map[string]string)
	for lines := bufio.NewScanner(out); lines.Scan(); {
		word, path, _ := strings.Cut(lines.Text(), " ")
		if word != "done" {
			t.Errorf("the child says %q", lines.Text())
		}
		worker, name, _ := strings.Cut(path, "/")
		now[worker] = name
	}
	maps.Copy(said, now)
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the child was not killed: %v", err)
	}
}
