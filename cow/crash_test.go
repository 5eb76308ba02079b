//go:build condafs_faults

package cow

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"condafs/fault"
	"condafs/hashing"
	"condafs/index"
	"condafs/internal/failpoint"
)

// TestDamagedContentIsGivenUp is about a machine that died with blobs unwritten.
func TestDamagedContentIsGivenUp(t *testing.T) {
	w := newWorld(t)
	f, good := makePackage(t, "tool-1.0-0", nil), makePackage(t, "good-1.0-0", nil)
	disarm := w.death(failpoint.PublishBegin)
	pid, c := w.process()
	c.install(f)
	w.await()
	d := hashing.Sum([]byte(f.files["lib/data"])).String()
	if err := os.Remove(filepath.Join(w.dir, "objects", d[:2], d[2:])); err != nil {
		t.Fatal(err)
	}
	w.die()
	disarm()
	w.procs.kill(pid)
	w.open()
	w.await()
	if w.trust(shared+f.dist) != "" {
		t.Error("a package that has lost a file is published")
	}
	pid, c = w.process()
	c.install(good)
	w.exit(pid)
	if w.trust(shared+good.dist) != "verified" {
		t.Error("nothing can be published any more")
	}
	w.tidy()
}

func TestFullDiskLosesNothing(t *testing.T) {
	for _, at := range []failpoint.Point{failpoint.ManifestRenamed, failpoint.SealMoved, failpoint.SealDone, failpoint.PublishBegin} {
		t.Run(string(at), func(t *testing.T) {
			w := newWorld(t)
			f := makePackage(t, "tool-1.0-0", nil)
			free := failpoint.Set(w.dir, func(here failpoint.Point) error {
				if here == at {
					return fault.New("write", "disk", fault.Full, unix.ENOSPC)
				}
				return nil
			})
			pid, c := w.process()
			c.install(f)
			c.write("pkgs/note", "1")
			w.await()
			w.exit(pid)
			infos := w.e.Sessions()
			if len(infos) != 1 || infos[0].State != "waiting" {
				t.Fatalf("sessions: %+v", infos)
			}
			if w.head(shared+f.dist) != nil {
				t.Error("published on a full disk")
			}
			free()
			other, c2 := w.process()
			c2.write("pkgs/urls.txt", "x\n")
			w.exit(other) // its commit succeeds, so the other is tried again
			w.await()
			if w.trust(shared+f.dist) != "verified" || w.trust(shared+f.fn()) != "verified" || w.headFile(mine+"note") != "1" {
				t.Error("something is lost")
			}
			w.client(w.procs.spawn(1)).has(f)
			w.exit(w.procs.next - 1)
			w.tidy()
		})
	}
}

// die ends the daemon without giving it a chance to finish anything. Handles of
// files are let go of, as the kernel does.
func (w *world) die() {
	w.e.mu.Lock()
	w.e.closed = true
	w.e.mu.Unlock()
	w.e.stop()
	w.e.await()
	for _, s := range w.e.all() {
		if err := s.release(); err != nil {
			w.t.Error(err)
		}
	}
	if err := w.e.head.close(); err != nil {
		w.t.Error(err)
	}
	w.closeStore()
}

// death makes the daemon stop in its tracks at a step: nothing works from then on.
func (w *world) death(at failpoint.Point) (disarm func()) {
	var dead atomic.Bool
	return failpoint.Set(w.dir, func(here failpoint.Point) error {
		if here == at {
			dead.Store(true)
		}
		if dead.Load() {
			return fault.New("die", string(at), fault.IO, nil)
		}
		return nil
	})
}

// TestCrash lets the daemon die at each step, and the next one finish.
func TestCrash(t *testing.T) {
	f := makePackage(t, "tool-1.0-0", nil)
	for _, at := range []failpoint.Point{failpoint.ManifestWritten, failpoint.ManifestRenamed, failpoint.SealMoved, failpoint.SealDone, failpoint.PublishBegin, failpoint.PublishDone} {
		for _, survives := range []bool{false, true} {
			name := string(at) + ", the client dies too"
			if survives {
				name = string(at) + ", the client lives on"
			}
			t.Run(name, func(t *testing.T) {
				w := newWorld(t)
				disarm := w.death(at)
				pid, c := w.process()
				c.write("pkgs/note", "1")
				c.install(f)
				w.await()
				w.die()
				disarm()
				if !survives {
					w.procs.kill(pid)
				}
				w.open()
				w.await()
				if survives {
					again := w.client(pid)
					if again.s.ID() != c.s.ID() {
						t.Error("the client is in another session")
					}
					again.has(f)
					if again.read("pkgs/note") != "1" {
						t.Error("it has lost a file")
					}
					w.exit(pid)
				}
				if w.trust(shared+f.dist) != "verified" || w.trust(shared+f.fn()) != "verified" {
					t.Errorf("the package is %q, the archive %q", w.trust(shared+f.dist), w.trust(shared+f.fn()))
				}
				reader, fresh := w.process()
				fresh.has(f)
				w.exit(reader)
				w.tidy()
				if q, err := w.store.Quarantined(); err != nil || len(q) != 0 {
					t.Errorf("quarantined: %+v, %v", q, err)
				}
			})
		}
	}
}

