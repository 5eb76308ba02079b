package cow

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"condafs/fault"
	"condafs/hashing"
)

// TestRestoreFollowsNoLink: files that could not be sealed go back to where they
// were, and not to where a link that the client has made since leads.
func TestRestoreFollowsNoLink(t *testing.T) {
	w := newWorld(t)
	f := makePackage(t, "tool-1.0-0", nil)
	_, c := w.process()
	outside := t.TempDir()
	c.extract(f)
	parts, err := c.s.preparePackage(ctx, "pkgs/"+f.dist)
	if !fault.Is(err, fault.NotFound) {
		t.Fatalf("%v, %v: the record is missing", parts, err)
	}
	c.finish(f)
	w.await()
	pkg := filepath.Join(c.s.upper(), "pkgs", f.dist)
	if err := errors.Join(os.MkdirAll(pkg, 0o755), os.Symlink(outside, filepath.Join(pkg, "lib"))); err != nil {
		t.Fatal(err)
	}
	c.s.mu.Lock()
	public := c.s.items["pkgs/"+f.dist].public
	c.s.mu.Unlock()
	if public.tree, err = w.store.Tree(public.entry.Digest); err != nil {
		t.Fatal(err)
	}
	i, _ := public.tree.Find("lib/data")
	m := &mover{s: c.s, p: &part{path: "pkgs/" + f.dist, shown: public}}
	m.p.overlay = map[string]hashing.Digest{"lib/data": public.tree.At(i).Digest}
	if err := m.bringBack("lib/data"); !errors.Is(err, unix.ELOOP) {
		t.Errorf("through a link: %v, want ELOOP", err)
	}
	if l, err := os.ReadDir(outside); err != nil || len(l) != 0 {
		t.Errorf("written outside: %v, %v", l, err)
	}
	if err := errors.Join(os.Remove(filepath.Join(pkg, "lib")), os.Mkdir(filepath.Join(pkg, "lib"), 0o755), m.bringBack("lib/data")); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(pkg, "lib/data")); err != nil || string(b) != f.files["lib/data"] {
		t.Errorf("brought back: %q, %v", b, err)
	}
	if err := os.RemoveAll(pkg); err != nil {
		t.Fatal(err)
	}
}
