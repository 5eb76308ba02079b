//go:build condafs_faults

package cow

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"condafs/conda"
	"condafs/fault"
	"condafs/hashing"
	"condafs/index"
	"condafs/internal/failpoint"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

var errDead = fault.New("die", "", fault.IO, errors.New("the daemon is dead"))

// gate stops the engine at a step of a commit until it is opened, or lets it die there.
type gate struct {
	mu      sync.Mutex
	armed   failpoint.Point
	arrived bool
	opened  chan error
	dead    bool
	full    failpoint.Point // fails once
}

func newGate() *gate { return &gate{opened: make(chan error)} }

func (g *gate) reach(at failpoint.Point) error {
	g.mu.Lock()
	switch {
	case g.dead:
		g.mu.Unlock()
		return errDead
	case g.full == at:
		g.full = ""
		g.mu.Unlock()
		return fault.New("write", "disk", fault.Full, unix.ENOSPC)
	case g.armed != at:
		g.mu.Unlock()
		return nil
	}
	g.armed, g.arrived = "", true
	g.mu.Unlock()
	return <-g.opened
}

func (g *gate) arm(at failpoint.Point) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.armed = at
}

// fail makes the next one who comes to a step fail there; it reports whether nobody
// has come since the last call.
func (g *gate) fail(at failpoint.Point) (unused bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	unused = g.full != ""
	g.full = at
	return unused
}

func (g *gate) hasArrived() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.arrived
}

// open lets who waits go on, or fail, and everybody after him.
func (g *gate) open(err error) {
	g.mu.Lock()
	waits := g.arrived
	g.armed, g.arrived, g.dead = "", false, err != nil
	g.mu.Unlock()
	if waits {
		g.opened <- err
	}
}

// revive lets a new daemon pass.
func (g *gate) revive() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.dead = false
}

// pausing is a commit that stands at a step.
type pausing struct {
	s    *idealSession
	at   failpoint.Point
	pkg  string // "": all of a session that is over
	exit int

	meddled bool    // its client has changed what is being committed
	heads   []facts // since it stopped
}

// look notes what a commit that stands before its publication can have seen of the head.
func (p *pausing) look(head facts) {
	if p.pkg == "" && p.at == failpoint.PublishBegin && len(p.heads) > 0 {
		return // all is checked
	}
	if len(p.heads) == 0 || !maps.Equal(p.heads[len(p.heads)-1], head) {
		p.heads = append(p.heads, maps.Clone(head))
	}
}

// sweeping is a garbage collection that goes on beside the rest.
type sweeping struct {
	open chan struct{}
	done chan error
}

// settle waits until the engine has done all that it does in the background, but for
// what stands at the gate.
func (h *history) settle() {
	for end := time.Now().Add(2 * time.Minute); ; {
		if time.Now().After(end) {
			stacks := make([]byte, 1<<20)
			h.t.Fatalf("the engine does not come to rest:\n%s", stacks[:runtime.Stack(stacks, true)])
		}
		want := 0
		if h.gate.hasArrived() {
			want = 1
		}
		h.w.e.mu.Lock()
		running := h.w.e.running
		h.w.e.mu.Unlock()
		if running <= want {
			return
		}
		time.Sleep(50 * time.Microsecond)
	}
}

func (h *history) notPaused(t *rapid.T) {
	if h.paused != nil {
		t.Skip("something is paused already")
	}
}

var steps = []failpoint.Point{failpoint.ManifestWritten, failpoint.ManifestRenamed, failpoint.SealMoved, failpoint.SealDone, failpoint.PublishBegin, failpoint.PublishDone}

// locked reports whether the view is locked at a step: its client waits.
func locked(at failpoint.Point) bool {
	return at == failpoint.ManifestRenamed || at == failpoint.SealMoved
}

// pauseInstall installs a package, whose commit stops at a step.
func (h *history) pauseInstall(t *rapid.T) {
	h.notPaused(t)
	s, f := h.pick(t), h.pickPackage(t)
	at := rapid.SampledFrom(steps).Draw(t, "step")
	pkg := f.path()
	s.fetch(f)
	h.touched(s, pkg, false)
	s.unpack(f, false)
	h.touched(s, pkg, false)
	h.gate.arm(at)
	s.client.finish(f)
	s.set(pkg, shown{id: f.id(), whole: true})
	h.settle()
	if !h.gate.hasArrived() {
		h.gate.arm("")
		h.touched(s, pkg, true)
		return
	}
	s.jobs[pkg] = true
	h.paused = &pausing{s: s, at: at, pkg: pkg}
	switch at {
	case failpoint.SealDone: // the directory, and its archive not yet
		s.take(pkg, conda.TrustVerified, h.recordOf[f.id()])
	case failpoint.PublishBegin:
		s.takePackage(pkg)
	case failpoint.PublishDone:
		s.completed(pkg)
	}
	h.paused.look(h.head)
}

