package fs

import (
	"maps"
	"sync"
	"time"
)

// How long after the end of a session the kernel is looked after first, and at
// most from then on.
const (
	firstReap = 20 * time.Millisecond
	lastReap  = 10 * time.Second
)

// endedSessions are over, but the kernel may still hold nodes of theirs, and for
// their sake the engine keeps the view and its snapshot.
//
// Dropping the name .sessions/ID makes the kernel forget all that is unused at
// that moment. What is in use then (an open file, a working directory, and the
// directories above) stays known by name, even when it is not in use any more and
// cannot be reached. So those names are dropped, too, one by one: what has no name
// goes with its last user. Names that are looked up afterwards, by processes that
// are still in the tree, get no time to live, so that they go as well.
type endedSessions struct {
	f *fileSystem

	mu    sync.Mutex
	live  map[string]int // by session: how many nodes the kernel had when it was looked at last
	pause time.Duration
}

func newEndedSessions(f *fileSystem) *endedSessions {
	return &endedSessions{f: f, live: make(map[string]int)}
}

func (e *endedSessions) add(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.live[id] = 0
	e.pause = firstReap
}

// has reports whether a session is over: nobody can enter it any more.
func (e *endedSessions) has(id string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, ok := e.live[id]
	return ok
}

// last returns a copy of the last counts.
func (e *endedSessions) last() map[string]int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return maps.Clone(e.live)
}

// retire makes the kernel remember no more of a session.
func (e *endedSessions) retire(id string) {
	s, ok := e.f.engine.Session(id)
	if !ok {
		return
	}
	if root := e.f.nodes.get(s.View().Root().ID() + idOffset); root != nil {
		root.over.Store(true)
	}
}

// reap makes the kernel forget what it holds of sessions that are over, and
// returns when to look again.
func (e *endedSessions) reap() time.Duration {
	for id, before := range e.last() {
		s, ok := e.f.engine.Session(id)
		if !ok {
			e.forget(id)
			continue
		}
		nodes := e.f.nodes.of(s.View())
		e.note(id, len(nodes))
		if len(nodes) == before { // else the kernel is forgetting already
			e.drop(nodes)
		}
	}
	return e.next()
}

func (e *endedSessions) forget(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.live, id)
}

func (e *endedSessions) note(id string, live int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.live[id] = live
}

func (e *endedSessions) next() time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.live) == 0 {
		return time.Hour
	}
	pause := e.pause
	e.pause = min(2*e.pause, lastReap)
	return pause
}

// drop takes the names in these nodes' directories from the kernel.
func (e *endedSessions) drop(nodes []*node) {
	for _, nd := range nodes {
		entries, err := nd.view.ReadDir(nd.tree)
		if err != nil {
			continue // no directory, or the engine has closed the view
		}
		for _, x := range entries {
			e.f.notify.check(notice{nd.id, x.Name}, e.f.device.forgetEntry(nd.id, x.Name))
		}
	}
}
