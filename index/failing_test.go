//go:build condafs_faults

package index

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"condafs/internal/longrun"
	"condafs/internal/lossyfs"
)

// TestFailingDisk lets one operation after the other fail, once, with each errno that a
// disk, a quota or the system can give, while a child commits. The child goes on, or says
// which errno it was; nothing that it had promised is lost, and with the disk well again
// the store works.
func TestFailingDisk(t *testing.T) {
	rounds, late := 40, 6000
	if !longrun.Wanted() {
		rounds, late = 4, 1200
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	p := &cutting{t: t, rng: rand.New(rand.NewPCG(seed, 0)), disk: lossyfs.New(lossyfs.Strict), late: late, promised: make(map[string]string)}
	met := make(map[lossyfs.Kind]int)
	told := 0
	for round := range rounds {
		errno := []unix.Errno{unix.ENOSPC, unix.EIO, unix.EDQUOT, unix.EMFILE}[round%4]
		op, said := p.fail(errno)
		met[op.Kind]++
		if said != "" {
			told++
			// What Badger has mapped is written by the kernel, which knows two errnos only.
			if !strings.Contains(said, errno.Error()) && !strings.Contains(said, unix.EIO.Error()) {
				t.Errorf("%v at %s of %s, and the child says %q", errno, op.Kind, op.Path, said)
			}
		}
		p.disk.Sync()
		if p.check(); t.Failed() {
			t.Fatalf("round %d: %v at %s of %s", round, errno, op.Kind, op.Path)
		}
	}
	t.Logf("failed: %v; the child ended for it %d times; %d commits were kept", met, told, p.commits)
}

// fail lets a child commit until after an operation has failed, and returns which it was
// and what the child said of it.
func (p *cutting) fail(errno unix.Errno) (op lossyfs.Op, said string) {
	t := p.t
	t.Helper()
	mnt := t.TempDir()
	m, err := p.disk.Mount(mnt)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.Unmount(); err != nil {
			t.Error(err)
		}
	}()
	failAt := p.rng.IntN(600)
	if p.rng.IntN(2) == 0 {
		failAt = p.rng.IntN(p.late)
	}
	done := 0
	failed := make(chan lossyfs.Op, 1)
	p.disk.Inject(func(o lossyfs.Op) lossyfs.Verdict {
		if !o.Kind.Changes() {
			return lossyfs.Verdict{}
		}
		if done++; done != failAt+1 {
			return lossyfs.Verdict{}
		}
		failed <- o
		return lossyfs.Verdict{Errno: errno}
	})
	p.boots++
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashEnv+"="+filepath.Join(mnt, "store"), lifeEnv+"="+fmt.Sprint(p.boots))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	const enough = 40
	after := 0 // commits since
	for lines := bufio.NewScanner(out); lines.Scan(); {
		word, rest, _ := strings.Cut(lines.Text(), " ")
		if word == "failed" {
			said = rest
			continue
		}
		if word != "done" {
			said += " " + lines.Text() // more of an error
			continue
		}
		worker, name, _ := strings.Cut(rest, "/")
		p.promised[worker] = name
		p.commits++
		if len(failed) == 0 {
			continue
		}
		if after++; after == enough { // it has got over it
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || said == "" && after < enough {
		t.Errorf("the child ended: %v", err)
	}
	p.disk.Inject(nil)
	if len(failed) == 0 {
		t.Fatal("nothing has failed")
	}
	return <-failed, said
}
