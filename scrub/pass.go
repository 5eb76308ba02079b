package scrub

import (
	"context"
	"errors"
	"slices"
	"time"

	"condafs/index"
	"condafs/internal/failpoint"
	"condafs/repair"
)

// pass is what goes on between two waits: a pass over the store, or a piece of one.
type pass struct {
	*Scrubber
	scrub   *index.Scrub
	record  index.ScrubPass // what is written down: up to the first part with something pending
	pending []index.Problem // found and put aside, but not mended
	rest    time.Time       // nothing is mended before
	saved   time.Time
}

// pass goes on with the pass under way, or begins one, until its end.
func (s *Scrubber) pass(ctx context.Context) (err error) {
	w := &pass{Scrubber: s}
	if p := s.state.Pass; p != nil {
		w.record = *p
		s.log.Info("the scrub goes on", "part", p.Part, "of", index.ScrubParts)
	} else {
		w.record = index.ScrubPass{Started: time.Now().UTC(), Problems: []index.Problem{}}
		s.log.Info("a scrub begins", "bytes", s.store.ScrubSize(), "rate", s.o.Rate)
	}
	w.show()
	w.scrub = s.store.NewScrub(index.ScrubOptions{Pace: s.pace, Read: w.read, Found: w.found})
	defer func() { err = errors.Join(err, w.scrub.Close()) }()
	for n := w.record.Part; n < index.ScrubParts; n++ {
		if err := w.part(ctx, n); err != nil {
			// What is pending is put aside, and so missing when its part is read again.
			return errors.Join(err, w.save())
		}
	}
	if err := w.shelves(ctx); err != nil {
		return errors.Join(err, w.save())
	}
	return w.finish()
}

// shelves has read what lies beside the store.
func (w *pass) shelves(ctx context.Context) error {
	if w.o.Shelves == nil {
		return nil
	}
	found, mended, err := w.o.Shelves(ctx, w.pace)
	w.count(func(r *index.ScrubPass) {
		r.Found += int64(found)
		r.Mended += int64(mended)
		r.Left += int64(found - mended)
	})
	return err
}

// part reads one part. It is written down as read when all that was found is mended.
func (w *pass) part(ctx context.Context, n int) error {
	err := w.scrub.Part(ctx, n)
	if err == nil {
		err = w.mend(ctx, n == index.ScrubParts-1)
	}
	if err != nil || len(w.pending) > 0 {
		return err
	}
	w.update(func() {
		w.record.Part, w.record.Blobs, w.record.Bytes = n+1, w.live.Blobs, w.live.Bytes
	})
	w.show()
	if time.Since(w.saved) < saveEvery {
		return nil
	}
	return w.save()
}

// read counts what was read.
func (w *pass) read(blobs, bytes int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.live.Blobs += blobs
	w.live.Bytes += bytes
}

// show makes Status tell what will be written down.
func (w *pass) show() {
	w.update(func() {
		p := w.record
		p.Problems = slices.Clone(p.Problems)
		w.state.Pass, w.live = &p, p
	})
}

func (w *pass) save() error {
	w.saved = time.Now()
	err := w.store.SetScrubState(index.ScrubState{Pass: &w.record, Last: w.state.Last})
	failpoint.Hit(failpoint.ScrubSaved, w.store.Dir())
	return err
}

func (w *pass) finish() error {
	p := w.record
	p.Finished = time.Now().UTC()
	if err := w.store.SetScrubState(index.ScrubState{Last: &p}); err != nil {
		return err
	}
	w.log.Info("the scrub has read all of the store", "blobs", p.Blobs, "bytes", p.Bytes, "found", p.Found, "mended", p.Mended,
		"lost", p.Lost, "left", p.Left, "took", p.Finished.Sub(p.Started).Round(time.Second).String())
	w.update(func() {
		w.state = index.ScrubState{Last: &p}
		w.live = index.ScrubPass{}
		w.running = false // who waits for its end sees that it has ended
		w.passes++
		w.waiters = 0
	})
	return nil
}

// found puts aside what is damaged, so that nobody reads it, and mends what it can now.
func (w *pass) found(ctx context.Context, problems ...index.Problem) error {
	for _, p := range problems {
		damaged, err := w.putAside(&p)
		if err != nil {
			return err
		}
		if damaged {
			w.pending = append(w.pending, p)
		}
	}
	return w.mend(ctx, false)
}

// mend mends what is pending, if it is time or must be.
func (w *pass) mend(ctx context.Context, now bool) error {
	if len(w.pending) == 0 || !now && time.Now().Before(w.rest) {
		return nil
	}
	begun := time.Now()
	// On another thread, which is not idle: clients may wait for the content.
	var rep *repair.Report
	var stale bool
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		rep, stale, err = w.settle(ctx, w.pending)
	}()
	<-done
	if stale {
		err = errors.Join(err, w.scrub.Forget())
	}
	if err != nil {
		return err
	}
	w.pending = nil
	if rep != nil {
		failpoint.Hit(failpoint.ScrubMended, w.store.Dir())
		w.tell(rep)
		// At once: whoever reads the part again finds nothing to tell of.
		if err := w.save(); err != nil {
			return err
		}
	}
	w.rest = time.Now().Add(mendShare * time.Since(begun))
	return nil
}

// tell counts what became of problems.
func (w *pass) tell(rep *repair.Report) {
	w.count(func(r *index.ScrubPass) {
		r.Found += int64(len(rep.Problems))
		r.Lost += int64(rep.Lost)
		r.Left += int64(rep.Left)
		r.Mended += int64(len(rep.Problems) - rep.Lost - rep.Left)
		r.Removed += int64(len(rep.Removed))
		for _, p := range rep.Problems {
			r.Note(p)
		}
	})
}

// count changes what is written down, and what is shown.
func (w *pass) count(f func(r *index.ScrubPass)) {
	w.update(func() {
		f(&w.record)
		f(&w.live)
	})
}
