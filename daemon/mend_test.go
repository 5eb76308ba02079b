//go:build condafs_faults

package daemon

import (
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"condafs/conda"
	"condafs/cow"
	"condafs/hashing"
	"condafs/index"
	"condafs/internal/failpoint"
	"condafs/shelf"
)

// shelved is a store with shelves whose files are other names of its blobs.
type shelved struct {
	t     *testing.T
	dir   string
	store *index.Store
	d     *daemon
}

func openShelved(t *testing.T, dir string) *shelved {
	t.Helper()
	s := &shelved{t: t, dir: dir}
	c := Config{Settings: Settings{Shelf: shelf.Link}, Logger: slog.New(slog.DiscardHandler)}
	var err error
	if s.store, err = index.Open(dir, index.Options{Logger: c.Logger}); err != nil {
		t.Fatal(err)
	}
	s.d = &daemon{config: c, store: s.store}
	t.Cleanup(func() {
		for _, sh := range s.d.shelves() {
			sh.Close()
		}
		if err := s.store.Close(); err != nil {
			t.Error(err)
		}
	})
	if s.d.shelf, err = openShelf(s.store, c, nil); err == nil {
		s.d.rattlerShelf, err = openRattlerShelf(s.store, c, uint32(os.Geteuid()), nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.settle()
	return s
}

func (s *shelved) settle() {
	s.t.Helper()
	for range 2 { // one takes away, the next puts there
		for _, sh := range s.d.shelves() {
			if err := sh.Settled(); err != nil {
				s.t.Fatal(err)
			}
		}
	}
}

// put commits a package with a file.
func (s *shelved) put(path, content string) {
	s.t.Helper()
	h := s.store.NewHold()
	defer h.Release()
	_, err := s.store.Update(s.t.Context(), index.CommitInfo{}, func(tx *index.Tx) error {
		b := index.NewTreeBuilder(index.TreeEntry{Mode: 0o755})
		for _, f := range [][2]string{{conda.CompletionMarker, "{}"}, {"lib/x", content}} {
			sums, err := s.store.PutBlob(h, strings.NewReader(f[1]), 0)
			if err == nil {
				err = b.Add(f[0], index.TreeEntry{Kind: index.KindFile, Mode: 0o644, Size: sums.Size, Digest: sums.Blake3})
			}
			if err != nil {
				return err
			}
		}
		tree, err := b.Build()
		if err != nil {
			return err
		}
		d, err := tx.PutTree(tree)
		return errors.Join(err, tx.Put(path, index.Entry{
			Kind: index.KindTree, Trust: uint8(conda.TrustVerified), Mode: 0o755, Size: tree.Bytes(), Digest: d, Content: tree.ContentDigest(),
		}))
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// rot changes a byte of a blob and leaves no trace, and puts a sound copy where a repair finds it.
func (s *shelved) rot(content string) {
	s.t.Helper()
	hex := hashing.Sum([]byte(content)).String()
	name, copies := filepath.Join(s.dir, "objects", hex[:2], hex[2:]), s.store.QuarantineDir("copies")
	fi, err := os.Stat(name)
	if err == nil {
		err = errors.Join(
			os.MkdirAll(copies, 0o700), os.WriteFile(filepath.Join(copies, hex), []byte(content), 0o600),
			os.Chmod(name, 0o600), os.WriteFile(name, []byte(strings.ToUpper(content)), 0), os.Chmod(name, fi.Mode()), os.Chtimes(name, fi.ModTime(), fi.ModTime()),
		)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// TestMendedOnTheShelf: a shelf's file is another name of a blob that the disk has damaged. When that is mended, the package comes to the
// shelf anew, also if the daemon dies before.
func TestMendedOnTheShelf(t *testing.T) {
	const one, two = "the file of conda's package", "the file of rattler's package"
	s := openShelved(t, filepath.Join(t.TempDir(), "store"))
	s.put(cow.SharedSpace+"/pkgs/a-1.0-0", one)
	s.put(cow.PrivateSpace(uint32(os.Geteuid()))+"/rattler/pkgs/b-1.0-0", two)
	for _, sh := range s.d.shelves() {
		sh.Sync()
	}
	s.settle()
	shows := func(s *shelved, one, two string) {
		t.Helper()
		for path, want := range map[string]string{filepath.Join(s.d.shelf.Path(), "a-1.0-0"): one, filepath.Join(s.d.rattlerShelf.Path(), "b-1.0-0"): two} {
			if b, err := os.ReadFile(filepath.Join(path, "lib/x")); err != nil || string(b) != want {
				t.Errorf("%s holds %q, %v", path, b, err)
			}
			if _, err := os.Stat(filepath.Join(path, conda.CompletionMarker)); err != nil {
				t.Error(err)
			}
		}
	}
	s.rot(one)
	s.rot(two)
	shows(s, strings.ToUpper(one), strings.ToUpper(two))
	v, err := s.store.Verify(t.Context(), index.VerifyOptions{Full: true}, nil)
	if err != nil || len(v.Problems) != 2 {
		t.Fatalf("%+v, %v", v.Problems, err)
	}
	deaths := make(map[failpoint.Point]string)
	disarm := failpoint.Set(s.dir, func(p failpoint.Point) error {
		if p == failpoint.RepairBrought || p == failpoint.ShelfDismissed && deaths[p] == "" {
			deaths[p] = filepath.Join(t.TempDir(), "store")
			if out, err := exec.Command("cp", "-a", s.dir, deaths[p]).CombinedOutput(); err != nil {
				t.Errorf("cp: %s", out)
			}
		}
		return nil
	})
	rep, err := (&api{store: s.store, daemon: s.d}).mend(t.Context(), v.Problems, nil)
	disarm()
	if err != nil || rep.Lost+rep.Left != 0 || len(deaths) != 2 {
		t.Fatalf("%+v, %v, %v", rep, err, deaths)
	}
	s.settle()
	shows(s, one, two)
	for p, dir := range deaths {
		t.Log(p)
		shows(openShelved(t, dir), one, two)
	}
}
