package daemon

import (
	"context"
	"path"
	"strings"

	"condafs/control"
	"condafs/cow"
	"condafs/index"
	"condafs/repair"
)

// Repair checks the store and mends what it finds, while clients go on.
func (a *api) Repair(ctx context.Context, r control.RepairRequest, progress control.ProgressFunc) (*control.RepairReport, error) {
	v, err := a.store.Verify(ctx, index.VerifyOptions{Full: r.Full}, counter(progress, "verifying", "bytes"))
	if err != nil {
		return nil, err
	}
	rep, err := a.mend(ctx, v.Problems, counter(progress, "looking for lost files", "files"))
	if err != nil {
		return nil, err
	}
	v.Problems = rep.Problems
	out := &control.RepairReport{VerifyReport: verifyReport(v, r.Full), Removed: rep.Removed, Left: rep.Left}
	if out.Removed == nil {
		out.Removed = []string{}
	}
	return out, a.checkShelves(ctx, false, &out.VerifyReport)
}

// mend repairs what was found, and lets no shelf keep what it has of it: its files can
// be other names of the damaged ones.
func (a *api) mend(ctx context.Context, problems []index.Problem, progress func(done, total int64)) (*repair.Report, error) {
	o := repair.Options{Progress: progress}
	if a.daemon != nil {
		for _, s := range a.daemon.shelves() {
			o.Shelf = append(o.Shelf, s.Path())
		}
	}
	rep, err := repair.Run(ctx, a.store, problems, o)
	if err != nil || a.daemon == nil {
		return rep, err
	}
	for _, s := range a.daemon.shelves() {
		if err := s.Renew(affected(rep)); err != nil {
			return rep, err
		}
	}
	return rep, nil
}

// affected names the packages of the shared space that had a damaged file.
func affected(rep *repair.Report) map[string]bool {
	names := make(map[string]bool)
	for _, p := range rep.Problems {
		for _, at := range p.Paths {
			rel, shared := strings.CutPrefix(at, cow.SharedSpace+"/")
			if !shared {
				continue
			}
			for _, dir := range caches {
				if rest, ok := strings.CutPrefix(rel, dir+"/"); ok {
					name, _, _ := strings.Cut(rest, "/")
					names[path.Base(name)] = true
				}
			}
		}
	}
	return names
}
