//go:build condafs_faults

package cow

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"condafs/index"
	"condafs/internal/failpoint"
	"condafs/internal/longrun"
	"condafs/internal/lossyfs"
	"condafs/internal/racetest"
)

var (
	powerCuts = flag.Int("powercuts", 0, "how many power failures TestPowerCut makes for each model; 0: 3, with CONDAFS_LONG 12")
	powerSeed = flag.Uint64("power-seed", 0, "the seed of TestPowerCut; 0: a new one")
)

// What tells this test binary to be a child of TestPowerCut: the directory of the store,
// and what to do there.
const (
	cutDirEnv = "CONDAFS_COW_CUT_DIR"
	cutJobEnv = "CONDAFS_COW_CUT_JOB"
)

// TestPowerCut has sessions come and go on a file system that loses and tears what was
// not synced, and lets the power fail before any operation of it. Each time the store
// must open, with all that was said to be published and nothing that was said to be
// deleted, whole, and with nothing left of the sessions.
func TestPowerCut(t *testing.T) {
	cuts, late, seed := *powerCuts, 2500, *powerSeed
	if cuts == 0 {
		cuts = 12
		if !longrun.Wanted() {
			cuts, late = 3, 800
		}
	}
	if seed == 0 {
		seed = rand.Uint64()
	}
	for name, m := range map[string]lossyfs.Model{"strict": lossyfs.Strict, "journaled": lossyfs.Journaled} {
		t.Run(name, func(t *testing.T) {
			t.Logf("%d power failures; repeat with -power-seed %d", cuts, seed)
			p := &powerCut{t: t, rng: rand.New(rand.NewPCG(seed, uint64(m))), disk: lossyfs.New(m), late: late, said: make(map[string]string)}
			for p.life = 1; p.life <= cuts && !t.Failed(); p.life++ {
				where := p.live()
				if p.check(); t.Failed() {
					t.Logf("life %d, the power failed before %s", p.life, where)
				}
			}
			t.Logf("%d things were promised, and kept", p.promises)
		})
	}
}

type powerCut struct {
	t        *testing.T
	rng      *rand.Rand
	disk     *lossyfs.FS
	late     int // the latest operation that is chosen
	life     int
	said     map[string]string
	promises int
}

// live lets a child work until the power fails, before the change that it returns.
func (p *powerCut) live() (where string) {
	t := p.t
	t.Helper()
	mnt := t.TempDir()
	mounted, err := p.disk.Mount(mnt)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := mounted.Unmount(); err != nil {
			t.Error(err)
		}
	}()
	cutAt, done := p.rng.IntN(p.late), 0
	if p.rng.IntN(3) == 0 {
		cutAt = p.rng.IntN(400) // while it starts
	}
	p.disk.Inject(func(o lossyfs.Op) lossyfs.Verdict {
		if !o.Kind.Changes() {
			return lossyfs.Verdict{}
		}
		if done++; done == cutAt+1 {
			where = fmt.Sprintf("%s of %s, change %d", o.Kind, o.Path, done)
		}
		return lossyfs.Verdict{PowerOff: done > cutAt}
	})
	// The file system does not hear of syncfs, but of this.
	points := fmt.Sprintf("%s=EIO@1+ %s=fsync:%s@1+ %s=fsync:%s@1+", failpoint.BootAsk, failpoint.CommitSynced, mnt, failpoint.CloseSynced, mnt)
	out, _ := cutChild(t, filepath.Join(mnt, "store"), strconv.Itoa(p.life), points)
	if !p.disk.Off() {
		t.Fatalf("the child has ended before the power failed:\n%s", out)
	}
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "said" {
			p.said[f[1]] = f[2]
			p.promises++
		}
	}
	p.disk = p.disk.AfterPowerLoss(p.rng)
	return where
}

// check has a child look at a copy of what is left.
func (p *powerCut) check() {
	t := p.t
	t.Helper()
	copied := t.TempDir()
	if err := p.disk.Export(copied); err != nil {
		t.Fatal(err)
	}
	job := "check"
	for what, how := range p.said {
		job += " " + what + "=" + how
	}
	if out, err := cutChild(t, filepath.Join(copied, "store"), job, string(failpoint.BootAsk)+"=EIO@1+"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if err := os.RemoveAll(copied); err != nil {
		t.Error(err)
	}
}

func cutChild(t *testing.T, dir, job, points string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run", "^TestPowerCutChild$", "-test.v")
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGQUIT) } // for its stacks
	cmd.Env = append(os.Environ(), cutDirEnv+"="+dir, cutJobEnv+"="+job, "CONDAFS_FAILPOINTS="+points, racetest.Env)
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("the child hangs:\n%s", out)
	}
	return string(out), err
}

