package cow

import (
	"slices"
	"sync"
	"testing"

	"condafs/hashing"
	"condafs/index"
)

// fakeShelf holds what it was told to hold, and counts tickets.
type fakeShelf struct {
	mu      sync.Mutex
	holds   map[string]bool
	offered []string
	tickets int
}

func (f *fakeShelf) Enter() ShelfTicket {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tickets++
	return &fakeTicket{f}
}

func (f *fakeShelf) Offer(names ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.offered = append(f.offered, names...)
}

func (f *fakeShelf) Sync() {}

type fakeTicket struct{ f *fakeShelf }

func (t *fakeTicket) Hides(name string, tree hashing.Digest) bool {
	t.f.mu.Lock()
	defer t.f.mu.Unlock()
	return !tree.IsZero() && t.f.holds[name]
}

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
func (d digestTicket) Leave()                                   {}
