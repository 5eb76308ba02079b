package hashing

import (
	"context"
	"runtime"
	"sync"
)

// Pool bounds how many files are hashed at the same time. Several calls of Each may
// run at once: they share the bound, and each makes progress. The zero Pool is not
// usable; a Pool needs no closing.
type Pool struct {
	slots chan struct{}
}

// NewPool returns a pool of that many workers, or of one per core for workers <= 0.
func NewPool(workers int) *Pool {
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	return &Pool{slots: make(chan struct{}, workers)}
}

// Workers returns the bound.
func (p *Pool) Workers() int { return cap(p.slots) }

// Each calls f for every i in [0, n), in no particular order, and returns when all
// calls have. After the first error no new call is started, the context of the
// running ones is cancelled, and that error is returned. f must not call Each of
// the same pool: it would wait for the slot that it holds.
func (p *Pool) Each(ctx context.Context, n int, f func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for i := 0; i < n && p.acquire(ctx); i++ {
		wg.Go(func() {
			defer func() { <-p.slots }()
			if err := f(ctx, i); err != nil {
				cancel(err) // only the first cause counts
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// acquire takes a slot unless ctx is done, also when both could be had.
func (p *Pool) acquire(ctx context.Context) bool {
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	if ctx.Err() != nil {
		<-p.slots
		return false
	}
	return true
}
