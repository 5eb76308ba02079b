package cow

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"condafs/hashing"
)

// reads opens a package's list of files as the kernel does for a process, and reports
// whether the view shows another thing there since.
func (c *client) reads(dist string, pid int) (again bool) {
	c.t.Helper()
	c.must(c.on("pkgs/"+dist+"/info/paths.json", func(n *Node, _ Attr) error {
		again = c.v.Reading(n, pid, nil)
		return nil
	}))
	return again
}

// newShelvedWorld is a world whose clients' user owns the store, with a shelf that takes
// what it is offered.
func newShelvedWorld(t *testing.T) (*world, *fakeShelf) {
	t.Helper()
	w := newWorld(t)
	shelf := &fakeShelf{dir: t.TempDir(), holds: map[string]bool{}}
	w.e.o.Shelf, w.e.owner = shelf, me
	return w, shelf
}

// Who has brought a package, and then reads what it consists of, gets it natively.
func TestOwnPackageIsShelved(t *testing.T) {
	w, shelf := newShelvedWorld(t)
	pid, c := w.process()
	f := makePackage(t, "tool-1.0-0", nil)
	c.install(f) // nobody waits until it is published: reading it does
	var dir *Node
	c.must(c.on("pkgs/tool-1.0-0/info", func(n *Node, _ Attr) (err error) {
		dir, _, err = c.v.Lookup(n.links[0].dir, "info")
		return err
	}))
	if !c.reads(f.dist, os.Getpid()) {
		t.Fatal("it is not shelved")
	}
	if got := c.read("pkgs/tool-1.0-0"); got != shelf.dir+"/tool-1.0-0" {
		t.Errorf("it leads to %q", got)
	}
	// Who is in the directory goes on there.
	n, a, err := c.v.Lookup(dir, "index.json")
	c.must(err)
	if h, err := c.v.Open(n, unix.O_RDONLY); err != nil {
		t.Errorf("open from within: %v", err)
	} else if got, err := readHandle(h); err != nil || got != f.files["info/index.json"] || a.Nlink != 1 {
		t.Errorf("from within it is %q, %v, %+v", got, err, a)
	} else {
		c.must(h.Release())
	}
	if list, err := c.v.ReadDir(dir); err != nil || len(list) != 3 {
		t.Errorf("from within one sees %v, %v", list, err)
	}
	if _, err := c.v.Open(n, unix.O_WRONLY); err != unix.ESTALE {
		t.Errorf("writing from within: %v, want ESTALE", err)
	}
	if _, _, err := c.v.Mkdir(dir, "new", 0o755); err != unix.ESTALE {
		t.Errorf("making a directory from within: %v, want ESTALE", err)
	}
	c.v.Forget(n, 1)
	c.v.Forget(dir, 1)
	w.exit(pid)
	if e := w.head(shared + f.dist); e == nil {
		t.Error("the package is not in the head")
	}
	w.tidy()
}

// conda writes a package's record twice, and by the second time the package may be published. It is the one on the shelf all the same, if
// the record says the same.
func TestRecordIsWrittenTwice(t *testing.T) {
	for _, test := range []struct {
		name    string
		change  func(c *client, f *fixture)
		shelved bool
	}{
		{"the same again", func(c *client, f *fixture) { c.write("pkgs/"+f.dist+"/info/repodata_record.json", f.record) }, true},
		{"another", func(c *client, f *fixture) { c.write("pkgs/"+f.dist+"/info/repodata_record.json", f.record+" ") }, false},
		{"a file more", func(c *client, f *fixture) { c.write("pkgs/"+f.dist+"/lib/more", "") }, false},
		{"another file", func(c *client, f *fixture) { c.write("pkgs/"+f.dist+"/info/index.json", f.files["info/index.json"]) }, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			w, shelf := newShelvedWorld(t)
			pid, c := w.process()
			f := makePackage(t, "tool-1.0-0", nil)
			c.install(f)
			w.await()
			e := w.head(shared + f.dist)
			if e == nil {
				t.Fatal("not published")
			}
			shelf.trees = map[string]hashing.Digest{f.dist: e.Digest}
			time.Sleep(10 * time.Millisecond) // the file system's clock ticks every few
			test.change(c, f)
			w.await()
			if got := c.reads(f.dist, os.Getpid()); got != test.shelved {
				t.Errorf("shelved: %t", got)
			}
			w.exit(pid)
		})
	}
}

