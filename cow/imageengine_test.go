package cow

import (
	"bytes"
	"encoding/gob"
	"log/slog"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"condafs/index"
)

// handOver has another engine, over the store opened anew, go on with nothing but an
// image of the first, sent through the codec. It returns what became of nodes and handles.
func (w *world) handOver(known ...*Node) (map[uint64]*Node, func(*Handle) *Handle) {
	w.t.Helper()
	must := func(err error) {
		w.t.Helper()
		if err != nil {
			w.t.Fatal(err)
		}
	}
	old := w.e
	must(old.Pause(ctx))
	must(old.Settle(ctx))
	img, numbers, err := old.Draw(known)
	must(err)
	var b bytes.Buffer
	must(gob.NewEncoder(&b).Encode(img))
	img = new(Image)
	must(gob.NewDecoder(&b).Decode(img))
	// The other process would have them under the same numbers.
	for _, v := range img.views() {
		for i := range v.Handles {
			v.Handles[i].FD = w.dup(v.Handles[i].FD)
		}
		for i, n := range v.Nodes {
			if n.Orphan >= 0 {
				v.Nodes[i].Orphan = w.dup(n.Orphan)
			}
		}
	}
	lock := os.NewFile(uintptr(w.dup(int(w.store.LockFile().Fd()))), "lock")
	w.forgetEngine(old)
	must(w.store.Close())
	w.store, err = index.Open(w.dir, index.Options{Logger: slog.New(slog.DiscardHandler), Inherit: &index.Inheritance{Lock: lock, Pins: img.Pins()}})
	must(err)
	var refs *Refs
	w.e, refs, err = Resume(w.store, w.options(), img)
	must(err)
	w.e.Continue()
	return refs.Nodes, func(h *Handle) *Handle { return refs.Handles[numbers[h]] }
}

