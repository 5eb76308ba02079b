package cow

import "sync"

// queue delivers what a view has to tell, in order, without the view's lock.
type queue struct {
	deliver func(Event)

	mu      sync.Mutex
	pending []func()
	busy    bool // somebody is delivering
}

// add queues a call. It may be used with the view's lock held; flush follows
// when the lock is released.
func (q *queue) add(f func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.pending = append(q.pending, f)
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
	}
	q.busy = false
}

// drain returns when all calls that have been queued so far are made. Their receivers must not use it.
func (q *queue) drain() {
	done := make(chan struct{})
	q.add(func() { close(done) })
	q.flush()
	<-done
}
