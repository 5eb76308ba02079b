package handover

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"sync"
)

// Signals ends a context when one of the signals comes that end a process in good order.
//
// Go's runtime lets no program begin with them blocked, and a program that begins dies of
// one that comes before it has called Catch. See [Guard] for that moment.
type Signals struct {
	list []os.Signal
	ctx  context.Context
	end  context.CancelCauseFunc

	mu   sync.Mutex
	c    chan os.Signal
	done chan struct{} // closed when nobody reads c any more
}

// Catch begins to take signals, those of the list that the process was not started to
// ignore.
func Catch(list ...os.Signal) *Signals {
	s := &Signals{}
	for _, sig := range list {
		if !signal.Ignored(sig) {
			s.list = append(s.list, sig)
		}
	}
	s.ctx, s.end = context.WithCancelCause(context.Background())
	s.Let()
	return s
}

// Context ends when a signal has come.
func (s *Signals) Context() context.Context { return s.ctx }

// Let takes signals again after Hold.
func (s *Signals) Let() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.c != nil || len(s.list) == 0 { // no signals would mean all
		return
	}
	c, done := make(chan os.Signal, 4), make(chan struct{})
	s.c, s.done = c, done
	signal.Notify(c, s.list...)
	go func() {
		defer close(done)
		for sig := range c {
			s.end(errors.New("got the signal: " + sig.String()))
		}
	}()
}

// Hold takes none any more: the next one ends the process at once. It fails if one has come
// before.
func (s *Signals) Hold() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.c != nil {
		signal.Stop(s.c) // what has come is in c when it returns
		close(s.c)
		<-s.done
		s.c = nil
	}
	return context.Cause(s.ctx)
}
