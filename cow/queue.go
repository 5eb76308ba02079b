package cow

import (
	"slices"
	"sync"
)

// queue delivers what a view has to tell, in order, without the view's lock.
type queue struct {
	deliver func(Event)

	mu      sync.Mutex
	pending []func()
	busy    bool // somebody is delivering
	added   uint64
	made    uint64
	waiting []awaited
}

// awaited is who waits until so many calls have been made.
type awaited struct {
	made uint64
	c    chan struct{}
}

// add queues a call. It may be used with the view's lock held; flush follows
// when the lock is released.
func (q *queue) add(f func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.pending = append(q.pending, f)
	q.added++
}

func (q *queue) emit(e Event) {
	if q.deliver != nil {
		q.add(func() { q.deliver(e) })
	}
}

// flush makes the queued calls, unless somebody else is at it, who will then do
// it. So a receiver may use the view.
func (q *queue) flush() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.busy {
		return
	}
	q.busy = true
	for len(q.pending) > 0 {
		calls := q.pending
		q.pending = nil
		q.mu.Unlock()
		for _, f := range calls {
			f()
		}
		q.mu.Lock()
		q.made += uint64(len(calls))
		q.waiting = slices.DeleteFunc(q.waiting, func(w awaited) bool {
			if w.made > q.made {
				return false
			}
			close(w.c)
			return true
		})
	}
	q.busy = false
}

// drain returns when all calls that have been queued so far are made. Their receivers must not use it.
func (q *queue) drain() {
	q.flush()
	q.mu.Lock()
	if q.made == q.added {
		q.mu.Unlock()
		return
	}
	w := awaited{q.added, make(chan struct{})}
	q.waiting = append(q.waiting, w)
	q.mu.Unlock()
	<-w.c
}
