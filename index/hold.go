package index

import (
	"maps"
	"slices"
	"sync"

	"condafs/hashing"
)

// Hold protects blobs and trees from GC that no state refers to, or not any more. It
// is safe for concurrent use.
//
// Why this excludes every race with a collection that runs meanwhile:
//
//   - A digest is held before its blob is looked for. So either the collector removes
//     the blob first, and it is not found; or it sees the hold, and the blob stays.
//     Both sides take the lock of the digest's shard.
//   - What is held at any time during a collection stays, also when the hold ends
//     before the collector comes to it: Release moves it to the collection's keep set.
//   - The collector first starts to keep, then reads head and the pins, then marks. A
//     commit that it doesn't see in head was still under way when it started to keep,
//     and an Update holds all that it refers to until head has moved.
type Hold struct {
	held *held

	mu    sync.Mutex
	blobs map[hashing.Digest]struct{}
	trees map[hashing.Digest]struct{}
}

// NewHold returns a hold of nothing. Who makes it must release it.
func (s *Store) NewHold() *Hold {
	return &Hold{held: s.held, blobs: make(map[hashing.Digest]struct{}), trees: make(map[hashing.Digest]struct{})}
}

// Blob holds blobs, whether they are there or not. Look for them afterwards.
func (h *Hold) Blob(ds ...hashing.Digest) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range ds {
		if _, ok := h.blobs[d]; !ok {
			h.blobs[d] = struct{}{}
			h.held.blob(d).add(d)
		}
	}
}

// Tree holds a tree and what is in it.
func (h *Hold) Tree(d hashing.Digest) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.trees[d]; !ok {
		h.trees[d] = struct{}{}
		h.held.trees.add(d)
	}
}

// Contents returns what is held.
func (h *Hold) Contents() (blobs, trees []hashing.Digest) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Collect(maps.Keys(h.blobs)), slices.Collect(maps.Keys(h.trees))
}

// Release ends the hold. Calls after the first do nothing.
func (h *Hold) Release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for d := range h.blobs {
		h.held.blob(d).remove(d)
	}
	for d := range h.trees {
		h.held.trees.remove(d)
	}
	clear(h.blobs)
	clear(h.trees)
}

// held counts the holds of the whole store.
type held struct {
	blobs [64]heldSet // by digest, so that adoptions rarely meet
	trees heldSet
}

func newHeld() *held {
	h := new(held)
	for i := range h.blobs {
		h.blobs[i].what = make(map[hashing.Digest]*holding)
	}
	h.trees.what = make(map[hashing.Digest]*holding)
	return h
}

func (h *held) blob(d hashing.Digest) *heldSet { return &h.blobs[int(d[0])%len(h.blobs)] }

// beginKeeping makes whatever is released from now on stay until endKeeping.
func (h *held) beginKeeping() {
	for i := range h.blobs {
		h.blobs[i].setKeep(make(map[hashing.Digest]struct{}))
	}
	h.trees.setKeep(make(map[hashing.Digest]struct{}))
}

func (h *held) endKeeping() {
	for i := range h.blobs {
		h.blobs[i].setKeep(nil)
	}
	h.trees.setKeep(nil)
}

type heldSet struct {
	mu   sync.Mutex
	what map[hashing.Digest]*holding
	keep map[hashing.Digest]struct{} // nil when nothing is collected
}

type holding struct {
	count int
	size  int64 // of a blob that was seen to be there while held; -1 if not
}

func (s *heldSet) setKeep(keep map[hashing.Digest]struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keep = keep
}

func (s *heldSet) add(d hashing.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.what[d]
	if w == nil {
		w = &holding{size: -1}
		s.what[d] = w
	}
	w.count++
}

func (s *heldSet) remove(d hashing.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.what[d]
	if w.count--; w.count == 0 {
		delete(s.what, d)
	}
	if s.keep != nil {
		s.keep[d] = struct{}{}
	}
}

// seen notes that a held blob is there: as long as it is held it stays.
func (s *heldSet) seen(d hashing.Digest, size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w := s.what[d]; w != nil {
		w.size = size
	}
}

// unsee takes back what seen noted: the blob was put aside.
func (s *heldSet) unsee(d hashing.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w := s.what[d]; w != nil {
		w.size = -1
	}
}

// seenSize returns what seen noted.
func (s *heldSet) seenSize(d hashing.Digest) (int64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w := s.what[d]; w != nil && w.size >= 0 {
		return w.size, true
	}
	return 0, false
}

// free calls remove under the lock if nobody holds d or did during this collection.
func (s *heldSet) free(d hashing.Digest, remove func() error) (done bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, kept := s.keep[d]; kept || s.what[d] != nil {
		return false, nil
	}
	return true, remove()
}

func (s *heldSet) all() []hashing.Digest {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]hashing.Digest, 0, len(s.what))
	for d := range maps.Keys(s.what) {
		out = append(out, d)
	}
	return out
}