func TestTornManifestIsIgnored(t *testing.T) {
	w := newWorld(t)
	f := makePackage(t, "tool-1.0-0", nil)
	disarm := w.death(failpoint.ManifestRenamed)
	pid, c := w.process()
	c.install(f)
	w.await()
	id := c.s.ID()
	sealed := filepath.Join(w.store.SessionDir(id), "sealed")
	w.die()
	disarm()
	if err := filepath.WalkDir(sealed, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		return os.Truncate(p, 10)
	}); err != nil {
		t.Fatal(err)
	}
	w.procs.exit(pid)
	w.open()
	w.await()
	if w.trust(shared+f.dist) != "verified" {
		t.Error("the package in the overlay is lost") // nothing had moved yet
	}
	w.tidy()
}

// A client that changes a file just after its package was checked, before or after its
// files moved, has all of them when the daemon died in that moment, and after the next
// death, too.
func TestDeathBesideAChange(t *testing.T) {
	files := map[string]string{"lib/data": "data"}
	for i := range 40 {
		files[fmt.Sprint("lib/", i)] = fmt.Sprint("content ", i)
	}
	f := makePackage(t, "tool-1.0-0", files)
	for _, at := range []failpoint.Point{failpoint.ManifestWritten, failpoint.SealDone, failpoint.PublishBegin} {
		t.Run(string(at), func(t *testing.T) {
			w := newWorld(t)
			g := newGate()
			defer failpoint.Set(w.dir, g.reach)()
			pid, c := w.process()
			c.download(f)
			c.extract(f)
			g.arm(at)
			c.finish(f)
			w.arrived(g)
			c.write("pkgs/"+f.dist+"/lib/data", "mine")
			g.open(errDead)
			for range 2 {
				w.die()
				g.revive()
				w.open()
				w.await()
				if _, err := w.store.GC(ctx, index.GCOptions{}, nil); err != nil {
					t.Fatal(err)
				}
				again := w.client(pid)
				if again.s.ID() != c.s.ID() {
					t.Fatal("the client is in another session")
				}
				for p, content := range f.files {
					if p == "lib/data" {
						content = "mine"
					}
					if got, err := again.tryRead("pkgs/" + f.dist + "/" + p); err != nil || got != content {
						t.Errorf("%s holds %q, %v", p, got, err)
					}
				}
			}
		})
	}
}

// What was sealed and waits to be published, and was then removed or begun anew by its client, is neither published nor shown by
// the next daemon: neither now, nor when that one dies too.
func TestDeathAfterAChange(t *testing.T) {
	for name, change := range map[string]struct {
		do   func(c *client, f *fixture)
		left []string // files of the package that the client has then
	}{
		"removed": {do: func(c *client, f *fixture) { c.remove("pkgs/" + f.dist) }},
		"extracted anew by half": {
			do: func(c *client, f *fixture) {
				c.rename("pkgs/"+f.dist, "pkgs/"+f.dist+".c~")
				c.remove("pkgs/" + f.dist + ".c~")
				c.mkdirs("pkgs/" + f.dist + "/lib")
				c.write("pkgs/"+f.dist+"/lib/data", f.files["lib/data"]) // the same bytes, and no more
			},
			left: []string{"lib/data"},
		},
		"a file removed": {
			do:   func(c *client, f *fixture) { c.remove("pkgs/" + f.dist + "/lib/data") },
			left: []string{"lib/more", "info/repodata_record.json"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			f := makePackage(t, "tool-1.0-0", map[string]string{"lib/data": "data", "lib/more": "more"})
			g := newGate()
			defer failpoint.Set(w.dir, g.reach)()
			pid, c := w.process()
			c.extract(f)
			g.arm(failpoint.PublishBegin)
			c.finish(f)
			w.arrived(g)
			change.do(c, f)
			g.open(errDead)
			for range 2 {
				w.die()
				g.revive()
				w.open()
				w.await()
				if e := w.head(mine + f.dist); e != nil {
					t.Fatalf("the head has %+v", e)
				}
				again := w.client(pid)
				if again.s.ID() != c.s.ID() {
					t.Fatal("the client is in another session")
				}
				for _, p := range []string{"lib/data", "lib/more", "info/repodata_record.json"} {
					if there := again.exists("pkgs/" + f.dist + "/" + p); there != slices.Contains(change.left, p) {
						t.Errorf("%s is there: %t", p, there)
					}
				}
			}
			// And what it completes now is published.
			again := w.client(pid)
			again.drop("pkgs/" + f.dist)
			again.extract(f)
			again.finish(f)
			w.exit(pid)
			if w.trust(mine+f.dist) == "" {
				t.Error("what it has completed since is not published")
			}
			w.tidy()
		})
	}
}

