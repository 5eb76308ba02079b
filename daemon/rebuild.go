package daemon

import (
	"context"
	"errors"
	"log/slog"

	"condafs/control"
	"condafs/index"
)

// Rebuild makes the database of a store anew, from the journal beside it, and then
// reads all of its content and mends what is damaged. The store must not be open.
func Rebuild(ctx context.Context, dir, version string, log *slog.Logger, progress control.ProgressFunc) (*control.RebuildReport, error) {
	r, err := index.Rebuild(ctx, dir, log, func(phase string, done, total int64) {
		progress.Report(control.Progress{Phase: phase, Done: done, Total: total, Unit: "records"})
	})
	if err != nil {
		return nil, err
	}
	out := &control.RebuildReport{
		Store: dir, Head: uint64(r.Head), Entries: r.Entries, Trees: r.Trees, Commits: r.Commits, Exact: r.Exact,
		Aside: r.Aside, Damage: r.Damage, LostTrees: r.LostTrees,
	}
	if out.Damage == nil {
		out.Damage = []string{}
	}
	if out.LostTrees == nil {
		out.LostTrees = []string{}
	}
	d, err := OpenDirect(dir, version, false, log)
	if err != nil {
		return nil, err
	}
	out.Repair, err = d.Repair(ctx, control.RepairRequest{Full: true}, progress)
	return out, errors.Join(err, d.Close())
}
