package cow

import (
	"slices"
	"sync"
	"testing"
	"time"
)

// Who drains a queue waits for whoever delivers what was queued before, and for nothing that comes later.
func TestQueueIsDrained(t *testing.T) {
	var q queue
	var mu sync.Mutex
	var order []string
	note := func(what string) {
		mu.Lock()
		defer mu.Unlock()
		order = append(order, what)
	}
	q.drain() // nothing is there
	begun, goOn, later := make(chan struct{}), make(chan struct{}), make(chan struct{})
	q.add(func() {
		close(begun)
		<-goOn
		note("first")
	})
	var delivering, draining sync.WaitGroup
	delivering.Go(q.flush)
	<-begun
	q.add(func() { note("second") })
	draining.Go(func() {
		q.drain()
		note("drained")
	})
	for waits := false; !waits; time.Sleep(time.Millisecond) {
		q.mu.Lock()
		waits = len(q.pending) == 2 // the second, and what wakes it
		q.mu.Unlock()
	}
	q.add(func() { q.add(func() { <-later }) })
	close(goOn)
	draining.Wait()
	close(later)
	delivering.Wait()
	if !slices.Equal(order, []string{"first", "second", "drained"}) {
		t.Errorf("%v", order)
	}
}
