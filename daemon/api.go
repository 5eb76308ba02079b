package daemon

import (
	"context"
	"errors"
	"log/slog"

	"condafs/control"
	"condafs/cow"
	"condafs/fault"
	"condafs/index"
	"condafs/shelf"
	"condafs/transfer"
)

// api answers one peer's requests.
type api struct {
	store   *index.Store
	daemon  *daemon // nil if there is none, only the store
	peer    control.Peer
	all     bool // the peer may see everybody's
	owner   uint32
	version string
	log     *slog.Logger
}

var _ control.API = (*api)(nil)

// noDaemon is the answer to what needs one.
func (a *api) noDaemon(op string) error {
	return fault.New(op, a.store.Dir(), fault.NotMounted, errors.New("the store is not mounted")).
		WithHint("`condafs mount --store " + a.store.Dir() + " MOUNTPOINT` mounts it")
}

func (a *api) Status(context.Context) (*control.Status, error) {
	st, err := a.store.Stats()
	if err != nil {
		return nil, err
	}
	s := &control.Status{
		Version: a.version, Store: a.store.Dir(), StoreID: st.UUID, Owner: a.owner, Head: uint64(st.Head),
		Packages: st.Packages, Blobs: st.Blobs, StoredBytes: st.ObjectBytes, LogicalBytes: st.LogicalBytes,
		Quarantine: []control.Quarantine{},
	}
	if s.Archives, err = a.countArchives(); err != nil {
		return nil, err
	}
	s.Scrub = a.scrubStatus()
	if d := a.daemon; d != nil {
		s.PID, s.Started, s.MountPoint = pid(), d.started, d.config.MountPoint
		s.Upgraded = d.lastUpgrade()
		s.Sessions = len(d.engine.SessionIDs())
		if d.config.AllowOther {
			s.Users = a.users()
		}
		if d.shelf != nil {
			s.Shelf = &control.Shelf{Path: d.shelf.Path(), Sharing: d.shelf.Sharing().String(), Packages: d.shelf.Count()}
		}
		if a.all {
			if s.Runtime, err = d.runtime(); err != nil {
				return nil, err
			}
		}
	}
	q, err := a.store.Quarantined()
	if err != nil {
		return nil, err
	}
	for _, r := range q {
		if a.all || r.UID == a.peer.UID {
			s.Quarantine = append(s.Quarantine, control.Quarantine(r))
			s.QuarantinedBytes += r.Bytes
		}
	}
	return s, nil
}

func (a *api) Log(_ context.Context, limit int) ([]control.Commit, error) {
	// Others' commits are left out after the fact, so the limit comes last.
	of := limit
	if !a.all {
		of = 0
	}
	records, err := a.store.Log(of)
	if err != nil {
		return nil, err
	}
	l := []control.Commit{}
	for _, r := range records {
		if !a.all && r.UID != a.peer.UID {
			continue
		}
		if limit > 0 && len(l) == limit {
			break
		}
		what := r.What
		if what == nil {
			what = []string{}
		}
		l = append(l, control.Commit{Seq: uint64(r.Seq), Time: r.Time, UID: r.UID, PID: r.PID, Session: r.Session, Label: r.Label, Command: r.Command, What: what})
	}
	return l, nil
}

func (a *api) Verify(ctx context.Context, r control.VerifyRequest, progress control.ProgressFunc) (*control.VerifyReport, error) {
	v, err := a.store.Verify(ctx, index.VerifyOptions{Full: r.Full}, counter(progress, "verifying", "bytes"))
	if err != nil {
		return nil, err
	}
	out := verifyReport(v, r.Full)
	if err := a.checkShelves(ctx, shelf.CheckOptions{Dry: true, Full: r.Full}, &out); err != nil {
		return nil, err
	}
	return &out, nil
}

func verifyReport(v index.VerifyReport, full bool) control.VerifyReport {
	out := control.VerifyReport{Blobs: v.Blobs, Bytes: v.Bytes, Hashed: v.Hashed, Full: full, Problems: []control.Problem{}}
	for _, p := range v.Problems {
		out.Problems = append(out.Problems, problem(p))
	}
	return out
}

func problem(p index.Problem) control.Problem {
	q := control.Problem{Kind: string(p.Kind), File: p.File, Detail: p.Detail, Paths: p.Paths, Quarantined: p.Quarantined, Fixed: p.Fixed}
	if !p.Digest.IsZero() {
		q.Digest = p.Digest.String()
	}
	if q.Paths == nil {
		q.Paths = []string{}
	}
	return q
}

