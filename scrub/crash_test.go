//go:build condafs_faults

package scrub

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"condafs/index"
	"condafs/internal/failpoint"
	"condafs/internal/longrun"
	"condafs/internal/storetest"
)

// TestKilledInScrub kills a daemon at each moment in which its scrub changes something: the first or a later time that it comes there, or
// both. The next one's goes on with the same pass, and leaves nothing damaged, lost from sight or untold.
func TestKilledInScrub(t *testing.T) {
	const files, copied, damaged = 24, 4, 8 // of those that are damaged, the first can be had again
	const foreign = 2                       // lie in a blob's place, which is missing then
	const found = damaged + foreign
	store := storetest.Open(t)
	fill(t, store, files)
	copies(t, store, 0, copied)
	for i := range damaged {
		var err error
		switch i % 4 {
		case 0:
			flip(t, blobFile(store, i))
		case 1:
			err = os.Remove(blobFile(store, i))
		case 2:
			err = errors.Join(os.Chmod(blobFile(store, i), 0o600), os.Truncate(blobFile(store, i), 10))
		case 3:
			err = errors.Join(os.Remove(blobFile(store, i)), os.Symlink("/dev/null", blobFile(store, i)))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	// What the disk would hold of a daemon that died there.
	type death struct {
		at  failpoint.Point
		dir string
	}
	var deaths []death
	passed := make(map[failpoint.Point]int)
	points := []failpoint.Point{
		failpoint.AsideRecorded, failpoint.AsideMoved, failpoint.BlobRenamed, failpoint.RepairBrought, failpoint.CommitWritten, failpoint.RepairRemoved,
		failpoint.ScrubMended, failpoint.ScrubSaved,
	}
	first, later := true, true
	if !longrun.Wanted() {
		first = rand.IntN(2) == 0
		later = !first
	}
	disarm := failpoint.Set(store.Dir(), func(p failpoint.Point) error {
		if !slices.Contains(points, p) {
			return nil
		}
		if passed[p]++; !(first && passed[p] == 1 || later && passed[p] == 2) {
			return nil
		}
		d := death{at: p, dir: filepath.Join(t.TempDir(), "store")}
		out, err := exec.Command("cp", "-a", store.Dir(), d.dir).CombinedOutput()
		if err != nil {
			t.Errorf("cp: %s", out)
		}
		deaths = append(deaths, d)
		return nil
	})
	whole := now(t, start(t, store, Options{}))
	disarm()
	if whole.Found != found || whole.Mended != copied+foreign || whole.Lost != damaged-copied {
		t.Fatalf("%+v", whole)
	}
	for _, p := range points {
		if passed[p] == 0 {
			t.Errorf("%s was not passed", p)
		}
	}
	if passed[failpoint.ScrubSaved] < passed[failpoint.ScrubMended] {
		t.Error("what was mended was not written down at once")
	}
	for i, d := range deaths {
		t.Run(fmt.Sprint(i, " ", d.at), func(t *testing.T) {
			store := storetest.OpenIn(t, d.dir)
			before, err := store.ScrubState()
			if err != nil {
				t.Fatal(err)
			}
			p := now(t, start(t, store, Options{}))
			if before.Pass != nil && !p.Started.Equal(whole.Started) {
				t.Error("another pass has begun")
			}
			if p.Found > found || d.at == failpoint.ScrubSaved && p.Found != found || p.Found != p.Mended+p.Lost+p.Left {
				t.Errorf("%+v", p)
			}
			head := store.PinHead()
			defer head.Release()
			for i := range files {
				_, there, err := head.Get(fmt.Sprint("u0/pkgs/f", i))
				if lost := i >= copied && i < damaged; err != nil || there == lost {
					t.Errorf("%d: there %v, %v", i, there, err)
				} else if err := intact(store, i); !lost && err != nil {
					t.Errorf("%d: %v", i, err)
				}
			}
			if v, err := store.Verify(t.Context(), index.VerifyOptions{Full: true}, nil); err != nil || len(v.Problems) > 0 {
				t.Errorf("%+v, %v", v.Problems, err)
			}
			nothingIsLostFromSight(t, store)
		})
	}
}

// nothingIsLostFromSight: what lies in quarantine has a record there.
func nothingIsLostFromSight(t *testing.T, store *index.Store) {
	t.Helper()
	records, err := store.Quarantined()
	if err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadDir(filepath.Dir(store.QuarantineDir("x")))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		known := slices.ContainsFunc(records, func(r index.QuarantineRecord) bool { return r.ID == e.Name() })
		if content, err := os.ReadDir(store.QuarantineDir(e.Name())); e.Name() != "copies" && !known && (err != nil || len(content) > 0) {
			t.Errorf("%s has no record: %v, %v", e.Name(), content, err)
		}
	}
}