// installOnAFullDisk installs a package that cannot be committed for now. It is when
// something else happens to it, or to its session.
func (h *history) installOnAFullDisk(t *rapid.T) {
	h.notPaused(t)
	s, f := h.pick(t), h.pickPackage(t)
	at := rapid.SampledFrom([]failpoint.Point{failpoint.SealMoved, failpoint.PublishBegin}).Draw(t, "step")
	pkg := f.path()
	s.fetch(f)
	h.touched(s, pkg, false)
	s.unpack(f, false)
	h.touched(s, pkg, false)
	h.gate.fail(at)
	s.client.finish(f)
	s.set(pkg, shown{id: f.id(), whole: true})
	h.settle()
	switch unused := h.gate.fail(""); {
	case unused:
		h.touched(s, pkg, true)
	case at == failpoint.PublishBegin:
		s.takePackage(pkg)
		fallthrough
	default:
		s.jobs[pkg] = true
	}
}

// pauseExit lets a process end, and the commit that follows stop at a step.
func (h *history) pauseExit(t *rapid.T) {
	h.notPaused(t)
	s := h.pick(t)
	if s.explicit {
		t.Skip("whoever ends a command waits for the commit")
	}
	at := rapid.SampledFrom(steps).Draw(t, "step")
	if locked(at) && s.changes() > 1 {
		// The others are checked in parallel, and wait for the view. They are as many as may be checked at the same time, so that
		// everybody else would wait for them.
		t.Skip("the view must not be locked for long")
	}
	status := rapid.SampledFrom([]int{0, 0, -9}).Draw(t, "status")
	h.gate.arm(at)
	h.leave(s, status)
	h.settle()
	if !h.gate.hasArrived() {
		h.gate.arm("")
		h.left(s)
		return
	}
	h.paused = &pausing{s: s, at: at, exit: status}
	if at == failpoint.PublishDone {
		h.left(s)
		// A daemon that dies now finds no more in the overlay than its list.
		maps.DeleteFunc(s.overlay, func(p string, _ bool) bool { return p != listPath })
		clear(s.gone)
	}
	h.paused.look(h.head)
}

// changes counts what a commit of the session checks in parallel.
func (s *idealSession) changes() int {
	units := map[string]bool{}
	for p := range s.overlay {
		if p == listPath {
			continue
		}
		u := conda.Classify(p, slices.Contains(packagePaths, p))
		key := u.Key
		if root, ok := packageRoot(u); ok { // its archive is checked after it
			key = root
		}
		units[key] = true
	}
	return len(units)
}

// meddle lets the client of a paused commit change what is being committed.
func (h *history) meddle(t *rapid.T) {
	p := h.paused
	if p == nil || p.pkg == "" || locked(p.at) {
		t.Skip("nothing to meddle with")
	}
	p.meddled = true
	p.s.client.t = t
	switch what := rapid.IntRange(0, 2).Draw(t, "what"); {
	case what == 0:
		p.s.clear(p.pkg)
	case what == 1 && p.at != failpoint.SealDone:
		p.s.drop(archivePath(p.pkg))
	default:
		if pkg, ok := p.s.view[p.pkg]; ok {
			p.s.client.write(p.pkg+"/lib/data", "evil")
			pkg.bad = true
			p.s.set(p.pkg, pkg)
		}
	}
	h.settle()
}

func (h *history) resume(t *rapid.T) {
	if h.paused == nil && h.sweeper == nil {
		t.Skip("nothing is paused")
	}
	h.letGo(nil)
}

// letGo opens the gate, and ends a slow collection.
func (h *history) letGo(err error) {
	if g := h.sweeper; g != nil {
		h.sweeper = nil
		close(g.open)
		if gcErr := <-g.done; gcErr != nil && err == nil {
			h.t.Fatal(gcErr)
		}
	}
	p := h.paused
	h.paused = nil
	h.gate.open(err)
	if p == nil || err != nil {
		return
	}
	h.settle()
	if p.pkg == "" {
		if p.at != failpoint.PublishDone {
			h.forget(p.s)
			h.inAnyOrder([]recovery{{p.s, p.s.policy(), true}}, p.heads)
		}
		return
	}
	if p.at == failpoint.SealDone && p.s.overlay[archivePath(p.pkg)] {
		a := p.s.view[archivePath(p.pkg)]
		p.s.take(archivePath(p.pkg), conda.TrustVerified, h.shaOf[a.id])
	}
	if p.at == failpoint.SealDone || p.at == failpoint.PublishBegin {
		p.s.publish()
	}
	p.s.completed(p.pkg) // again, if its client has gone on
}

