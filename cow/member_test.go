package cow

import (
	"context"
	"testing"
	"time"

	"condafs/fault"

	"golang.org/x/sys/unix"
)

func TestMembership(t *testing.T) {
	w := newWorld(t)
	id := func(pid int) string { return w.client(pid).s.ID() }
	shell := w.procs.spawn(1)
	own := id(shell)
	if id(shell) != own {
		t.Error("a process has two sessions")
	}
	a, b := w.procs.spawn(shell), w.procs.spawn(shell)
	if id(a) == own || id(b) == own || id(a) == id(b) {
		t.Error("children of a shell that only looked share a session")
	}
	w.client(a).write("pkgs/urls.txt", "x\n")
	worker := w.procs.spawn(w.procs.spawn(a)) // with a process in between that never looked
	if id(worker) != id(a) {
		t.Error("a child is not in the session of the ancestor that has written")
	}
	if other := w.procs.spawn(shell); id(other) == id(a) {
		t.Error("a sibling is in the session")
	}
	if s := w.clientAs(worker, me+1).s; s.ID() == id(a) || s.UID() != me+1 {
		t.Error("a process that changed its user is in the session of the other one")
	}
}

// A conda's extracting children come when its archives are committed already, and
// it writes into what they make.
func TestChildJoinsWhenAllIsCommitted(t *testing.T) {
	w := newWorld(t)
	pid, c := w.process()
	c.install(makePackage(t, "tool-1.0-0", nil))
	w.await()
	if c.s.dirty() {
		t.Fatal("not committed")
	}
	if w.client(w.procs.spawn(pid)).s != c.s {
		t.Error("the child has a session of its own")
	}
}

func TestNearestAncestorDecides(t *testing.T) {
	w := newWorld(t)
	outer := w.procs.spawn(1)
	inner := w.procs.spawn(outer)
	w.client(outer)
	w.client(inner) // of its own: outer was clean
	w.client(outer).write("pkgs/urls.txt", "x\n")
	leaf := w.client(w.procs.spawn(inner))
	if leaf.s == w.client(outer).s || leaf.s == w.client(inner).s {
		t.Error("it joined a session although its nearest ancestor's is clean")
	}
}

func TestExplicitSession(t *testing.T) {
	w := newWorld(t)
	run := w.procs.spawn(1)
	s, err := w.e.StartSession(StartOptions{PID: run, UID: me, GID: me, Label: "job 7"})
	if err != nil {
		t.Fatal(err)
	}
	cmd := w.procs.spawn(run)
	daemon := w.procs.spawn(w.procs.spawn(cmd))
	for _, pid := range []int{cmd, daemon} {
		if w.client(pid).s != s {
			t.Error("a descendant is elsewhere")
		}
	}
	w.exit(cmd)
	d := w.client(daemon) // an orphan by now
	if d.s != s {
		t.Error("an orphan has lost its session")
	}
	r, err := w.e.End(context.Background(), s.ID(), Outcome{})
	if err != nil {
		t.Fatalf("%+v, %v", r, err)
	}
	d.write("pkgs/urls.txt", "late\n")
	w.exit(daemon)
	if _, ok := w.e.Session(s.ID()); ok {
		t.Error("it has not ended with its last process")
	}
	if got := w.headFile(PrivateSpace(me) + "/pkgs/urls.txt"); got != "late\n" {
		t.Errorf("urls.txt: %q", got)
	}
	if _, err := w.e.End(context.Background(), s.ID(), Outcome{}); !fault.Is(err, fault.NotFound) {
		t.Errorf("the second end: %v", err)
	}
}

func TestReusedPidIsANewMember(t *testing.T) {
	w := newWorld(t)
	pid, c := w.process()
	c.write("pkgs/urls.txt", "x\n")
	before := c.s
	w.procs.mu.Lock()
	delete(w.procs.procs, pid) // its exit has not been noticed yet
	w.procs.mu.Unlock()
	w.procs.reuse(pid, 1)
	if w.client(pid).s == before {
		t.Error("a new process is in the session of one that had its pid")
	}
}

