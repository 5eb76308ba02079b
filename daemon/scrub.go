package daemon

import (
	"context"
	"time"

	"condafs/control"
	"condafs/index"
	"condafs/repair"
	"condafs/scrub"
	"condafs/shelf"
)

// scrubDelay is how long a new daemon leaves the disk to those who have waited for it.
const scrubDelay = 5 * time.Minute

func (d *daemon) newScrubber() *scrub.Scrubber {
	s := (&api{store: d.store, daemon: d, log: d.config.Logger}).newScrubber(d.config.ScrubRate, d.config.ScrubEvery)
	d.store.OnDamaged(s.Suspect)
	return s
}

func (a *api) newScrubber(rate int64, every time.Duration) *scrub.Scrubber {
	return scrub.New(a.store, scrub.Options{
		Rate: rate, Every: every, Delay: scrubDelay, Logger: a.log,
		Mend: func(ctx context.Context, problems []index.Problem) (*repair.Report, error) {
			return a.mend(ctx, problems, nil)
		},
		Shelves: a.scrubShelves,
	})
}

// scrubShelves reads the shelves, too: what shares no bytes with the store nobody else looks at.
func (a *api) scrubShelves(ctx context.Context, pace func(context.Context, int) error) (found, mended int, err error) {
	var r control.VerifyReport
	err = a.checkShelves(ctx, shelf.CheckOptions{Full: true, Pace: pace}, &r)
	for _, p := range r.Problems {
		if p.Fixed != "" {
			mended++
		}
	}
	return len(r.Problems), mended, err
}

// scrubber is the daemon's, or one that only does what it is told to.
func (a *api) scrubber() *scrub.Scrubber {
	if a.daemon != nil {
		return a.daemon.scrub
	}
	return a.newScrubber(0, 0)
}

// Scrub reads all of the store now.
func (a *api) Scrub(ctx context.Context, _ control.ScrubRequest, progress control.ProgressFunc) (*control.ScrubPass, error) {
	s := a.scrubber()
	if a.daemon == nil {
		s.Start()
		defer s.Stop()
	}
	p, err := s.Now(ctx, counter(progress, "scrubbing", "bytes"))
	if err != nil {
		return nil, err
	}
	return a.scrubPass(&p, 0), nil
}

// scrubStatus tells what the scrub does, or without a daemon what it did last.
func (a *api) scrubStatus() control.Scrub {
	st := a.scrubber().Status()
	return control.Scrub{
		Rate: st.Rate, Every: int64(st.Every / time.Second), Running: st.Running, Next: st.Next, Error: st.Err,
		Pass: a.scrubPass(st.Pass, st.Total), Last: a.scrubPass(st.Last, 0),
	}
}

func (a *api) scrubPass(p *index.ScrubPass, total int64) *control.ScrubPass {
	if p == nil {
		return nil
	}
	out := &control.ScrubPass{Started: p.Started, Finished: p.Finished, Blobs: p.Blobs, Bytes: p.Bytes, Total: total,
		Found: p.Found, Mended: p.Mended, Lost: p.Lost, Removed: p.Removed, Left: p.Left}
	if a.all {
		for _, q := range p.Problems {
			out.Problems = append(out.Problems, problem(q))
		}
	}
	return out
}
