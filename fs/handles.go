package fs

import "sync"

// handleTable gives out numbers for what is open. Number 0 is never given out:
// in a request it means that there is no handle.
type handleTable[T any] struct {
	mu   sync.RWMutex
	last uint64
	m    map[uint64]T
}

func (t *handleTable[T]) add(h T) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.m == nil {
		t.m = make(map[uint64]T)
	}
	t.last++
	t.m[t.last] = h
	return t.last
}

func (t *handleTable[T]) get(fh uint64) (T, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	h, ok := t.m[fh]
	return h, ok
}

func (t *handleTable[T]) remove(fh uint64) (T, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h, ok := t.m[fh]
	delete(t.m, fh)
	return h, ok
}

func (t *handleTable[T]) len() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.m)
}