// A package of the snapshot is shelved like one's own; removing the link removes the package, and making it anew
// makes it anew.
func TestShelvedPackageIsRemoved(t *testing.T) {
	w, _ := newShelvedWorld(t)
	f, g := makePackage(t, "tool-1.0-0", nil), makePackage(t, "other-1.0-0", nil)
	pid, c := w.process()
	c.install(f)
	c.install(g)
	w.exit(pid)
	pid, c = w.process()
	for _, p := range []*fixture{f, g} {
		if !c.reads(p.dist, os.Getpid()) {
			t.Fatalf("%s is not shelved", p.dist)
		}
		c.remove("pkgs/" + p.dist)
	}
	c.extract(g)
	c.finish(g)
	c.has(g)
	w.exit(pid)
	if w.head(shared+f.dist) != nil {
		t.Error("the package was not removed")
	}
	if w.head(shared+g.dist) == nil {
		t.Error("the package that was made anew is gone")
	}
	pid, c = w.process()
	if c.exists("pkgs/" + f.dist) {
		t.Error("it is still there")
	}
	c.has(g)
	w.exit(pid)
	w.tidy()
}

// The next daemon's view shows what this one's did.
func TestShelvedPackageOutlivesTheDaemon(t *testing.T) {
	w, shelf := newShelvedWorld(t)
	f := makePackage(t, "tool-1.0-0", nil)
	pid, c := w.process()
	c.install(f)
	if !c.reads(f.dist, os.Getpid()) {
		t.Fatal("it is not shelved")
	}
	c.write("pkgs/note", "kept")
	w.close()
	w.open()
	w.e.o.Shelf, w.e.owner = shelf, me
	c = w.client(pid)
	if got := c.read("pkgs/tool-1.0-0"); got != shelf.dir+"/tool-1.0-0" || c.read("pkgs/note") != "kept" {
		t.Errorf("it leads to %q", got)
	}
	w.exit(pid)
	w.tidy()
}

func TestWhatIsNotShelved(t *testing.T) {
	for _, c := range []struct {
		name string
		pid  int
		do   func(w *world, shelf *fakeShelf, c *client, dist string)
	}{
		{"a client that cannot be seen", 0, nil},
		{"a client of another root", os.Getpid(), func(_ *world, shelf *fakeShelf, _ *client, dist string) {
			if err := os.Remove(shelf.dir + "/" + dist); err != nil {
				panic(err)
			}
		}},
		{"a package that is not on the shelf", os.Getpid(), func(_ *world, shelf *fakeShelf, _ *client, dist string) { shelf.holds[dist] = false }},
		{"a package that was changed", os.Getpid(), func(_ *world, _ *fakeShelf, c *client, dist string) { c.write("pkgs/"+dist+"/lib/data", "changed") }},
		{"another user's", os.Getpid(), func(w *world, _ *fakeShelf, _ *client, _ string) { w.e.owner = me + 1 }},
		{"the daemon stops", os.Getpid(), func(_ *world, _ *fakeShelf, c *client, _ string) { c.v.Retire() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, shelf := newShelvedWorld(t)
			f := makePackage(t, "tool-1.0-0", nil)
			pid, cl := w.process()
			cl.install(f)
			w.await()
			if c.do != nil {
				c.do(w, shelf, cl, f.dist)
			}
			if cl.reads(f.dist, c.pid) {
				t.Error("it was shelved")
			}
			if !cl.exists("pkgs/" + f.dist + "/lib/data") {
				t.Error("its files are gone")
			}
			w.exit(pid)
		})
	}
}
