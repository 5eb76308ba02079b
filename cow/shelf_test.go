package cow

import (
	"maps"
	"os"
	"path"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"condafs/hashing"
	"condafs/index"
)

// fakeShelf holds what it was told to hold, or, with a directory, what it is offered, and counts tickets.
type fakeShelf struct {
	mu      sync.Mutex
	dir     string // where it says that it is
	holds   map[string]bool
	trees   map[string]hashing.Digest // of what it holds, where that matters
	offered []string
	tickets int
}

func (f *fakeShelf) Enter() ShelfTicket {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tickets++
	return &fakeTicket{f}
}

func (f *fakeShelf) Reenter(uint64) ShelfTicket { return f.Enter() }

func (f *fakeShelf) Offer(names ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.offered = append(f.offered, names...)
	if f.dir == "" {
		return
	}
	for _, name := range names {
		if err := os.Mkdir(f.dir+"/"+name, 0o755); err != nil {
			panic(err)
		}
		f.holds[name] = true
	}
}

func (f *fakeShelf) Sync() {}

func (f *fakeShelf) Path() string {
	if f.dir != "" {
		return f.dir
	}
	return "/shelf"
}

type fakeTicket struct{ f *fakeShelf }

func (t *fakeTicket) Hides(name string, tree hashing.Digest) bool {
	t.f.mu.Lock()
	defer t.f.mu.Unlock()
	if d, ok := t.f.trees[name]; ok && d != tree {
		return false
	}
	return !tree.IsZero() && t.f.holds[name]
}

func (t *fakeTicket) Holds(name string, tree hashing.Digest) bool { return t.Hides(name, tree) }

func (t *fakeTicket) Held(name string) (hashing.Digest, bool) {
	t.f.mu.Lock()
	defer t.f.mu.Unlock()
	d, ok := t.f.trees[name]
	return d, ok
}

func (t *fakeTicket) Since() uint64 { return 0 }

func (t *fakeTicket) Leave() {
	t.f.mu.Lock()
	defer t.f.mu.Unlock()
	t.f.tickets--
}

// A session beside the shelf finds there what is on it, and on the mount what isn't: a package and its archive, in
// lookups and listings alike. Other sessions see everything.
func TestBesideShelf(t *testing.T) {
	w := newWorld(t)
	shelf := &fakeShelf{holds: map[string]bool{}}
	w.e.o.Shelf = shelf
	for _, name := range []string{"tool-1.0-0", "other-1.0-0"} {
		pid, c := w.process()
		c.install(makePackage(t, name, nil))
		w.exit(pid)
	}
	if !slices.Equal(shelf.offered, []string{"tool-1.0-0", "other-1.0-0"}) {
		t.Errorf("the shelf was offered %q", shelf.offered)
	}
	shelf.holds["tool-1.0-0"] = true
	see := func(beside bool) []string {
		t.Helper()
		pid := w.procs.spawn(1)
		s, err := w.e.SessionFor(pid, me, me, beside)
		if err != nil {
			t.Fatal(err)
		}
		c := &client{t: t, s: s, v: s.View()}
		var seen []string
		for _, name := range c.list("pkgs") {
			if c.exists("pkgs/" + name) {
				seen = append(seen, name)
			} else {
				t.Errorf("%s is listed and not there", name)
			}
		}
		for _, name := range []string{"tool-1.0-0", "tool-1.0-0.conda", "tool-1.0-0/info/index.json"} {
			if c.exists("pkgs/"+name) == beside {
				t.Errorf("beside the shelf: %v; %s is there: %v", beside, name, !beside)
			}
		}
		w.exit(pid)
		return seen
	}
	all, rest := see(false), see(true)
	want := []string{"cache", "other-1.0-0", "other-1.0-0.conda"}
	rest = slices.DeleteFunc(rest, func(s string) bool { return s == "urls.txt" || s == "urls" })
	if !slices.Equal(rest, want) || len(all) < len(want)+2 {
		t.Errorf("beside the shelf %q, else %q", rest, all)
	}
	if shelf.tickets != 0 {
		t.Errorf("%d tickets were not given back", shelf.tickets)
	}
	w.tidy()
}