// collect frees what nothing refers to: check shows that it was nothing else.
func (h *history) collect(t *rapid.T) {
	if h.sweeper != nil {
		t.Skip("one collection at a time")
	}
	if _, err := h.w.store.GC(ctx, index.GCOptions{}, nil); err != nil {
		t.Fatal(err)
	}
}

// collectSlowly starts a collection that stops once it has looked at some blobs.
func (h *history) collectSlowly(t *rapid.T) {
	if h.sweeper != nil {
		t.Skip("one collection at a time")
	}
	after := rapid.Int64Range(1, 12).Draw(t, "blobs")
	g := &sweeping{open: make(chan struct{}), done: make(chan error, 1)}
	waits := make(chan struct{})
	store := h.w.store
	go func() {
		_, err := store.GC(context.Background(), index.GCOptions{}, func(done, _ int64) {
			if done == after {
				close(waits)
				<-g.open
			}
		})
		g.done <- err
	}()
	select {
	case <-waits:
		h.sweeper = g
	case err := <-g.done:
		if err != nil {
			t.Fatal(err)
		}
	}
}

// die ends the daemon at once, perhaps in the middle of a commit. Clients live on and
// find their overlays again, or die meanwhile; what was cut short is not trusted.
func (h *history) die(t *rapid.T) {
	h.settle()
	if p := h.paused; p != nil && p.at == failpoint.PublishDone && (p.meddled || !maps.Equal(p.heads[0], h.head)) {
		// Whoever removes or replaces what was published, in the moment before its
		// manifest says so, may find that undone after a crash: it is merged again.
		h.letGo(nil)
	}
	paused := h.paused
	h.letGo(errDead)
	h.w.die()
	var recoveries []recovery
	if paused != nil && paused.pkg == "" {
		// Its process is gone: all that was sealed is published, and what can be checked.
		h.forget(paused.s)
		if paused.at != failpoint.PublishDone {
			h.crashed(paused.s, paused.heads)
		}
		recoveries = append(recoveries, recovery{paused.s, units, true})
	}
	for _, s := range h.sessions {
		if paused != nil && paused.s == s {
			h.crashed(s, paused.heads)
		} else {
			h.crashed(s, nil)
		}
		s.killed = true
	}
	h.restart(t, recoveries)
}

// stop ends the daemon in order: what is complete is committed, and the rest waits.
func (h *history) stop(t *rapid.T) {
	h.letGo(nil)
	h.w.close()
	for _, s := range h.sessions {
		if !s.kept && !s.deferred() {
			s.commit(units, false)
		}
		h.crashed(s, nil)
	}
	h.restart(t, nil)
}

// handOver has another process go on where this one is: nobody notices.
func (h *history) handOver(t *rapid.T) {
	if h.paused != nil || h.sweeper != nil {
		t.Skip("something is under way")
	}
	h.w.t = t
	h.w.handOver()
	h.settle()
	for _, s := range h.sessions {
		real, ok := h.w.e.Session(s.client.s.ID())
		if !ok {
			t.Fatalf("the session of process %d is lost", s.pid)
		}
		s.client = &client{t: t, s: real, v: real.View()}
	}
}

// crashed leaves a session what is on disk. If it was in the middle of a commit, heads are those since it stopped there.
func (h *history) crashed(s *idealSession, heads []facts) {
	clear(s.jobs)
	s.held = false
	manifests := h.readManifests(s)
	for p, it := range s.items {
		_, there := s.view[p]
		known := func(settled bool) bool {
			return slices.ContainsFunc(manifests, func(r *sealing) bool { return r.item.path == p && (r.item.settled || !settled) })
		}
		switch {
		case !known(false), !it.settled && (!there || s.overlay[p]) && !known(true):
			delete(s.items, p)
		case !it.settled && (!there || s.overlay[p]):
			s.withdraw(p) // what its client has removed or changed since is not published
		}
	}
	for _, r := range manifests {
		p := r.item.path
		now := s.view[p]
		begun := r.age() == moving || r.age() == waiting && len(heads) > 0 && (now.whole || !slices.Contains(packagePaths, p))
		if begun && s.overlay[p] && !now.bad && h.sealedID(r) == now.id {
			s.takeSealed(p, conda.Trust(r.item.public.entry.Trust), heads)
		}
	}
}