func (a *api) GC(ctx context.Context, r control.GCRequest, progress control.ProgressFunc) (*control.GCReport, error) {
	g, err := a.collect(ctx, r.DryRun, progress)
	if err != nil {
		return nil, err
	}
	out := &control.GCReport{DryRun: r.DryRun, Blobs: g.Blobs, Trees: g.Trees, Bytes: g.Bytes, KeptBlobs: g.KeptBlobs, KeptBytes: g.KeptBytes, Removed: []control.RemovedPackage{}}
	return out, a.trim(ctx, r, out, progress)
}

func (a *api) Import(ctx context.Context, r control.ImportRequest, progress control.ProgressFunc) (*control.ImportReport, error) {
	if err := a.checkOutside("import", r.Dir); err != nil {
		return nil, err
	}
	spaces, err := a.transferSpaces()
	if err != nil {
		return nil, err
	}
	rep, err := transfer.Import(ctx, a.store, transfer.ImportOptions{Dir: r.Dir, UID: a.peer.UID, Spaces: spaces, Progress: func(p transfer.Progress) { progress.Report(control.Progress(p)) }})
	if err != nil {
		return nil, err
	}
	a.shelfChanged()
	out := &control.ImportReport{Imported: []control.Committed{}, Present: rep.Present, Rejected: notes(rep.Rejected), Skipped: notes(rep.Skipped), Bytes: rep.Bytes}
	for _, i := range rep.Imported {
		out.Imported = append(out.Imported, control.Committed{Path: i.Path, Kind: i.Kind.String(), Trust: i.Trust.String()})
	}
	return out, nil
}

func (a *api) Export(ctx context.Context, r control.ExportRequest, progress control.ProgressFunc) (*control.ExportReport, error) {
	if err := a.checkOutside("export to", r.Dir); err != nil {
		return nil, err
	}
	spaces, err := a.transferSpaces()
	if err != nil {
		return nil, err
	}
	rep, err := transfer.Export(ctx, a.store, transfer.ExportOptions{Dir: r.Dir, Names: r.Names, Spaces: spaces, Progress: func(p transfer.Progress) { progress.Report(control.Progress(p)) }})
	if err != nil {
		return nil, err
	}
	out := &control.ExportReport{Exported: rep.Exported, Present: rep.Present, Rejected: notes(rep.Rejected), Bytes: rep.Bytes}
	if out.Exported == nil {
		out.Exported = []string{}
	}
	return out, nil
}

// transferSpaces are where the peer's packages go to, and come from.
func (a *api) transferSpaces() (transfer.Spaces, error) {
	own := cow.PrivateSpace(a.peer.UID)
	if a.daemon != nil {
		return transfer.Spaces{Shared: a.daemon.engine.SharedSpaceOf(a.peer.UID), Private: own}, nil
	}
	nothing, err := cow.SharesNothing(a.store)
	if err != nil || nothing {
		return transfer.Spaces{Shared: own, Private: own}, err
	}
	return transfer.Spaces{Shared: cow.SharedSpace, Private: own}, nil
}

// checkOutside refuses directories in the store or on the mount: the daemon would
// read what it writes, or wait for itself.
func (a *api) checkOutside(op, dir string) error {
	mount := ""
	if a.daemon != nil {
		mount = a.daemon.config.MountPoint
	}
	// The mount first: to look for the store below it would start a session of the daemon's own.
	for _, p := range []string{mount, a.store.Dir()} {
		if p == "" {
			continue
		}
		in, err := inside(dir, p)
		if err != nil {
			return fault.New(op, dir, fault.Other, err)
		}
		if in {
			return fault.New(op, dir, fault.Usage, errors.New("it belongs to condafs itself")).WithHint("give a directory outside of " + p)
		}
	}
	return nil
}

func notes(l []transfer.Note) []control.Dropped {
	out := []control.Dropped{}
	for _, n := range l {
		out = append(out, control.Dropped(n))
	}
	return out
}

// counter makes the index's progress ours.
func counter(f control.ProgressFunc, phase, unit string) func(done, total int64) {
	return func(done, total int64) {
		f.Report(control.Progress{Phase: phase, Done: done, Total: total, Unit: unit})
	}
}

// users tells what holds between users.
func (a *api) users() *control.Users {
	c := &a.daemon.config
	u := &control.Users{Sharing: string(c.Sharing), Trusted: c.Trusted, Limits: amounts(c.Quota), Usage: []control.Usage{}}
	var of []uint32
	if !a.all {
		of = append(of, a.peer.UID)
	}
	for _, x := range a.daemon.engine.Usage(of...) {
		u.Usage = append(u.Usage, control.Usage{UID: x.UID, Amounts: amounts(x.Quota)})
	}
	return u
}

func amounts(q cow.Quota) control.Amounts {
	return control.Amounts{Sessions: q.Sessions, Open: q.Open, Bytes: q.Bytes, Files: q.Files}
}
