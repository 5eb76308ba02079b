package integration

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"condafs/control"
	"condafs/internal/longrun"
)

// TestRepairUnderClients flips bits in, cuts and removes files of a store that clients are using, without a trace in
// their times where that can be, repairs it from time to time, and looks at what clients get from it afterwards.
func TestRepairUnderClients(t *testing.T) {
	t.Parallel()
	rounds := 6
	if !longrun.Wanted() {
		rounds = 2
	}
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	s, env, m := serve(t), envs(t), newMount(t, "--scrub=off")
	first := conda(t, s, m.pkgs(), env("first", 0), app)
	atOnce(t, first)
	mustBeRight(t, first)
	m.settle()
	packages := m.packages()
	removed, mended := 0, 0
	for round := range rounds {
		// Clients work while the store is being damaged. What they read before anybody has found out may be wrong, so
		// nothing is asked of them but that they end.
		stop := make(chan struct{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
					readAllBelow(m.head())
				}
			}
		}()
		damageStore(t, rng, m.store, 1+rng.IntN(8))
		r := query[control.RepairReport](m, "repair", "--full")
		close(stop)
		<-done
		if len(r.Problems) == 0 || r.Left > 0 {
			t.Errorf("round %d: %+v", round, r)
		}
		removed += len(r.Removed)
		for _, p := range r.Problems {
			if p.Fixed == "" {
				t.Errorf("round %d: nothing became of %+v", round, p)
			}
			mended++
		}
		// From here on nobody gets a wrong byte: head is whole, and clients fetch what is gone.
		m.allComesBack(packages, conda(t, s, m.pkgs(), env("after", round), app))
	}
	t.Logf("%d problems found, %d names removed and fetched again", mended, removed)
	m.mustBeIntact()
}

// readAllBelow reads what it can: errors are what damage makes.
func readAllBelow(dir string) {
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			_, _ = os.ReadFile(path)
		}
		return nil
	})
}

// damageStore damages n random blobs.
func damageStore(t *testing.T, rng *rand.Rand, store string, n int) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(store, "objects", "??", "*"))
	if err != nil || len(files) < 20 {
		t.Fatalf("%d blobs, %v", len(files), err)
	}
	for range n {
		name := files[rng.IntN(len(files))]
		fi, err := os.Stat(name)
		if err != nil || fi.Size() == 0 {
			continue
		}
		f, err := os.OpenFile(name, os.O_RDWR, 0) // as root, or with the mode below
		if errors.Is(err, fs.ErrPermission) {
			if err := os.Chmod(name, 0o600); err != nil {
				t.Fatal(err)
			}
			f, err = os.OpenFile(name, os.O_RDWR, 0)
		}
		if err != nil {
			t.Fatal(err)
		}
		switch rng.IntN(6) {
		case 0:
			err = os.Remove(name)
		case 1:
			err = f.Truncate(rng.Int64N(fi.Size()))
		default:
			b, at := make([]byte, 1), rng.Int64N(fi.Size())
			if _, err = f.ReadAt(b, at); err == nil {
				b[0] ^= 1 << rng.IntN(8)
				_, err = f.WriteAt(b, at)
			}
			if err == nil && rng.IntN(2) == 0 {
				err = os.Chtimes(name, fi.ModTime(), fi.ModTime())
			}
		}
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	// One at least, also where the random ones had no bytes.
	if err := os.WriteFile(filepath.Join(store, "objects", "foreign"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// allComesBack verifies the store, has a client make its environment, and demands that the head holds all packages then.
func (m *mount) allComesBack(packages map[string]control.Package, c *client) {
	m.t.Helper()
	m.verify()
	atOnce(m.t, c)
	mustBeRight(m.t, c)
	m.settle()
	m.headMustHold("none")
	now := m.packages()
	for name := range packages {
		// An archive alone is not missed by conda, as long as its package is there.
		if !now[name].Extracted {
			m.t.Errorf("%s: %s did not come back", c.name, name)
		}
	}
}
