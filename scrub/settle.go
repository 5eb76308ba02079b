package scrub

import (
	"context"

	"condafs/fault"
	"condafs/index"
	"condafs/repair"
)

// putAside moves what is damaged into quarantine. It returns false if it is not any more.
func (s *Scrubber) putAside(p *index.Problem) (bool, error) {
	switch p.Kind {
	case index.Size, index.Content, index.Foreign:
		id, err := s.store.SetAside(*p)
		if err != nil {
			return false, err
		}
		if id == "" && (p.Kind == index.Foreign || s.store.HasBlob(p.Digest)) {
			return false, nil // somebody was quicker
		}
		p.Quarantined = id
	}
	return true, nil
}

// settle mends problems and logs what became of them. The report is nil if there was
// nothing; stale is as for [index.Store.Affected].
func (s *Scrubber) settle(ctx context.Context, problems []index.Problem) (rep *repair.Report, stale bool, err error) {
	real, stale, err := s.store.Affected(ctx, problems)
	if err == nil {
		if len(real) == 0 {
			return nil, stale, nil
		}
		rep, err = s.o.Mend(ctx, real)
	}
	switch {
	case fault.Is(err, fault.Corrupt) && ctx.Err() == nil:
		// The database is damaged, which is found by itself. Without it nothing is mended.
		s.log.Error("the damage that was found cannot be mended", "problems", len(problems), "err", err)
		rep = &repair.Report{Problems: problems, Left: len(problems)}
	case err != nil:
		return nil, stale, err
	}
	for _, p := range rep.Problems {
		s.log.Warn("found damage", "kind", p.Kind, "file", p.File, "detail", p.Detail, "affects", p.Paths, "quarantined", p.Quarantined, "mended", p.Fixed)
	}
	return rep, stale, nil
}