// takeSealed is about what was being sealed when the daemon died. Of an archive, its manifest says how far it was trusted, which must
// be right by what was known while the commit stood.
func (s *idealSession) takeSealed(p string, trust conda.Trust, heads []facts) {
	switch {
	case slices.Contains(packagePaths, p):
		_, trust := s.judge(p)
		s.take(p, trust, s.ideal.recordOf[s.view[p].id])
	case s.ideal.shaOf[s.view[p].id] != "":
		pkg := strings.TrimSuffix(p, ".conda")
		for _, head := range heads {
			if s.archiveTrust(pkg, head) == trust {
				s.saw = glimpses{pkg: head}
			}
		}
		s.takeArchive(pkg)
		s.saw = nil
	default:
		s.take(p, conda.TrustOpaque, "")
	}
}

func (h *history) readManifests(s *idealSession) []*sealing {
	dir := s.client.s.sealedDir()
	names, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		h.t.Fatal(err)
	}
	var list []*sealing
	for _, n := range names {
		if slices.Contains([]string{goneSuffix, keptSuffix, tmpSuffix}, path.Ext(n.Name())) {
			continue
		}
		r, err := readSealing(dir + "/" + n.Name())
		if err != nil {
			h.t.Fatal(err)
		}
		list = append(list, r)
	}
	return list
}

// sealedID returns the id of the content that a manifest is about.
func (h *history) sealedID(r *sealing) string {
	return h.idOf(r.item.path, &r.item.public.entry, r.item.public.tree, func(d hashing.Digest) string { return h.ids[d] })
}

// recovery is the commit of a session that a restarted daemon finds.
type recovery struct {
	s     *idealSession
	what  scope
	final bool
}

// restart starts the daemon again. Some processes have died meanwhile.
func (h *history) restart(t *rapid.T, recoveries []recovery) {
	for i, s := range slices.Clone(h.sessions) {
		if !s.kept && rapid.IntRange(0, 4).Draw(t, fmt.Sprint("process ", i, " dies")) == 0 {
			h.w.procs.exit(s.pid)
			h.forget(s)
			recoveries = append(recoveries, recovery{s, s.policy(), true})
		}
	}
	h.gate.revive()
	h.w.open()
	h.settle()
	var over []*idealSession // that had nothing to come back to
	for _, s := range h.sessions {
		real, ok := h.w.e.Session(s.client.s.ID())
		switch {
		case !ok:
			over = append(over, s)
			if s.dirty() {
				t.Fatalf("the session of process %d is lost", s.pid)
			}
		default:
			s.client = &client{t: t, s: real, v: real.View()}
			if !s.kept && !s.deferred() {
				recoveries = append(recoveries, recovery{s, units, false})
			}
		}
	}
	h.inAnyOrder(recoveries, []facts{maps.Clone(h.head)})
	for _, s := range over {
		h.forget(s)
		if !s.kept {
			h.enter(s.uid, s.pid)
		}
	}
	for _, s := range h.sessions {
		if s.kept {
			continue
		}
		if c := h.w.clientAs(s.pid, s.uid); c.s != s.client.s {
			t.Fatalf("process %d is in session %s, want %s", s.pid, c.s.ID(), s.client.s.ID())
		}
	}
}

// inAnyOrder commits sessions that the daemon commits at the same time, in the order that explains the head. What each knows of its
// archives it has from one of the heads given, or from one that came before its own publication.
func (h *history) inAnyOrder(list []recovery, heads []facts) {
	head := h.realHead()
	var why []string
	var try func(left []recovery, heads []facts) bool
	try = func(left []recovery, heads []facts) bool {
		if len(left) == 0 {
			d := h.differs(head)
			if !slices.Contains(why, d) {
				why = append(why, d)
			}
			return d == ""
		}
		for i := range left {
			s := left[i].s
			for _, g := range s.glimpsed(heads) {
				now := h.save(list)
				s.saw = g
				s.commit(left[i].what, left[i].final)
				s.saw = nil
				if try(slices.Delete(slices.Clone(left), i, i+1), append(slices.Clip(heads), maps.Clone(h.head))) {
					return true
				}
				now()
			}
		}
		return false
	}
	if !try(list, heads) {
		h.t.Fatalf("no order of %d sessions explains the head:\n%s\n%s", len(list), strings.Join(why, "\n"), h.story())
	}
}

// save returns how to bring the ideal back to what it is now.
func (h *history) save(list []recovery) (restore func()) {
	var undo []func()
	was := *h.ideal
	was.head, was.quarantined = maps.Clone(was.head), slices.Clone(was.quarantined)
	undo = append(undo, func() { *h.ideal = was })
	for _, r := range list {
		s := *r.s
		s.overlay, s.gone, s.gained, s.removed = maps.Clone(s.overlay), maps.Clone(s.gone), maps.Clone(s.gained), maps.Clone(s.removed)
		s.items = maps.Clone(s.items)
		for p, it := range s.items {
			c := *it
			s.items[p] = &c
		}
		undo = append(undo, func() { *r.s = s })
	}
	return func() {
		for _, f := range undo {
			f()
		}
	}
}
