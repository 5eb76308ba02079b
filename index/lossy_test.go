//go:build condafs_faults

package index

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"condafs/internal/failpoint"
	"condafs/internal/longrun"
	"condafs/internal/lossyfs"
)

var (
	powerCuts = flag.Int("powercuts", 0, "how many power failures TestPowerCut makes for each model; 0: 3, with CONDAFS_LONG 25")
	powerSeed = flag.Uint64("power-seed", 0, "the seed of TestPowerCut; 0: a new one")
)

// TestPowerCut commits on a file system that loses and tears what was not synced, and
// lets the power fail before any operation of it: also while a store is opened, recovers
// from the last failure, collects garbage or applies a large group. Each time the store
// must open by itself and have what was said to be committed, whole.
func TestPowerCut(t *testing.T) {
	cuts, late, seed := *powerCuts, 8000, *powerSeed
	if cuts == 0 {
		cuts = 25
		if !longrun.Wanted() {
			cuts, late = 3, 1200
		}
	}
	if seed == 0 {
		seed = rand.Uint64()
	}
	for name, m := range map[string]lossyfs.Model{"strict": lossyfs.Strict, "journaled": lossyfs.Journaled} {
		t.Run(name, func(t *testing.T) {
			t.Logf("%d power failures; repeat with -power-seed %d", cuts, seed)
			p := &cutting{t: t, rng: rand.New(rand.NewPCG(seed, uint64(m))), disk: lossyfs.New(m), late: late, promised: make(map[string]string)}
			for cut := range cuts {
				p.story = fmt.Sprintf("cut %d", cut)
				if p.once(); t.Failed() {
					t.Fatal(p.story)
				}
			}
			t.Logf("%d commits were promised, and kept", p.commits)
		})
	}
}

// A new store's database has a name that no power failure takes before the first byte of content is written.
func TestDatabaseIsNamedBeforeContent(t *testing.T) {
	p := &cutting{t: t, rng: rand.New(rand.NewPCG(1, 1)), disk: lossyfs.New(lossyfs.Strict), promised: make(map[string]string)}
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
	unnamed := make(map[string]bool)
	var early []string
	p.disk.Inject(func(o lossyfs.Op) lossyfs.Verdict {
		switch {
		case o.Kind == lossyfs.Create && filepath.Dir(o.Path) == "store":
			unnamed[o.Path] = true
		case o.Kind == lossyfs.Sync && o.Path == "store":
			clear(unnamed)
		case o.Kind.Changes() && strings.HasPrefix(o.Path, "store/staging/"):
			early = slices.Collect(maps.Keys(unnamed))
			return lossyfs.Verdict{PowerOff: true}
		}
		return lossyfs.Verdict{}
	})
	p.runChild(mnt)
	// The reserve is room and no content.
	early = slices.DeleteFunc(early, func(name string) bool { return name == "store/"+reserveName })
	if !p.disk.Off() || len(early) > 0 {
		t.Errorf("content is written, and these have no name on disk yet: %q", early)
	}
}

type cutting struct {
	t        *testing.T
	rng      *rand.Rand
	disk     *lossyfs.FS
	late     int // the latest operation that is chosen
	boots    int
	promised map[string]string
	commits  int
	story    string
}

// once lets a child commit until the power fails, and checks what is left. The next one
// goes on from there.
func (p *cutting) once() {
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
	// Half of the failures come early, while the store is being opened.
	cutAt := p.rng.IntN(400)
	if p.rng.IntN(2) == 0 {
		cutAt = p.rng.IntN(p.late)
	}
	var last lossyfs.Op
	done := 0
	p.disk.Inject(func(o lossyfs.Op) lossyfs.Verdict {
		if !o.Kind.Changes() {
			return lossyfs.Verdict{}
		}
		done++
		last = o
		return lossyfs.Verdict{PowerOff: done > cutAt}
	})
	p.runChild(mnt)
	p.disk.PowerOff()
	p.story += fmt.Sprintf(", before %s of %s, change %d", last.Kind, last.Path, done)
	p.disk = p.disk.AfterPowerLoss(p.rng)
	p.check()
}

// runChild runs a child that commits until it fails, and takes note of what it promises.
func (p *cutting) runChild(mnt string) {
	t := p.t
	t.Helper()
	p.boots++
	cmd := exec.Command(os.Args[0])
	// The file system does not hear of syncfs, but of this.
	points := fmt.Sprintf("%s=fsync:%s@1+ %s=fsync:%s@1+", failpoint.CommitSynced, mnt, failpoint.CloseSynced, mnt)
	cmd.Env = append(os.Environ(), crashEnv+"="+filepath.Join(mnt, "store"), bootEnv+"=new", lifeEnv+"="+fmt.Sprint(p.boots), "CONDAFS_FAILPOINTS="+points)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		word, path, _ := strings.Cut(lines.Text(), " ")
		if word == "failed" {
			if !p.disk.Off() {
				t.Errorf("the child %s", lines.Text())
			}
			continue
		}
		if word != "done" {
			continue // more of an error
		}
		worker, name, _ := strings.Cut(path, "/")
		p.promised[worker] = name
		p.commits++
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || !p.disk.Off() {
		t.Errorf("the child ended: %v", err)
	}
}

// check opens a copy of what is left, as if the machine had started again.
func (p *cutting) check() {
	t := p.t
	t.Helper()
	dir := memDir(t)
	if err := p.disk.Export(dir); err != nil {
		t.Fatal(err)
	}
	real := bootID
	bootID = func() string { return "after the power failure" }
	defer func() { bootID = real }()
	s, err := Open(filepath.Join(dir, "store"), Options{Logger: quiet})
	if err != nil {
		t.Error(err)
		return
	}
	if err := checkAfterCrash(s, p.promised); err != nil {
		t.Error(err)
	}
	if err := errors.Join(s.Close(), os.RemoveAll(dir)); err != nil {
		t.Error(err)
	}
}
