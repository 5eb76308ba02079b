package shelf

import (
	"sync"

	"condafs/hashing"
)

// Ticket is the right of one session to what is on the shelf now. Until it is given
// back, all of that stays.
type Ticket struct {
	s    *Shelf
	gen  uint64
	once sync.Once
}

// Enter gives a ticket to a session that begins.
func (s *Shelf) Enter() *Ticket {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := &Ticket{s: s, gen: s.gen}
	s.tickets[t] = struct{}{}
	return t
}

// Since is which state of the shelf the ticket is for.
func (t *Ticket) Since() uint64 { return t.gen }

// Reenter gives a session, that had a ticket of an earlier process, the same again.
func (s *Shelf) Reenter(since uint64) *Ticket {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := &Ticket{s: s, gen: since}
	s.tickets[t] = struct{}{}
	return t
}

// Hides tells whether the package of this name and tree is on the shelf for the
// ticket's session. The answer never changes.
func (t *Ticket) Hides(name string, tree hashing.Digest) bool {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	k := t.s.known[name]
	return k != nil && k.tree == tree && k.since <= t.gen && (k.leaving == 0 || k.leaving > t.gen)
}

// Holds tells whether the package is on the shelf now, also if it has come later than the
// ticket. If so, it stays there until the ticket is given back.
func (t *Ticket) Holds(name string, tree hashing.Digest) bool {
	held, ok := t.Held(name)
	return ok && held == tree
}

// Held names the package of this name that is on the shelf now, for as long as Holds says.
func (t *Ticket) Held(name string) (tree hashing.Digest, ok bool) {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	if k := t.s.known[name]; k != nil && k.leaving == 0 {
		return k.tree, true
	}
	return hashing.Digest{}, false
}

// Leave gives the ticket back. Calls after the first do nothing.
func (t *Ticket) Leave() {
	t.once.Do(func() {
		t.s.mu.Lock()
		delete(t.s.tickets, t)
		waiting := false
		for _, k := range t.s.known {
			waiting = waiting || k.leaving > 0
		}
		t.s.mu.Unlock()
		if waiting {
			t.s.nudge()
		}
	})
}
