package cow

import (
	"flag"
	"fmt"
	"maps"
	"math"
	"slices"
	"testing"

	"condafs/index"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// TestHistories lets several sessions do random things, the daemon die and
// start again, and compares every view and the head with plain maps after each
// step. It checks that
//
//   - a view shows its snapshot and its own writes, whatever others do;
//   - a package is there whole, or not at all;
//   - what was committed is what the three-way merge says: no commit is lost,
//     and nothing that was deleted comes back.
func TestHistories(t *testing.T) {
	w := newWorld(t)
	var packages []*fixture
	for _, name := range []string{"a", "b"} {
		for _, content := range []string{"one", "two"} { // of two channels
			packages = append(packages, makePackage(t, name+"-1.0-0", map[string]string{"lib/data": content, "bin/" + name: name}))
		}
	}
	// Each history waits for the disk a hundred times; -rapid.checks
	// asks for more of them.
	limit := 8
	if f := flag.Lookup("rapid.checks"); f != nil && f.Value.String() != f.DefValue {
		limit = math.MaxInt
	}
	count, failed := 0, false
	rapid.Check(t, func(t *rapid.T) {
		if count++; count > limit && !failed {
			return
		}
		passed := false
		defer func() { failed = failed || !passed }()
		w.reset()
		h := &history{t: t, w: w, packages: packages, head: contents{}, times: map[string]int64{}}
		t.Repeat(map[string]func(*rapid.T){
			"":          func(*rapid.T) { h.check() },
			"begin":     h.begin,
			"install":   h.install,
			"break":     h.breakOff,
			"uninstall": h.uninstall,
			"write":     h.write,
			"remove":    h.remove,
			"exit":      func(t *rapid.T) { h.end(t, false) },
			"kill":      func(t *rapid.T) { h.end(t, true) },
			"die":       h.die,
			"stop":      h.stop,
		})
		passed = true
	})
}

// contents maps paths to what is there: a package's content, or a note's.
type contents map[string]string

// history is the model: what the head and each session should show.
type history struct {
	t        *rapid.T
	w        *world
	packages []*fixture
	head     contents
	times    map[string]int64 // when the head's notes were written
	sessions []*modelSession
	clock    int64
}

type modelSession struct {
	pid    int
	c      *client
	base   contents // what it has started from, or published since
	view   contents
	times  map[string]int64
	broken map[string]bool // packages that are not complete
	killed bool
}

// reset empties the store between two histories.
func (w *world) reset() {
	w.procs.mu.Lock()
	pids := slices.Sorted(maps.Keys(w.procs.procs))
	w.procs.mu.Unlock()
	for _, pid := range pids {
		if pid != 1 {
			w.procs.kill(pid)
		}
	}
	w.await()
	_, err := w.store.Update(ctx, index.CommitInfo{}, func(tx *index.Tx) error {
		for _, space := range []string{"shared/pkgs", "u4711"} {
			if err := tx.Delete(space); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.e.makeRoots(); err != nil {
		w.t.Fatal(err)
	}
}

func (h *history) session(t *rapid.T) *modelSession {
	if len(h.sessions) == 0 {
		t.Skip("no session")
	}
	s := h.sessions[rapid.IntRange(0, len(h.sessions)-1).Draw(t, "session")]
	s.c.t = t
	return s
}

func (h *history) begin(t *rapid.T) {
	if len(h.sessions) >= 4 {
		t.Skip("enough sessions")
	}
	pid := h.w.procs.spawn(1)
	c := h.w.client(pid)
	h.sessions = append(h.sessions, &modelSession{
		pid: pid, c: c, base: maps.Clone(h.head), view: maps.Clone(h.head), times: map[string]int64{}, broken: map[string]bool{},
	})
}

func (h *history) pick(t *rapid.T) *fixture {
	return h.packages[rapid.IntRange(0, len(h.packages)-1).Draw(t, "package")]
}

// clear removes a package as conda does before it extracts another one.
func (s *modelSession) clear(p string) {
	if s.c.exists(p) {
		s.c.remove(p)
	}
	delete(s.view, p)
	delete(s.broken, p)
}

func (h *history) install(t *rapid.T) {
	s, f := h.session(t), h.pick(t)
	p := "pkgs/" + f.dist
	s.clear(p)
	s.c.download(f)
	s.c.extract(f)
	s.c.finish(f)
	s.view[p] = f.files["lib/data"]
	h.w.await()
	h.commitPackage(s, p)
}

// commitPackage is the merge of a package, with one user and known archives.
func (h *history) commitPackage(s *modelSession, p string) {
	base, hadBase := s.base[p]
	theirs, has := h.head[p]
	ours := s.view[p]
	switch {
	case has && theirs == ours, hadBase && base == ours:
	case !has, hadBase && base == theirs:
		h.head[p] = ours
	}
	s.base[p] = ours
}

// breakOff starts to extract a package and never ends.
func (h *history) breakOff(t *rapid.T) {
	s, f := h.session(t), h.pick(t)
	p := "pkgs/" + f.dist
	s.clear(p)
	s.c.extract(f)
	s.view[p] = f.files["lib/data"]
	s.broken[p] = true
}

func (h *history) uninstall(t *rapid.T) {
	s, f := h.session(t), h.pick(t)
	s.clear("pkgs/" + f.dist)
}

func (h *history) note(t *rapid.T) string {
	return "pkgs/" + rapid.SampledFrom([]string{"n1", "n2"}).Draw(t, "note")
}

func (h *history) write(t *rapid.T) {
	s, p := h.session(t), h.note(t)
	h.clock++
	text := fmt.Sprintf("text %d", h.clock)
	s.c.write(p, text)
	s.c.must(s.c.on(p, func(n *Node, _ Attr) error {
		_, err := s.c.v.Setattr(n, nil, SetAttr{Valid: SetMtime, Mtime: unix.Timespec{Sec: 2_000_000_000 + h.clock}})
		return err
	}))
	s.view[p], s.times[p] = text, h.clock
}

func (h *history) remove(t *rapid.T) {
	s, p := h.session(t), h.note(t)
	if s.c.exists(p) {
		s.c.remove(p)
	}
	delete(s.view, p)
}

// end lets a process exit, or be killed.
func (h *history) end(t *rapid.T, kill bool) {
	s := h.session(t)
	h.sessions = slices.DeleteFunc(h.sessions, func(o *modelSession) bool { return o == s })
	if kill {
		h.w.procs.kill(s.pid)
	} else {
		h.w.procs.exit(s.pid)
	}
	h.w.await()
	if kill || s.killed {
		return // its packages are committed, and nothing else
	}
	for _, p := range []string{"pkgs/n1", "pkgs/n2"} {
		ours, have := s.view[p]
		base, hadBase := s.base[p]
		theirs, has := h.head[p]
		switch {
		case !have && hadBase && has && base == theirs:
			delete(h.head, p)
		case !have, hadBase && base == ours:
		case !has, hadBase && base == theirs, s.times[p] >= h.times[p]:
			h.head[p] = ours
			h.times[p] = s.times[p]
		}
	}
	for _, f := range h.packages {
		p := "pkgs/" + f.dist
		_, have := s.view[p]
		if base, hadBase := s.base[p]; !have && hadBase && h.head[p] == base {
			delete(h.head, p)
		}
	}
}

// die ends the daemon at once. The clients live on, and find their overlays
// again; but what it cut short is not trusted.
func (h *history) die(*rapid.T) {
	h.w.await()
	h.w.die()
	h.restart(true)
}

func (h *history) stop(*rapid.T) {
	h.w.close()
	h.restart(false)
}

func (h *history) restart(killed bool) {
	h.w.open()
	h.w.await()
	for _, s := range h.sessions {
		id := s.c.s.ID()
		s.c = h.w.client(s.pid)
		s.c.t = h.t
		if s.c.s.ID() != id {
			// All that it had written was committed: there was nothing to come back to.
			if !maps.Equal(s.view, s.base) {
				h.t.Fatalf("process %d has lost its session", s.pid)
			}
			s.base, s.view, s.killed = maps.Clone(h.head), maps.Clone(h.head), false
			continue
		}
		s.killed = s.killed || killed
	}
}

// check compares all views and the head with the model.
func (h *history) check() {
	h.w.await()
	for _, s := range h.sessions {
		h.compare(fmt.Sprintf("the view of process %d", s.pid), s.c, s.view, s.broken)
	}
	pid, fresh := h.w.process()
	h.compare("the head", fresh, h.head, nil)
	h.w.procs.exit(pid)
}

func (h *history) compare(what string, c *client, want contents, broken map[string]bool) {
	c.t = h.t
	for _, p := range []string{"pkgs/n1", "pkgs/n2"} {
		got, err := c.tryRead(p)
		text, there := want[p]
		if (err == nil) != there || got != text {
			h.t.Fatalf("%s: %s holds %q (%v), want %q", what, p, got, err, text)
		}
	}
	for _, f := range h.packages {
		p := "pkgs/" + f.dist
		content, there := want[p]
		switch {
		case !there && c.exists(p):
			h.t.Fatalf("%s: %s is there", what, p)
		case there && content == f.files["lib/data"]:
			for rel, data := range f.files {
				if got, err := c.tryRead(p + "/" + rel); err != nil || got != data {
					h.t.Fatalf("%s: %s/%s holds %q (%v)", what, p, rel, got, err)
				}
			}
			_, err := c.tryRead(p + "/info/repodata_record.json")
			if (err == nil) == broken[p] {
				h.t.Fatalf("%s: the record of %s: %v", what, p, err)
			}
		}
	}
}
