package scrub

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"condafs/fault"
	"condafs/hashing"
	"condafs/index"
	"condafs/repair"

	"golang.org/x/time/rate"
)

// Options are what a Scrubber is made with.
type Options struct {
	Rate  int64         // bytes a second; 0: only Now reads anything
	Every time.Duration // from the beginning of one pass to that of the next
	Delay time.Duration // before the first reading, so that it does not meet the work that a mount begins with
	// Mend does what `condafs repair` does. Reports of shelves are the caller's.
	Mend func(ctx context.Context, problems []index.Problem) (*repair.Report, error)
	// Shelves, if not nil, reads and mends at the end of a pass what lies beside the store. It calls pace before it reads on, and
	// returns how much was wrong and how much of that is not any more.
	Shelves func(ctx context.Context, pace func(ctx context.Context, bytes int) error) (found, mended int, err error)
	Logger  *slog.Logger
}

const (
	// saveEvery is the least time between two records of progress, which cost a sync each.
	saveEvery = 30 * time.Second
	// retryAfter is when a pass goes on that could not.
	retryAfter = 10 * time.Minute
	// burst is what is read at once at any rate.
	burst = 256 << 10
	// mendShare is how many times what mending has taken must pass before more is mended.
	mendShare = 10
)

// Status tells what a Scrubber does.
type Status struct {
	index.ScrubState
	Rate    int64
	Every   time.Duration
	Running bool      // something is being read at the moment
	Total   int64     // bytes that a pass reads, about
	Next    time.Time // when something will be read, unless Running; zero: never by itself
	Err     string    // why the last try ended early
}

// Scrubber scrubs one store. It is safe for concurrent use.
type Scrubber struct {
	store   *index.Store
	o       Options
	log     *slog.Logger
	limiter *rate.Limiter

	control sync.Mutex // of Start and Stop
	cancel  context.CancelFunc
	done    chan struct{} // closed when the goroutines have ended; nil if there are none

	mu       sync.Mutex
	state    index.ScrubState
	live     index.ScrubPass // state.Pass, with the part that is being read; for Status
	running  bool
	next     time.Time
	err      error
	suspects map[hashing.Digest]bool
	waiters  int           // who wait for the next pass to end, at full rate
	passes   int           // that ended since the store was opened
	changed  chan struct{} // closed, and made anew, when any of these changes
}

// New takes up what the store says of its last scrub. Nothing is read before Start.
func New(store *index.Store, o Options) *Scrubber {
	s := &Scrubber{store: store, o: o, log: o.Logger, changed: make(chan struct{}), suspects: make(map[hashing.Digest]bool)}
	s.limiter = rate.NewLimiter(rate.Limit(o.Rate), burst)
	var err error
	if s.state, err = store.ScrubState(); err != nil {
		s.log.Error("the scrub begins anew", "err", err)
	}
	if s.state.Pass != nil {
		s.live = *s.state.Pass
	}
	return s
}

// Start begins, or goes on after Stop. A second Start does nothing.
func (s *Scrubber) Start() {
	s.control.Lock()
	defer s.control.Unlock()
	if s.done != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel, s.done = cancel, make(chan struct{})
	var both sync.WaitGroup
	both.Go(func() { s.run(ctx) })
	both.Go(func() { s.watch(ctx) })
	go func(done chan struct{}) {
		both.Wait()
		close(done)
	}(s.done)
}

// Stop writes down how far the scrub has come, and returns when nothing is read or mended
// any more. A second Stop does nothing.
func (s *Scrubber) Stop() {
	s.control.Lock()
	defer s.control.Unlock()
	if s.done == nil {
		return
	}
	s.cancel()
	<-s.done
	s.done = nil
	s.update(func() {}) // who waits sees it
}

func (s *Scrubber) started() bool {
	s.control.Lock()
	defer s.control.Unlock()
	return s.done != nil
}

// Status tells how far the scrub has come.
func (s *Scrubber) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Status{ScrubState: s.state, Rate: s.o.Rate, Every: s.o.Every, Running: s.running, Total: s.total(), Next: s.next}
	if st.Pass != nil {
		live := s.live
		st.Pass = &live
	}
	if s.err != nil {
		st.Err = s.err.Error()
	}
	return st
}

// total is about what a pass reads. The caller has locked.
func (s *Scrubber) total() int64 { return max(s.store.ScrubSize(), s.live.Bytes) }

