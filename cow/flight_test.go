package cow

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"condafs/conda"
	"condafs/index"
)

// plan is what conda does before it fetches: it tries to write to urls.txt, and lists the directory. The channel is
// closed when the listing goes on.
func (c *client) plan(cancel <-chan struct{}) <-chan struct{} {
	c.t.Helper()
	_, done, err := c.open("pkgs/urls.txt", unix.O_RDWR|unix.O_CREAT|unix.O_APPEND)
	c.must(err)
	done()
	went := make(chan struct{})
	go func() {
		defer close(went)
		c.must(c.on("pkgs", func(n *Node, _ Attr) error { c.v.OpenDir(n, cancel); return nil }))
	}()
	return went
}

func (c *client) index() {
	c.t.Helper()
	c.mkdirs("pkgs/cache")
	c.write("pkgs/cache/0123abcd.json", "{}")
}

// waits demands that a plan does not go on by itself.
func waits(t *testing.T, went <-chan struct{}) {
	t.Helper()
	select {
	case <-went:
		t.Error("it did not wait")
	case <-time.After(100 * time.Millisecond):
	}
}

// goes demands that it does, however long that takes on a busy machine.
func goes(t *testing.T, went <-chan struct{}) {
	t.Helper()
	select {
	case <-went:
	case <-time.After(time.Minute):
		t.Fatal("it waits for ever")
	}
}

// Who plans while another brings a package finds it then.
func TestOneBringsForAll(t *testing.T) {
	w := newWorld(t)
	f := makePackage(t, "tool-1.0-0", nil)
	first, a := w.process()
	second, b := w.process()
	a.write("pkgs/"+f.fn()+".partial", f.archive[:5])
	went := b.plan(nil)
	waits(t, went)
	a.write("pkgs/"+f.fn()+".partial", f.archive)
	a.rename("pkgs/"+f.fn()+".partial", "pkgs/"+f.fn())
	a.extract(f)
	waits(t, went)
	a.finish(f)
	goes(t, went)
	b.has(f)
	if got := b.read("pkgs/" + f.fn()); got != f.archive {
		t.Errorf("the archive that it finds has %d bytes", len(got))
	}
	// It is as much b's as anything that it started from.
	b.remove("pkgs/" + f.fn())
	w.exit(first)
	w.exit(second)
	if w.head(shared+f.fn()) != nil || w.head(shared+f.dist) == nil {
		t.Error("the deletion of what was gained does not hold, or took more along")
	}
	w.tidy()
}

// conda unpacks whatever archive it finds without its directory, so such a one is nothing to show to who has waited.
func TestArchiveAloneIsNotGained(t *testing.T) {
	w := newWorld(t)
	f := makePackage(t, "tool-1.0-0", nil)
	first, a := w.process()
	_, b := w.process()
	a.write("pkgs/"+f.fn()+".partial", f.archive)
	went := b.plan(nil)
	a.rename("pkgs/"+f.fn()+".partial", "pkgs/"+f.fn())
	w.exit(first)
	goes(t, went)
	if w.head(mine+f.fn()) == nil && w.head(shared+f.fn()) == nil {
		t.Fatal("the archive was not published")
	}
	if b.exists("pkgs/" + f.fn()) {
		t.Error("it is shown")
	}
}

// rattler's clients plan when they have locked their cache. What one of them brings, the next of the same user finds.
func TestOneRattlerBringsForAll(t *testing.T) {
	w := newWorld(t)
	f := makePackage(t, "tool-1.0-0", nil)
	_, a := w.process()
	_, b := w.process()
	lock := func(c *client) <-chan struct{} {
		went := make(chan struct{})
		go func() {
			defer close(went)
			c.must(c.on("rattler/pkgs", func(n *Node, _ Attr) error { c.v.Approach(n, conda.RattlerCacheLock, nil); return nil }))
			c.write("rattler/pkgs/"+conda.RattlerCacheLock, "")
		}()
		return went
	}
	goes(t, lock(a))
	meta, release, err := a.open("rattler/pkgs/tool-1.0-0.lock", unix.O_RDWR)
	a.must(err)
	went := lock(b)
	waits(t, went)
	const tmp, final = "rattler/pkgs/.tool-1.0-0aB3dE5", "rattler/pkgs/tool-1.0-0"
	for _, p := range slices.Sorted(maps.Keys(f.files)) {
		a.mkdirs(path.Dir(tmp + "/" + p))
		a.write(tmp+"/"+p, f.files[p])
	}
	a.symlink(tmp+"/lib/link", "data")
	a.rename(tmp, final)
	_, err = meta.WriteAt([]byte("12345678"), 0)
	a.must(err)
	w.await()
	waits(t, went)
	release()
	goes(t, went)
	for p, content := range f.files {
		if got := b.read(final + "/" + p); got != content {
			t.Errorf("%s holds %q", p, got)
		}
	}
	if got := b.read(final + ".lock"); got != "12345678" {
		t.Errorf("its metadata is %q", got)
	}
}