// What hides is only what is the same as on the shelf.
func TestOnlyTheSamePackageHides(t *testing.T) {
	var got hashing.Digest
	b := besideShelf{ticket: digestTicket{&got}}
	want := hashing.Sum([]byte("tree"))
	if hidden, err := b.hides("tool-1.0-0", &index.Entry{Kind: index.KindTree, Digest: want}); err != nil || hidden || got != want {
		t.Errorf("hidden: %v, %v; asked for %v", hidden, err, got)
	}
}

type digestTicket struct{ got *hashing.Digest }

func (d digestTicket) Hides(_ string, tree hashing.Digest) bool { *d.got = tree; return false }
func (d digestTicket) Holds(string, hashing.Digest) bool        { return false }
func (d digestTicket) Held(string) (hashing.Digest, bool)       { return hashing.Digest{}, false }
func (d digestTicket) Since() uint64                            { return 0 }
func (d digestTicket) Leave()                                   {}

// rattlerPackage makes a package as rattler's clients do.
func (c *client) rattlerPackage(f *fixture) {
	c.t.Helper()
	lock, release, err := c.open("rattler/pkgs/"+f.dist+".lock", unix.O_RDWR)
	c.must(err)
	tmp, final := "rattler/pkgs/."+f.dist+"aB3dE5", "rattler/pkgs/"+f.dist
	for _, p := range slices.Sorted(maps.Keys(f.files)) {
		c.mkdirs(path.Dir(tmp + "/" + p))
		c.write(tmp+"/"+p, f.files[p])
	}
	c.symlink(tmp+"/lib/link", "data")
	c.rename(tmp, final)
	_, err = lock.WriteAt([]byte("12345678"), 0)
	c.must(err)
	release()
}

// rattler's clients see a link to the shelf in the place of a package that is there, and nothing else about it changes:
// what they use stays as it is, and what they remove is removed.
func TestRattlerByShelf(t *testing.T) {
	w := newWorld(t)
	shelf := &fakeShelf{holds: map[string]bool{}}
	w.e.o.RattlerShelf = shelf
	w.e.owner = me
	pid, c := w.process()
	c.rattlerPackage(makePackage(t, "tool-1.0-0", nil))
	c.rattlerPackage(makePackage(t, "other-1.0-0", nil))
	w.exit(pid)
	slices.Sort(shelf.offered)
	if !slices.Equal(shelf.offered, []string{"other-1.0-0", "tool-1.0-0"}) {
		t.Errorf("the shelf was offered %q", shelf.offered)
	}
	shelf.holds["tool-1.0-0"] = true
	pid, c = w.process()
	if got := c.read("rattler/pkgs/tool-1.0-0"); got != "/shelf/tool-1.0-0" {
		t.Errorf("it leads to %q", got)
	}
	if !c.exists("rattler/pkgs/other-1.0-0/info/index.json") {
		t.Error("what is not on the shelf is not there")
	}
	before := w.store.Head()
	for _, name := range []string{"tool-1.0-0", "other-1.0-0"} {
		_, release, err := c.open("rattler/pkgs/"+name+".lock", unix.O_RDWR)
		c.must(err)
		release()
	}
	w.exit(pid)
	if w.store.Head() != before {
		t.Error("to use a package was taken for a change")
	}
	if w.head("u4711/rattler/pkgs/tool-1.0-0").Kind != index.KindTree {
		t.Error("the link was taken for the package")
	}
	pid, c = w.process()
	c.remove("rattler/pkgs/tool-1.0-0")
	c.remove("rattler/pkgs/tool-1.0-0.lock")
	w.exit(pid)
	if w.head("u4711/rattler/pkgs/tool-1.0-0") != nil {
		t.Error("the package was not removed")
	}
	_, c = w.process()
	if c.exists("rattler/pkgs/tool-1.0-0") {
		t.Error("it is still there")
	}
	if shelf.tickets != 1 {
		t.Errorf("%d tickets, for one session", shelf.tickets)
	}
}
