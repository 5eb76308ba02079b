package cow

import (
	"context"
	"errors"
	"time"

	"condafs/fault"
)

// How long Pause waits for units that are being checked before it stops them, and how
// long for them to stop.
const (
	finishPatience = 5 * time.Second
	stopPatience   = 30 * time.Second
)

// Pause stops what goes on in the background, and lets nothing more begin until
// Continue, though clients go on. What is being checked may finish; if that takes long,
// it is stopped and done again later. It fails with fault.Busy if it cannot be stopped,
// and then all goes on.
func (e *Engine) Pause(ctx context.Context) error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return errEngineClosed
	}
	e.paused = true
	e.unwait() // those who wait for others would keep their clients waiting
	e.mu.Unlock()
	if e.settles(ctx, finishPatience) {
		return nil
	}
	e.mu.Lock()
	e.stop()
	e.mu.Unlock()
	if e.settles(ctx, stopPatience) {
		return nil
	}
	e.Continue()
	return fault.New("pause", "", fault.Busy, errors.New("a unit is being committed"))
}

// settles waits until nothing runs in the background.
func (e *Engine) settles(ctx context.Context, patience time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.idle.Broadcast()
	})
	defer stop()
	e.mu.Lock()
	defer e.mu.Unlock()
	for e.running > 0 && ctx.Err() == nil {
		e.idle.Wait()
	}
	return e.running == 0
}

// Settle waits, once clients have stopped too, for the last that they have set off.
func (e *Engine) Settle(ctx context.Context) error {
	if !e.settles(ctx, stopPatience) {
		return fault.New("pause", "", fault.Busy, errors.New("a session is being written down"))
	}
	return nil
}

// Continue lets everything go on after a Pause, or after Resume, and makes good what
// has been put off.
func (e *Engine) Continue() {
	e.mu.Lock()
	if !e.paused || e.closed {
		e.mu.Unlock()
		return
	}
	e.paused = false
	if e.ctx.Err() != nil {
		e.ctx, e.stop = context.WithCancel(context.Background())
	}
	e.waits, e.unwait = context.WithCancel(e.ctx)
	e.mu.Unlock()
	for _, s := range e.all() {
		s.retrigger()
		e.endIfQuiet(s)
	}
	e.retryWaiting(nil)
}

// retrigger starts the jobs that were put off.
func (s *Session) retrigger() {
	s.mu.Lock()
	var roots []string
	for root, j := range s.jobs {
		if j.again && !j.running {
			roots = append(roots, root)
		}
	}
	s.mu.Unlock()
	for _, root := range roots {
		s.trigger(root, false)
	}
	if s.view.hasLanes() {
		s.watchLanes()
	}
}

// working is the context of work in the background.
func (e *Engine) working() context.Context {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.ctx
}

// waiting is the context of those who wait for others in a client's name.
func (e *Engine) waiting() context.Context {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.waits
}

// begin is background for what can as well be done after a pause.
func (e *Engine) begin(f func()) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return !e.paused && e.backgroundLocked(f)
}

// goesOn reports whether things may begin.
func (e *Engine) goesOn() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return !e.paused && !e.closed
}

func (e *Engine) isPaused() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.paused
}
