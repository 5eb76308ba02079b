package handover

import (
	"sync/atomic"
	"time"
)

// Patience is how long a program may take to go on. It takes a fraction of a second.
const Patience = 30 * time.Second

// Deadline bounds how long a program may take that goes on where another one was: clients wait meanwhile, and one that hangs would
// have them wait for ever.
type Deadline struct {
	over  atomic.Bool
	timer *time.Timer
}

// Within calls late unless Met is called in time. late is to end the program, by another one that takes its place.
func Within(patience time.Duration, late func()) *Deadline {
	d := &Deadline{}
	d.timer = time.AfterFunc(patience, func() {
		if d.over.CompareAndSwap(false, true) {
			late()
		}
	})
	return d
}

// Met says that what the deadline is for has happened, or has failed. When time was up before, it never returns: then it is late's to
// say how the program ends, and nobody else may change anything.
func (d *Deadline) Met() {
	if !d.over.CompareAndSwap(false, true) {
		select {}
	}
	d.timer.Stop()
}