// Now begins a pass, or goes on with the one under way, at whatever rate the disk has, and
// returns what the whole pass has found. If ctx ends, the scrub goes on at its own rate.
// progress, if not nil, is told the bytes.
func (s *Scrubber) Now(ctx context.Context, progress func(done, total int64)) (index.ScrubPass, error) {
	s.mu.Lock()
	passes := s.passes
	s.waiters++
	s.err = nil
	s.change()
	s.mu.Unlock()
	defer s.update(func() {
		if s.passes == passes { // else nobody is counted any more
			s.waiters--
		}
	})
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		s.mu.Lock()
		last, err, over, changed := s.state.Last, s.err, s.passes > passes, s.changed
		done, total := s.live.Bytes, s.total()
		s.mu.Unlock()
		switch {
		case over:
			return *last, nil
		case err != nil:
			return index.ScrubPass{}, err
		case !s.started():
			return index.ScrubPass{}, fault.New("scrub", s.store.Dir(), fault.Stale, errors.New("the daemon stops"))
		}
		if progress != nil {
			progress(done, total)
		}
		select {
		case <-ctx.Done():
			return index.ScrubPass{}, fault.New("scrub", s.store.Dir(), fault.Canceled, context.Cause(ctx))
		case <-changed:
		case <-tick.C:
		}
	}
}

// update changes what mu guards.
func (s *Scrubber) update(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	s.change()
}

// change tells who waits. The caller has locked.
func (s *Scrubber) change() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// run waits for passes to be due, and makes them.
func (s *Scrubber) run(ctx context.Context) {
	// The thread keeps its class, and ends with this goroutine.
	runtime.LockOSThread()
	if err := idle(); err != nil {
		s.log.Debug("the scrub reads in the usual I/O class", "err", err)
	}
	begun := time.Now()
	for s.wait(ctx, begun.Add(s.o.Delay)) {
		s.update(func() { s.running, s.err = true, nil })
		err := s.pass(ctx)
		s.update(func() {
			s.running = false
			if ctx.Err() == nil && !errors.Is(err, errPaused) {
				s.err = err
			}
		})
		if err != nil && ctx.Err() == nil && !errors.Is(err, errPaused) {
			s.log.Error("the scrub cannot go on now", "err", err, "again", retryAfter)
			begun = time.Now().Add(retryAfter - s.o.Delay)
		}
	}
}

// wait returns true when something is to be read, and false when ctx ends.
func (s *Scrubber) wait(ctx context.Context, earliest time.Time) bool {
	for {
		s.mu.Lock()
		s.next = s.due(earliest)
		now, next, changed := s.waiters > 0 && s.err == nil, s.next, s.changed
		s.mu.Unlock()
		if ctx.Err() != nil {
			return false
		}
		var t *time.Timer
		var timer <-chan time.Time
		if !next.IsZero() {
			left := time.Until(next)
			if left <= 0 {
				now = true
			}
			t = time.NewTimer(left)
			timer = t.C
		}
		if !now {
			select {
			case <-ctx.Done():
			case <-changed:
			case <-timer:
			}
		}
		if t != nil {
			t.Stop()
		}
		if now {
			return true
		}
	}
}

// due is when the next reading is. The caller has locked.
func (s *Scrubber) due(earliest time.Time) time.Time {
	if s.o.Rate <= 0 {
		return time.Time{}
	}
	at := earliest
	if s.state.Pass == nil && s.state.Last != nil {
		if next := s.state.Last.Started.Add(s.o.Every); next.After(at) {
			at = next
		}
	}
	return at
}

// errPaused says that nobody wants to read any more: the rate is 0, and who waited has gone.
var errPaused = errors.New("nobody waits for the scrub any more")

// pace waits until more may be read.
func (s *Scrubber) pace(ctx context.Context, bytes int) error {
	for bytes > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		s.mu.Lock()
		hurry, changed := s.waiters > 0, s.changed
		s.mu.Unlock()
		if hurry {
			return nil
		}
		if s.o.Rate <= 0 {
			return errPaused
		}
		n := min(bytes, burst)
		r := s.limiter.ReserveN(time.Now(), n)
		t := time.NewTimer(r.Delay())
		select {
		case <-t.C:
			bytes -= n
		case <-changed: // perhaps somebody is in a hurry
			r.Cancel()
		case <-ctx.Done():
			r.Cancel()
		}
		t.Stop()
	}
	return nil
}
