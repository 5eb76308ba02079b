package shelf

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"condafs/conda"
	"condafs/hashing"
	"condafs/index"
)

const space = "shared"

type world struct {
	t     *testing.T
	dir   string
	store *index.Store
	shelf *Shelf
	mode  Mode
	trees map[string]hashing.Digest
}

func newWorld(t *testing.T, mode Mode) *world {
	w := &world{t: t, dir: filepath.Join(t.TempDir(), "store"), mode: mode, trees: make(map[string]hashing.Digest)}
	w.open()
	t.Cleanup(w.close)
	return w
}

func (w *world) open() { w.openWith(nil) }

func (w *world) openWith(img *Image) {
	w.t.Helper()
	var err error
	if w.store, err = index.Open(w.dir, index.Options{Logger: slog.New(slog.DiscardHandler)}); err != nil {
		w.t.Fatal(err)
	}
	w.shelf, err = Open(w.store, Options{
		Mode: w.mode, Name: "shelf", From: space + "/pkgs", Logger: slog.New(slog.DiscardHandler), Image: img,
		Wanted: func(e *index.Entry) bool { return conda.Trust(e.Trust) == conda.TrustVerified },
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) close() {
	w.shelf.Close()
	if err := w.store.Close(); err != nil {
		w.t.Error(err)
	}
}

// put commits a package whose files have the given contents.
func (w *world) put(name string, trust conda.Trust, mtime time.Time, files map[string]string) {
	w.t.Helper()
	h := w.store.NewHold()
	defer h.Release()
	_, err := w.store.Update(context.Background(), index.CommitInfo{}, func(tx *index.Tx) error {
		b := index.NewTreeBuilder(index.TreeEntry{Mode: 0o755, Mtime: mtime.UnixNano()})
		for _, p := range slices.Sorted(maps.Keys(files)) {
			sums, err := w.store.PutBlob(h, strings.NewReader(files[p]), 0)
			if err != nil {
				return err
			}
			e := index.TreeEntry{Kind: index.KindFile, Mode: modeOf(p), Mtime: mtime.UnixNano(), Size: sums.Size, Digest: sums.Blake3}
			if err := b.Add(p, e); err != nil {
				return err
			}
		}
		if err := b.Add("link", index.TreeEntry{Kind: index.KindSymlink, Link: conda.CompletionMarker}); err != nil {
			return err
		}
		tree, err := b.Build()
		if err != nil {
			return err
		}
		d, err := tx.PutTree(tree)
		if err != nil {
			return err
		}
		w.trees[name] = d
		return tx.Put(space+"/pkgs/"+name, index.Entry{Kind: index.KindTree, Trust: uint8(trust), Mode: 0o755, Mtime: mtime.UnixNano(), Size: tree.Bytes(), Digest: d, Content: tree.ContentDigest()})
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.shelf.Offer(name)
	w.settle()
}

func (w *world) delete(name string) {
	w.t.Helper()
	_, err := w.store.Update(context.Background(), index.CommitInfo{}, func(tx *index.Tx) error { return tx.Delete(space + "/pkgs/" + name) })
	if err != nil {
		w.t.Fatal(err)
	}
	w.shelf.Sync()
	w.settle()
}

func (w *world) settle() {
	w.t.Helper()
	if err := w.shelf.Settled(); err != nil {
		w.t.Fatal(err)
	}
}

// files is a package with a record and one more file.
// modeOf is the mode of a file in the packages of these tests.
func modeOf(path string) uint32 {
	if path == "lib/empty" {
		return 0o444
	}
	return 0o644
}

func files(content string) map[string]string {
	return map[string]string{conda.CompletionMarker: `{"name": "x"}`, "lib/x.py": content, "lib/empty": ""}
}

var then = time.Unix(1_700_000_000, 123_000_000)

func (w *world) has(name string) bool {
	w.t.Helper()
	_, err := os.Lstat(filepath.Join(w.shelf.Path(), name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.t.Fatal(err)
	}
	return err == nil
}

func (w *world) read(path string) string {
	w.t.Helper()
	b, err := os.ReadFile(filepath.Join(w.shelf.Path(), path))
	if err != nil {
		w.t.Fatal(err)
	}
	return string(b)
}

func TestPublish(t *testing.T) {
	for _, mode := range []Mode{Auto, Link, Copy} {
		t.Run(string(mode), func(t *testing.T) {
			w := newWorld(t, mode)
			w.put("a-1-0", conda.TrustVerified, then, files("a"))
			w.put("b-1-0", conda.TrustConsistent, then, files("b"))
			if !w.has("a-1-0") || w.has("b-1-0") || w.shelf.Count() != 1 {
				t.Fatal("the shelf holds what is verified and nothing else")
			}
			file := filepath.Join(w.shelf.Path(), "a-1-0", "lib", "x.py")
			fi, err := os.Stat(file)
			if err != nil || fi.Mode() != 0o644 || !fi.ModTime().Equal(then) || w.read("a-1-0/lib/x.py") != "a" {
				t.Errorf("%v, %v: not as the package has it", fi, err)
			}
			if to, err := os.Readlink(filepath.Join(w.shelf.Path(), "a-1-0", "link")); err != nil || to != conda.CompletionMarker {
				t.Errorf("link to %q, %v", to, err)
			}
			for _, dir := range []string{"", "a-1-0", "a-1-0/lib"} {
				if fi, err := os.Stat(filepath.Join(w.shelf.Path(), dir)); err != nil || fi.Mode().Perm() != 0o555 {
					t.Errorf("%q: %v, %v", dir, fi, err)
				}
			}
			if f, err := os.OpenFile(filepath.Join(w.shelf.Path(), "urls.txt"), os.O_APPEND|os.O_RDWR|os.O_CREATE, 0o666); err == nil {
				t.Error("clients will take the shelf for writable", f.Close())
			}
			r, err := w.store.Verify(context.Background(), index.VerifyOptions{}, nil)
			if err != nil || len(r.Problems) > 0 || r.Hashed > 0 {
				t.Errorf("what is lent looks damaged: %+v, %v", r, err)
			}
		})
	}
}

// Two packages that share bytes and differ in times get what they should.
func TestSharedContent(t *testing.T) {
	w := newWorld(t, Link)
	later := then.Add(time.Hour)
	w.put("a-1-0", conda.TrustVerified, then, files("same"))
	w.put("b-1-0", conda.TrustVerified, later, files("same"))
	w.put("c-1-0", conda.TrustVerified, then, files("same"))
	inode := func(name string) uint64 {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(w.shelf.Path(), name, "lib", "x.py"), &st); err != nil {
			t.Fatal(err)
		}
		return st.Ino
	}
	for name, want := range map[string]time.Time{"a-1-0": then, "b-1-0": later, "c-1-0": then} {
		fi, err := os.Stat(filepath.Join(w.shelf.Path(), name, "lib", "x.py"))
		if err != nil || !fi.ModTime().Equal(want) {
			t.Errorf("%s: %v, %v", name, fi, err)
		}
	}
	if inode("a-1-0") != inode("c-1-0") || inode("a-1-0") == inode("b-1-0") {
		t.Error("what is equal shares an inode, and nothing else does")
	}
}

// A ticket's answers never change, and what it was promised stays until it is back.
func TestTickets(t *testing.T) {
	w := newWorld(t, Auto)
	before := w.shelf.Enter()
	w.put("a-1-0", conda.TrustVerified, then, files("a"))
	during := w.shelf.Enter()
	hides := func(tk *Ticket) bool { return tk.Hides("a-1-0", w.trees["a-1-0"]) }
	if hides(before) || !hides(during) || during.Hides("a-1-0", hashing.Sum([]byte("other"))) {
		t.Error("a package hides from those who began after it came to the shelf")
	}
	w.delete("a-1-0")
	after := w.shelf.Enter()
	if !w.has("a-1-0/lib/x.py") || w.has("a-1-0/"+conda.CompletionMarker) {
		t.Error("a package that leaves keeps its files and loses its record")
	}
	if hides(before) || !hides(during) || hides(after) {
		t.Error("only those who had it before still rely on it")
	}
	w.put("a-1-0", conda.TrustVerified, then, files("another"))
	before.Leave()
	w.settle()
	if w.read("a-1-0/lib/x.py") != "a" {
		t.Error("it went while somebody relied on it")
	}
	during.Leave()
	during.Leave()
	w.settle()
	w.settle() // the first one takes it away, the second puts the other there
	if w.read("a-1-0/lib/x.py") != "another" {
		t.Error("the package that took its place in the head is not on the shelf")
	}
	if hides(after) {
		t.Error("an answer has changed")
	}
	if !after.Holds("a-1-0", w.trees["a-1-0"]) {
		t.Error("what came after a ticket can't be had with it")
	}
	after.Leave()
}

func TestReopen(t *testing.T) {
	w := newWorld(t, Link)
	w.put("a-1-0", conda.TrustVerified, then, files("a"))
	w.put("b-1-0", conda.TrustVerified, then, files("b"))
	w.put("c-1-0", conda.TrustVerified, then, files("c"))
	w.close()
	// What a daemon that was killed can leave, and what somebody else puts there.
	shelf := w.shelf.Path()
	if err := errors.Join(
		os.Chmod(shelf, 0o755), os.Mkdir(filepath.Join(shelf, "foreign-1-0"), 0o755),
		os.Remove(filepath.Join(filepath.Dir(shelf), treesName, "b-1-0")),
		os.Symlink(w.trees["a-1-0"].String(), filepath.Join(filepath.Dir(shelf), treesName, "d-1-0")),
		os.Mkdir(filepath.Join(filepath.Dir(shelf), newName, "half"), 0o555),
	); err != nil {
		t.Fatal(err)
	}
	w.open()
	ticket := w.shelf.Enter()
	defer ticket.Leave()
	w.settle()
	for _, name := range []string{"a-1-0", "b-1-0", "c-1-0"} {
		if !w.has(name) {
			t.Errorf("%s is not on the shelf any more", name)
		}
	}
	if w.has("foreign-1-0") || w.shelf.Count() != 3 {
		t.Error("the shelf holds what condafs did not put there")
	}
	for _, name := range []string{newName, graveName} {
		if l, err := os.ReadDir(filepath.Join(filepath.Dir(shelf), name)); err != nil || len(l) > 0 {
			t.Errorf("%s: %v, %v", name, l, err)
		}
	}
	w.close()
	w.mode = Off
	w.open()
	if w.shelf != nil {
		t.Error("a shelf that is off is none")
	}
	if _, err := os.Lstat(filepath.Dir(shelf)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	w.mode = Link
	if err := w.store.Close(); err != nil {
		t.Fatal(err)
	}
	w.open()
	w.settle()
	if w.shelf.Count() != 3 {
		t.Error("what was on it does not come back")
	}
}

// A machine that died may have lost bytes on the shelf, which are never synced.
func TestDeathOfTheMachine(t *testing.T) {
	w := newWorld(t, Copy)
	w.put("a-1-0", conda.TrustVerified, then, files("a"))
	w.shelf.Close()
	copied := filepath.Join(t.TempDir(), "store")
	if out, err := exec.Command("cp", "-a", w.dir, copied).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	shelf := filepath.Join(copied, "shelf")
	torn := filepath.Join(shelf, pkgsName, "a-1-0", "lib", "x.py")
	if err := errors.Join(os.WriteFile(torn, nil, 0o644), os.WriteFile(filepath.Join(shelf, bootName), []byte("another"), 0o600)); err != nil {
		t.Fatal(err)
	}
	other := &world{t: t, dir: copied, mode: Copy, trees: w.trees}
	other.open()
	defer other.close()
	other.settle()
	if got := other.read("a-1-0/lib/x.py"); got != "a" {
		t.Errorf("the shelf serves %q", got)
	}
}

func TestManyPackages(t *testing.T) {
	w := newWorld(t, Auto)
	tickets := map[string]*Ticket{}
	for i := range 30 {
		name := fmt.Sprintf("p%d-1-0", i)
		w.put(name, conda.TrustVerified, then, files(name))
		tickets[name] = w.shelf.Enter()
	}
	for i := 0; i < 30; i += 2 {
		w.delete(fmt.Sprintf("p%d-1-0", i))
	}
	for _, tk := range tickets {
		tk.Leave()
	}
	w.settle()
	for i := range 30 {
		name := fmt.Sprintf("p%d-1-0", i)
		if w.has(name) != (i%2 == 1) {
			t.Errorf("%s on the shelf: %v", name, w.has(name))
		}
	}
}