// What a session has published can be deleted by it, also when it has brought it again since and that could not be published.
func TestDeletionOfWhatCameTwice(t *testing.T) {
	w := newWorld(t)
	f := makePackage(t, "tool-1.0-0", nil)
	pid, c := w.process()
	c.extract(f)
	c.finish(f)
	w.await()
	if w.head(mine+f.dist) == nil {
		t.Fatal("it is not published")
	}
	g := newGate()
	defer failpoint.Set(w.dir, g.reach)()
	c.drop("pkgs/" + f.dist)
	g.fail(failpoint.PublishBegin)
	c.extract(f)
	c.finish(f)
	w.await()
	if g.fail("") {
		t.Fatal("nothing was to be published")
	}
	c.drop("pkgs/" + f.dist)
	w.exit(pid)
	if e := w.head(mine + f.dist); e != nil {
		t.Errorf("the head still has %+v", e)
	}
	w.tidy()
}

// What fails its checks at a session's end is put aside, and what lies beside it is published all the same.
func TestPutAsideBesideOthers(t *testing.T) {
	w := newWorld(t)
	const many = 30
	pid, c := w.process()
	var once sync.Once
	defer failpoint.Set(w.dir, func(p failpoint.Point) error {
		if p == failpoint.QuarantineRecorded {
			once.Do(func() {
				if sealed, err := filepath.Glob(c.s.sealedDir() + "/*" + sealedSuffix); err != nil || len(sealed) != many {
					t.Errorf("the first is put aside when %d others are sealed, %v", len(sealed), err)
				}
			})
		}
		return nil
	})()
	for i := range many {
		c.write(fmt.Sprintf("pkgs/bad%d-1.0-0.conda", i), "no archive")
		c.write(fmt.Sprintf("pkgs/note%d", i), fmt.Sprint(i))
	}
	w.exit(pid)
	for i := range many {
		if got := w.headFile(mine + fmt.Sprintf("note%d", i)); got != fmt.Sprint(i) {
			t.Errorf("note %d is %q", i, got)
		}
	}
	if q, err := w.store.Quarantined(); err != nil || len(q) != many {
		t.Errorf("%d are in quarantine, %v", len(q), err)
	}
	w.tidy()
}

// arrived waits until somebody stands at a gate.
func (w *world) arrived(g *gate) {
	w.t.Helper()
	for end := time.Now().Add(time.Minute); !g.hasArrived(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatal("nobody has come to the gate")
		}
	}
}

// drop removes what may be there.
func (c *client) drop(p string) {
	if c.exists(p) {
		c.remove(p)
	}
}

// An archive that waits to be published is not taken for the one that has replaced it.
func TestArchiveReplacedOnAFullDisk(t *testing.T) {
	w := newWorld(t)
	f := makePackage(t, "tool-1.0-0", nil)
	g := makePackage(t, "tool-1.0-0", map[string]string{"lib/data": "other"})
	free := failpoint.Set(w.dir, func(here failpoint.Point) error {
		if here == failpoint.PublishBegin {
			return fault.New("write", "disk", fault.Full, unix.ENOSPC)
		}
		return nil
	})
	pid, c := w.process()
	c.install(f)
	w.await()
	free()
	c.write("pkgs/"+f.dist+"/lib/data", "evil") // so that nothing vouches for the archive
	c.download(g)
	w.exit(pid)
	if got := w.headFile(mine + g.fn()); got != g.archive {
		t.Error("the archive that was replaced is published")
	}
}