func TestForeignCallersShareASession(t *testing.T) {
	w := newWorld(t)
	a, b, other := w.clientAs(0, me), w.clientAs(0, me), w.clientAs(0, me+1)
	if a.s != b.s || a.s == other.s {
		t.Error("it is one session for each user")
	}
	a.write("pkgs/urls.txt", "x\n")
	w.await()
	w.now = w.now.Add(w.e.o.RepinAfter)
	w.e.endIfQuiet(a.s)
	w.await()
	if got := w.headFile(PrivateSpace(me) + "/pkgs/urls.txt"); got != "x\n" {
		t.Errorf("urls.txt: %q", got)
	}
	if w.clientAs(0, me).s == a.s {
		t.Error("the ended session goes on")
	}
}

func TestIdleShellGetsAFreshView(t *testing.T) {
	w := newWorld(t)
	shell, _ := w.process()
	f := makePackage(t, "tool-1.0-0", nil)
	pid, c := w.process()
	c.install(f)
	w.exit(pid)

	before := w.client(shell)
	if before.exists("pkgs/" + f.dist) {
		t.Error("its view has changed")
	}
	w.now = w.now.Add(w.e.o.RepinAfter - time.Second)
	if w.client(shell).s != before.s {
		t.Error("replaced too early")
	}
	w.now = w.now.Add(w.e.o.RepinAfter)
	after := w.client(shell)
	if after.s == before.s || !after.exists("pkgs/"+f.dist) {
		t.Error("it still sees the old head")
	}
	w.await()
	if _, ok := w.e.Session(before.s.ID()); ok {
		t.Error("its old session is still there")
	}
	after.write("pkgs/urls.txt", "x\n")
	other, c2 := w.process()
	c2.install(makePackage(t, "tool-2.0-0", nil))
	w.exit(other)
	w.now = w.now.Add(2 * w.e.o.RepinAfter)
	if w.client(shell).s != after.s {
		t.Error("a session that has written was replaced")
	}
}

func TestSessionEndsWhenItsHandlesAreClosed(t *testing.T) {
	w := newWorld(t)
	pid, c := w.process()
	h, done, err := c.open("pkgs/urls.txt", unix.O_WRONLY)
	if err != nil {
		t.Fatal(err)
	}
	w.exit(pid)
	if _, err := h.WriteAt([]byte("x\n"), 0); err != nil {
		t.Fatal(err)
	}
	if w.head(PrivateSpace(me)+"/pkgs/urls.txt") != nil {
		t.Error("committed with a file open")
	}
	done()
	w.await()
	if got := w.headFile(PrivateSpace(me) + "/pkgs/urls.txt"); got != "x\n" {
		t.Errorf("urls.txt: %q", got)
	}
}

type endings chan string

func (endings) EntryChanged(*Node, string) {}
func (endings) NodeChanged(*Node)          {}
func (c endings) SessionEnded(id string)   { c <- id }

// TestEndedTreeStaysReadable is about a shell that stands in a directory of a
// session whose member has exited.
func TestEndedTreeStaysReadable(t *testing.T) {
	w := newWorld(t)
	ended := make(endings, 1)
	w.e.SetInvalidator(ended)
	f := makePackage(t, "tool-1.0-0", nil)
	pid, c := w.process()
	c.install(f)
	pkgs, _, err := c.v.Lookup(c.v.Root(), "pkgs")
	c.must(err)
	w.exit(pid)
	if id := <-ended; id != c.s.ID() {
		t.Errorf("%s has ended", id)
	}
	if _, ok := w.e.Session(c.s.ID()); !ok {
		t.Error("the session cannot be found while its tree is in use")
	}
	if len(w.e.Sessions()) != 0 {
		t.Error("it is listed")
	}
	c.has(f)
	if err := c.tryWrite("pkgs/urls.txt", "x"); err == nil {
		t.Error("it takes a write")
	}
	c.v.Forget(pkgs, 1)
	w.await()
	if _, ok := w.e.Session(c.s.ID()); ok {
		t.Error("the session is kept for ever")
	}
	if c.exists("pkgs") {
		t.Error("the view was not closed")
	}
}
