package scrub

import (
	"context"
	"time"

	"condafs/hashing"
	"condafs/index"
)

// maxSuspects bounds how many blobs wait to be looked at. The next pass finds the others.
const maxSuspects = 1000

// Suspect has a blob looked at, and mended, that somebody has found damaged when he opened
// it: whoever comes next need not find it so. It returns at once, and does nothing if
// nothing is to be read but by Now.
func (s *Scrubber) Suspect(d hashing.Digest) {
	if s.o.Rate <= 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.suspects[d] && len(s.suspects) < maxSuspects {
		s.suspects[d] = true
		s.change()
	}
}

// watch looks at suspects. It takes no more than its share of the time, as a pass.
func (s *Scrubber) watch(ctx context.Context) {
	for {
		s.mu.Lock()
		var suspects map[hashing.Digest]bool
		if len(s.suspects) > 0 {
			suspects, s.suspects = s.suspects, make(map[hashing.Digest]bool)
		}
		changed := s.changed
		s.mu.Unlock()
		if len(suspects) == 0 {
			select {
			case <-ctx.Done():
				return
			case <-changed:
			}
			continue
		}
		begun := time.Now()
		rest := time.Duration(0)
		if err := s.look(ctx, suspects); err != nil {
			if ctx.Err() != nil {
				return
			}
			s.log.Error("what somebody has found damaged is not mended yet", "blobs", len(suspects), "err", err)
			rest = time.Minute
		}
		t := time.NewTimer(max(rest, mendShare*time.Since(begun)))
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
	}
}

func (s *Scrubber) look(ctx context.Context, suspects map[hashing.Digest]bool) error {
	var damaged []index.Problem
	for d := range suspects {
		problems, err := s.store.Examine(ctx, d)
		if err != nil {
			return err
		}
		for _, p := range problems {
			is, err := s.putAside(&p)
			if err != nil {
				return err
			}
			if is {
				damaged = append(damaged, p)
			}
		}
	}
	if len(damaged) == 0 {
		return nil
	}
	_, _, err := s.settle(ctx, damaged)
	return err
}