// Only those wait who plan, and never for one who gave up, died or stands still.
func TestNobodyWaitsInVain(t *testing.T) {
	f := makePackage(t, "tool-1.0-0", nil)
	partial := "pkgs/" + f.fn() + ".partial"
	tests := map[string]func(w *world, pid int, a *client){
		"dies":            func(w *world, pid int, a *client) { w.exit(pid) },
		"gives up":        func(w *world, pid int, a *client) { a.remove(partial) },
		"stands still":    func(w *world, pid int, a *client) {},
		"brings rubbish":  func(w *world, pid int, a *client) { a.rename(partial, "pkgs/"+f.fn()); a.extract(f); a.finish(f) },
		"is thrown away":  func(w *world, pid int, a *client) { a.must(w.e.Discard(ctx, a.s.ID())) },
		"commits nothing": func(w *world, pid int, a *client) { a.must(w.e.EndAll(ctx)) },
	}
	for name, then := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			pid, a := w.process()
			_, b := w.process()
			_, looker := w.process()
			a.write(partial, "half of it")
			looker.list("pkgs")
			went := b.plan(nil)
			waits(t, went)
			then(w, pid, a)
			goes(t, went)
		})
	}
}

func TestCanceledWait(t *testing.T) {
	w := newWorld(t)
	_, a := w.process()
	_, b := w.process()
	a.write("pkgs/tool-1.0-0.conda.partial", "half of it")
	cancel := make(chan struct{})
	went := b.plan(cancel)
	waits(t, went)
	close(cancel)
	goes(t, went)
}

// Of several that plan at the same time on a channel that is new to all, one goes first.
func TestFirstOfManyPlanners(t *testing.T) {
	w := newWorld(t)
	_, a := w.process()
	_, b := w.process()
	_, warm := w.process()
	a.index()
	b.index()
	goes(t, a.plan(nil))
	went := b.plan(nil)
	goes(t, warm.plan(nil)) // it has no index of its own, and so nothing to fetch, most likely
	a.write("pkgs/tool-1.0-0.conda.partial", "half of it")
	waits(t, went)
	a.remove("pkgs/tool-1.0-0.conda.partial")
	goes(t, went)
}

// Whatever many clients do, in whatever order, all of them come to an end, and what they bring is there.
func TestFlightsEnd(t *testing.T) {
	const clients, packages = 6, 5
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	w := newWorld(t)
	var fixtures []*fixture
	for i := range packages {
		fixtures = append(fixtures, makePackage(t, fmt.Sprintf("p%d-1.0-0", i), nil))
	}
	var all sync.WaitGroup
	var pids []int
	for i := range clients {
		pid, c := w.process()
		pids = append(pids, pid)
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		all.Go(func() {
			if r.IntN(2) == 0 {
				c.index()
			}
			<-c.plan(nil)
			for _, at := range r.Perm(packages) {
				f := fixtures[at]
				if !c.exists("pkgs/" + f.dist) {
					c.install(f)
				}
				if r.IntN(3) == 0 {
					<-c.plan(nil)
				}
			}
		})
	}
	all.Wait()
	for _, pid := range pids {
		w.exit(pid)
	}
	for _, f := range fixtures {
		if w.head(shared+f.dist) == nil {
			t.Errorf("%s is not there", f.dist)
		}
	}
	w.tidy()
}

// What a view has gained from others stays in it, whoever deletes it, through a restart and a collection of garbage.
func TestGainedStays(t *testing.T) {
	w := newWorld(t)
	f := makePackage(t, "tool-1.0-0", nil)
	first, a := w.process()
	second, b := w.process()
	b.write("pkgs/note.txt", "so that the session is recorded")
	a.write("pkgs/"+f.fn()+".partial", f.archive)
	went := b.plan(nil)
	a.rename("pkgs/"+f.fn()+".partial", "pkgs/"+f.fn())
	a.extract(f)
	a.finish(f)
	goes(t, went)
	b.has(f)
	w.exit(first)
	third, c := w.process()
	c.remove("pkgs/" + f.dist)
	c.remove("pkgs/" + f.fn())
	w.exit(third)
	if w.head(shared+f.dist) != nil {
		t.Fatal("the deletion does not hold")
	}
	collect := func() {
		t.Helper()
		if _, err := w.store.GC(ctx, index.GCOptions{}, nil); err != nil {
			t.Fatal(err)
		}
	}
	collect()
	b.has(f)
	w.close()
	w.open()
	collect()
	w.client(second).has(f)
	w.exit(second)
	w.tidy()
}
