package cow

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
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

// TestDeepTreesDoNotFillTheMemory: the paths of a chain of directories grow with the
// square of its length. A package that is one is refused, plain directories are
// dropped, and both go without a descriptor for each level.
func TestDeepTreesDoNotFillTheMemory(t *testing.T) {
	const levels, most = 400, 16 << 20 // of 250 bytes: more than 16 MiB of paths
	f := makePackage(t, "tool-1.0-0", nil)
	good := makePackage(t, "good-1.0-0", nil)
	for name, top := range map[string]string{"in a package": "pkgs/" + f.dist + "/lib", "in a plain directory": "pkgs/plain"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			pid, c := w.process()
			c.v.pathBytes = most
			c.install(good)
			w.await()
			c.extract(f)
			c.mkdirs(top)
			dir := c.v.Root()
			var held []*Node
			for part := range strings.SplitSeq(top, "/") {
				n, _, err := c.v.Lookup(dir, part)
				c.must(err)
				dir, held = n, append(held, n)
			}
			deep := strings.Repeat("d", 250)
			for range levels {
				n, _, err := c.v.Mkdir(dir, deep, 0o755)
				c.must(err)
				dir, held = n, append(held, n)
			}
			for _, n := range slices.Backward(held) {
				c.v.Forget(n, 1)
			}
			c.finish(f)
			w.await()
			if _, err := c.v.Changes(); name != "in a package" && !errors.Is(err, errTooMuch) {
				t.Errorf("changes: %v", err)
			}
			w.exit(pid)
			if w.trust(shared+good.dist) != "verified" {
				t.Error("what was complete before is lost")
			}
			if e := w.head(shared + f.dist); e != nil && name == "in a package" {
				t.Errorf("published: %+v", e)
			}
			if e := w.head(mine + "plain"); e != nil {
				t.Errorf("published: %+v", e)
			}
			w.tidy()
			q, err := w.store.Quarantined()
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range q {
				if err := w.store.RemoveQuarantine(r.ID); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
