package index

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"condafs/fault"
)

// pins knows which states must stay readable: head, those that a Snapshot pins, and
// those that a session's record on disk names, which outlive the daemon.
type pins struct {
	mu       sync.Mutex
	head     Seq
	counts   map[Seq]int
	sessions map[string]Seq
	waiting  map[Seq]int // of counts, those that nobody has taken yet; see inherit
	discard  func(Seq)   // told the oldest state that is still needed
}

func newPins(discard func(Seq)) *pins {
	return &pins{counts: make(map[Seq]int), sessions: make(map[string]Seq), discard: discard}
}

// settle tells Badger what it may drop. Seq 0 needs nothing: it is empty for ever.
// The caller has locked.
func (p *pins) settle() {
	oldest := p.head
	for seq := range p.counts {
		if seq != 0 {
			oldest = min(oldest, seq)
		}
	}
	for _, seq := range p.sessions {
		if seq != 0 {
			oldest = min(oldest, seq)
		}
	}
	p.discard(oldest)
}

func (p *pins) setHead(seq Seq) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.head = seq
	p.settle()
}

func (p *pins) getHead() Seq {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.head
}

func (p *pins) addHead() Seq {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counts[p.head]++
	return p.head
}

// inherit pins states that were pinned in another process, before anything can be
// dropped.
func (p *pins) inherit(seqs []Seq) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting = make(map[Seq]int)
	for _, seq := range seqs {
		p.counts[seq]++
		p.waiting[seq]++
	}
}

// takeInherited gives one of those pins to the caller.
func (p *pins) takeInherited(seq Seq) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting[seq] == 0 {
		return false
	}
	p.waiting[seq]--
	return true
}

// readable tells whether a state is pinned already. One that is not may have lost
// entries and blobs. The caller has locked.
func (p *pins) readable(seq Seq) bool {
	if seq == 0 || seq == p.head || p.counts[seq] > 0 {
		return true
	}
	for _, s := range p.sessions {
		if s == seq {
			return true
		}
	}
	return false
}

func (p *pins) add(seq Seq) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.readable(seq) {
		return staleSeq(seq, p.head)
	}
	p.counts[seq]++
	return nil
}

func staleSeq(seq, head Seq) error {
	return fault.New("pin snapshot", fmt.Sprint(seq), fault.Stale, fmt.Errorf("it is not kept any more, head is %d", head))
}

func (p *pins) remove(seq Seq) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.counts[seq]--; p.counts[seq] <= 0 {
		delete(p.counts, seq)
	}
	p.settle()
}

// addSession pins a state for a session's record and returns how to take that back,
// should the record not be written.
func (p *pins) addSession(id string, seq Seq) (undo func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.readable(seq) {
		return nil, staleSeq(seq, p.head)
	}
	old, had := p.sessions[id]
	p.sessions[id] = seq
	p.settle()
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if had {
			p.sessions[id] = old
		} else {
			delete(p.sessions, id)
		}
		p.settle()
	}, nil
}

func (p *pins) removeSession(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.sessions, id)
	p.settle()
}

// live returns every state that must stay, and head.
func (p *pins) live() map[Seq]bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.liveLocked()
}

func (p *pins) liveLocked() map[Seq]bool {
	out := map[Seq]bool{p.head: true}
	for seq := range p.counts {
		out[seq] = true
	}
	for _, seq := range p.sessions {
		out[seq] = true
	}
	return out
}

// pinLive pins every state that is pinned by somebody, the oldest first and head last.
func (s *Store) pinLive() []*Snapshot {
	s.pins.mu.Lock()
	defer s.pins.mu.Unlock()
	var out []*Snapshot
	for _, seq := range slices.Sorted(maps.Keys(s.pins.liveLocked())) {
		s.pins.counts[seq]++
		out = append(out, &Snapshot{store: s, seq: seq})
	}
	return out
}

// Pin pins a state that is head, is pinned by somebody else or is the empty one; any
// other may be gone and is refused as fault.Stale.
func (s *Store) Pin(seq Seq) (*Snapshot, error) {
	if err := s.pins.add(seq); err != nil {
		return nil, err
	}
	return &Snapshot{store: s, seq: seq}, nil
}

// Inherited returns a pin that the store was opened with. What was not there is
// fault.Stale.
func (s *Store) Inherited(seq Seq) (*Snapshot, error) {
	if !s.pins.takeInherited(seq) {
		return nil, fault.New("inherit snapshot", fmt.Sprint(seq), fault.Stale, nil)
	}
	return &Snapshot{store: s, seq: seq}, nil
}

// PinHead pins the newest state.
func (s *Store) PinHead() *Snapshot {
	return &Snapshot{store: s, seq: s.pins.addHead()}
}

// Head returns the newest state.
func (s *Store) Head() Seq { return s.pins.getHead() }