// TestPowerCutChild is the child: it lets sessions come and go, for ever, or checks.
func TestPowerCutChild(t *testing.T) {
	dir := os.Getenv(cutDirEnv)
	if dir == "" {
		t.Skip("for TestPowerCut only")
	}
	job := os.Getenv(cutJobEnv)
	if rest, ok := strings.CutPrefix(job, "check"); ok {
		checkAfterCut(t, dir, strings.Fields(rest))
		return
	}
	life, err := strconv.Atoi(job)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorldAt(t, dir)
	say := bufio.NewWriter(os.Stdout)
	for i := life * 1000; ; i++ {
		f := makePackage(t, fmt.Sprintf("p%d-1.0-0", i), nil)
		pid, c := w.process()
		c.install(f)
		c.write("pkgs/note", strconv.Itoa(i))
		old := fmt.Sprintf("p%d-1.0-0", i-2)
		if c.exists("pkgs/" + old) {
			for _, name := range []string{"info/repodata_record.json", "info/index.json", "info/paths.json", "info", "lib/data", "lib/link", "lib", "bin/tool", "bin", ""} {
				c.remove(strings.TrimSuffix("pkgs/"+old+"/"+name, "/"))
			}
		} else {
			old = ""
		}
		w.exit(pid)
		if infos := w.e.Sessions(); len(infos) != 0 {
			t.Fatalf("a session waits: %+v", infos)
		}
		if w.trust(shared+f.dist) != "verified" || w.headFile(mine+"note") != strconv.Itoa(i) {
			t.Fatal("it is not published")
		}
		fmt.Fprintf(say, "said %s there\nsaid note %d\n", f.dist, i)
		if old != "" {
			fmt.Fprintf(say, "said %s gone\n", old)
		}
		if err := say.Flush(); err != nil {
			t.Fatal(err)
		}
		if i%5 == 4 {
			if _, err := w.store.GC(ctx, index.GCOptions{}, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// checkAfterCut opens what a power failure has left.
func checkAfterCut(t *testing.T, dir string, said []string) {
	w := newWorldAt(t, dir)
	defer w.close()
	w.await()
	latest := 0
	for _, s := range said {
		what, how, _ := strings.Cut(s, "=")
		switch how {
		case "there", "gone":
			if here := w.trust(shared+what) == "verified"; here != (how == "there") {
				// The deletion that came next may have been made and not been told.
				var n int
				if _, err := fmt.Sscanf(what, "p%d-", &n); err != nil || how == "gone" || w.trust(shared+fmt.Sprintf("p%d-1.0-0", n+2)) == "" {
					t.Errorf("%s was said to be %s", what, how)
				}
			}
		default:
			n, err := strconv.Atoi(how)
			if err != nil {
				t.Fatal(err)
			}
			latest = n
		}
	}
	if latest > 0 {
		if n, err := strconv.Atoi(w.headFile(mine + "note")); err != nil || n < latest {
			t.Errorf("the note is %d, and %d was published: %v", n, latest, err)
		}
	}
	w.tidy()
	if staged, err := os.ReadDir(w.store.StagingDir()); err != nil || len(staged) != 0 {
		t.Errorf("staging holds %v, %v", staged, err)
	}
	if r, err := w.store.Verify(ctx, index.VerifyOptions{Full: true}, nil); err != nil || len(r.Problems) != 0 {
		t.Errorf("problems: %+v, %v", r.Problems, err)
	}
	records, err := w.store.Quarantined()
	list, lerr := os.ReadDir(filepath.Dir(w.store.QuarantineDir("x")))
	if err := errors.Join(err, lerr); err != nil || len(list) != len(records) {
		t.Errorf("quarantine holds %v, with %d records, %v", list, len(records), err)
	}
	// And it works.
	f := makePackage(t, "after-1.0-0", nil)
	pid, c := w.process()
	c.install(f)
	w.exit(pid)
	if w.trust(shared+f.dist) != "verified" {
		t.Error("nothing can be published any more")
	}
}