func (w *world) dup(fd int) int {
	w.t.Helper()
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

// forgetEngine lets go of what an engine holds in memory, as the end of its process would.
func (w *world) forgetEngine(e *Engine) {
	w.t.Helper()
	e.mu.Lock()
	e.closed = true
	for _, s := range e.sessions {
		for _, cancel := range s.members {
			cancel()
		}
	}
	e.mu.Unlock()
	e.stop()
	for _, s := range e.all() {
		for h := range s.view.handles {
			if err := h.f.Close(); err != nil {
				w.t.Error(err)
			}
		}
		if err := s.release(); err != nil {
			w.t.Error(err)
		}
	}
	if err := e.head.close(); err != nil {
		w.t.Error(err)
	}
}

// again returns the client in the engine that has taken over.
func (w *world) again(c *client) *client {
	w.t.Helper()
	s, ok := w.e.Session(c.s.ID())
	if !ok {
		w.t.Fatalf("session %s is lost", c.s.ID())
	}
	return &client{t: w.t, s: s, v: s.View()}
}

// A package that is half there when the engine is handed over is published when it is
// whole, in the same session, with an open file that goes on being written.
func TestEngineHandedOver(t *testing.T) {
	w := newWorld(t)
	f := makePackage(t, "tool-1.0-0", map[string]string{"lib/data": "data"})
	pid, c := w.process()
	c.download(f)
	c.extract(f)
	c.write("pkgs/plain", "plain")
	h, done, err := c.open("pkgs/open", unix.O_WRONLY)
	c.must(err)
	_, err = h.WriteAt([]byte("one"), 0)
	c.must(err)
	for range 3 {
		nodes, handle := w.handOver(h.n)
		n, old := nodes[h.n.id], h
		h, c = handle(h), w.again(c)
		if h == nil || h.n != n || n == nil || old == h {
			t.Fatalf("handle %v of node %v", h, n)
		}
	}
	_ = done // is about the first engine's
	_, err = h.WriteAt([]byte("two"), 3)
	c.must(err)
	c.must(h.Release())
	c.v.Forget(h.n, 1)
	if got := w.client(pid); got.s.ID() != c.s.ID() {
		t.Error("the process is in another session")
	}
	c.finish(f)
	w.await()
	if got := w.trust(shared + f.dist); got != "verified" {
		t.Errorf("the package is %q", got)
	}
	if got := c.read("pkgs/open"); got != "onetwo" {
		t.Errorf("the open file holds %q", got)
	}
	w.exit(pid)
	if got := w.headFile(mine + "plain"); got != "plain" {
		t.Errorf("a plain file: %q", got)
	}
	_, next := w.process()
	next.has(f)
}

// What ended while nobody could end it ends afterwards, by its own rules.
func TestPausePutsOffTheEnd(t *testing.T) {
	w := newWorld(t)
	f := makePackage(t, "tool-1.0-0", nil)
	pid, c := w.process()
	c.install(f)
	killed, k := w.process()
	k.write("pkgs/cut", "cut short")
	if err := w.e.Pause(ctx); err != nil {
		t.Fatal(err)
	}
	w.exit(pid)
	w.procs.kill(killed)
	w.await()
	if n := len(w.e.Sessions()); n != 2 {
		t.Fatalf("%d sessions", n)
	}
	w.handOver()
	w.await()
	if n := len(w.e.Sessions()); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
	if w.trust(shared+f.dist) != "verified" {
		t.Error("not published")
	}
	if w.head(mine+"cut") != nil {
		t.Error("what a killed process left was committed whole")
	}
}

// What completes while the engine is paused is checked when it goes on, here or elsewhere.
func TestPausePutsOffChecks(t *testing.T) {
	for _, elsewhere := range []bool{false, true} {
		w := newWorldAt(t, t.TempDir())
		f := makePackage(t, "tool-1.0-0", nil)
		_, c := w.process()
		if err := w.e.Pause(ctx); err != nil {
			t.Fatal(err)
		}
		c.install(f)
		w.await()
		if w.head(shared+f.dist) != nil {
			t.Error("published while paused")
		}
		if elsewhere {
			w.handOver()
		} else {
			w.e.Continue()
		}
		w.await()
		if w.trust(shared+f.dist) != "verified" {
			t.Errorf("elsewhere %v: not published", elsewhere)
		}
		w.close()
	}
}

// Pauses and what they put off come at any moment of what clients do.
func TestPauseUnderLoad(t *testing.T) {
	w := newWorld(t)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	end := sync.OnceFunc(func() { close(stop); wg.Wait() })
	defer end()
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := w.e.Pause(ctx); err != nil {
				t.Error(err)
				return
			}
			w.e.Continue()
		}
	})
	var names []string
	for i := range 12 {
		f := makePackage(t, "tool-1."+string(rune('a'+i))+"-0", nil)
		names = append(names, f.dist)
		pid, c := w.process()
		c.install(f)
		w.procs.exit(pid)
	}
	end()
	w.await()
	for _, n := range names {
		if w.trust(shared+n) != "verified" {
			t.Errorf("%s is not published", n)
		}
	}
	if n := len(w.e.Sessions()); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
}

// A session that an earlier daemon began tells the kernel what it gains, like any other.
func TestRecoveredSessionInvalidates(t *testing.T) {
	w := newWorld(t)
	_, c := w.process()
	c.write("pkgs/note", "1")
	other := makePackage(t, "tool-1.0-0", nil)
	pid, o := w.process()
	o.install(other)
	w.exit(pid)
	entry := *w.head(shared + other.dist)
	w.close()
	w.open()
	w.await()
	heard := make(heardNames)
	w.e.SetInvalidator(heard)
	if ok, err := w.again(c).v.Gain("pkgs/"+other.dist, entry); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if !heard[other.dist] {
		t.Errorf("heard of %v only", heard)
	}
}

type heardNames map[string]bool

func (h heardNames) EntryChanged(_ *Node, name string) { h[name] = true }
func (h heardNames) NodeChanged(*Node)                 {}
func (h heardNames) SessionEnded(string)               {}
