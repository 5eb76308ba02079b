package daemon

import (
	"context"
	"errors"
	"strings"

	"condafs/control"
	"condafs/index"
	"condafs/repair"
	"condafs/shelf"
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
	return out, a.checkShelves(ctx, shelf.CheckOptions{Full: r.Full}, &out.VerifyReport)
}

// mend repairs what was found, and lets no shelf keep what it has of it: its files can
// be other names of the damaged ones.
func (a *api) mend(ctx context.Context, problems []index.Problem, progress func(done, total int64)) (*repair.Report, error) {
	o := repair.Options{Progress: progress}
	if a.daemon == nil {
		return repair.Run(ctx, a.store, problems, o)
	}
	renew := make(map[*shelf.Shelf]map[string]bool)
	for _, s := range a.daemon.shelves() {
		o.Shelf = append(o.Shelf, s.Path())
		renew[s] = affected(problems, s.From())
		if err := s.Doubt(renew[s]); err != nil {
			return nil, err
		}
	}
	rep, err := repair.Run(ctx, a.store, problems, o)
	for s, names := range renew { // also if not all could be mended
		err = errors.Join(err, s.Renew(names))
	}
	return rep, err
}

// affected names the packages in a directory of the index that have a damaged file.
func affected(problems []index.Problem, dir string) map[string]bool {
	names := make(map[string]bool)
	for _, p := range problems {
		for _, at := range p.Paths {
			if rest, ok := strings.CutPrefix(at, dir+"/"); ok {
				name, _, _ := strings.Cut(rest, "/")
				names[name] = true
			}
		}
	}
	return names
}
