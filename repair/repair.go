package repair

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path"
	"slices"
	"strings"

	"condafs/conda"
	"condafs/fault"
	"condafs/hashing"
	"condafs/index"
	"condafs/internal/failpoint"
)

// Options are what a caller may choose.
type Options struct {
	// Shelf are directories beside the store with packages as plain files, SHELF/NAME.
	Shelf    []string
	Limits   conda.Limits
	Progress func(done, total int64) // of lost contents that were looked for; may be nil
}

// Report tells what became of the problems.
type Report struct {
	Problems []index.Problem // as given, with Quarantined and Fixed
	Removed  []string        // entries that left head
	Lost     int             // problems whose content nobody has, so that what needs it has left head
	Left     int             // problems that a repair can do nothing about
}

// Run repairs what problems name, while clients go on. It can be stopped at any time:
// what it has put aside is then found missing by the next Verify.
func Run(ctx context.Context, store *index.Store, problems []index.Problem, o Options) (*Report, error) {
	r := &repairing{ctx: ctx, store: store, o: o, hold: store.NewHold(), lost: make(map[hashing.Digest]bool), from: make(map[hashing.Digest]string)}
	defer r.hold.Release()
	r.report.Problems = slices.Clone(problems)
	for _, step := range []func() error{r.putAside, r.lookFor, r.remove, r.journal} {
		if err := step(); err != nil {
			if ctx.Err() != nil {
				err = fault.New("repair", store.Dir(), fault.Canceled, context.Cause(ctx))
			}
			return &r.report, err
		}
	}
	r.tell()
	return &r.report, nil
}

type repairing struct {
	ctx    context.Context
	store  *index.Store
	o      Options
	hold   *index.Hold
	lost   map[hashing.Digest]bool   // blobs that are not there any more
	trees  []hashing.Digest          // whose tree is lost for good
	from   map[hashing.Digest]string // where what was found came from
	report Report
}

// putAside moves what is damaged out of the clients' way.
func (r *repairing) putAside() error {
	for i := range r.report.Problems {
		p := &r.report.Problems[i]
		if err := r.ctx.Err(); err != nil {
			return err
		}
		switch p.Kind {
		case index.Missing, index.Size, index.Content:
			if p.Kind != index.Missing {
				id, err := r.store.SetAside(*p)
				if err != nil {
					return err
				}
				p.Quarantined = cmp.Or(id, p.Quarantined) // who found it may have put it aside
			}
			if r.store.HasBlob(p.Digest) {
				p.Fixed = broughtSince
				continue
			}
			r.lost[p.Digest] = true
		case index.Foreign:
			id, err := r.store.SetAside(*p)
			if err != nil {
				return err
			}
			if p.Quarantined = cmp.Or(id, p.Quarantined); p.Quarantined != "" {
				p.Fixed = "put aside"
			}
		case index.BadTree:
			err := r.store.MendTree(r.ctx, p.Digest)
			switch {
			case err == nil:
				p.Fixed = "taken from beside the journal"
			case fault.Is(err, fault.Corrupt):
				r.trees = append(r.trees, p.Digest)
			default:
				return err
			}
		}
	}
	return nil
}

// lookFor brings back what can be had.
func (r *repairing) lookFor() error {
	if len(r.lost) == 0 {
		return nil
	}
	refs, err := r.referrers()
	if err != nil {
		return err
	}
	s := &search{repairing: r, sizes: make(map[int64]bool), wanted: make(map[hashing.Digest]bool)}
	for _, ref := range refs {
		for _, e := range ref.Lost {
			s.want(e.Digest, e.Size)
		}
		if ref.Entry.Kind == index.KindFile {
			s.want(ref.Entry.Digest, ref.Entry.Size)
		}
	}
	s.total = int64(len(s.wanted))
	if err := s.inArchives(refs); err != nil {
		return err
	}
	if err := s.inDirectories(); err != nil {
		return err
	}
	if len(r.from) > 0 {
		if err := r.store.SyncBlobs(); err != nil {
			return err
		}
	}
	failpoint.Hit(failpoint.RepairBrought, r.store.Dir())
	return nil
}

func (r *repairing) referrers() ([]index.Referrer, error) {
	return r.store.Referrers(r.ctx, func(d hashing.Digest) bool { return r.lost[d] })
}

// remove takes out of head what refers to lost content. What somebody publishes
// meanwhile can refer to it if he has brought it again, which counts, or if he saw it
// before it was put aside, so it is looked for again until nothing is left.
func (r *repairing) remove() error {
	if len(r.lost) == 0 && len(r.trees) == 0 {
		return nil
	}
	for {
		if err := r.store.AwaitCommits(r.ctx); err != nil {
			return err
		}
		for d := range r.lost {
			if r.store.HasBlob(d) {
				r.brought(d, "")
			}
		}
		refs, err := r.referrers()
		if err != nil {
			return err
		}
		refs = slices.DeleteFunc(refs, func(ref index.Referrer) bool { return !ref.Head })
		if len(refs) == 0 {
			failpoint.Hit(failpoint.RepairRemoved, r.store.Dir())
			for d := range r.lost {
				r.store.GiveUp(d)
			}
			return nil
		}
		if err := r.removeAll(refs); err != nil {
			return err
		}
	}
}

func (r *repairing) removeAll(refs []index.Referrer) error {
	info := index.CommitInfo{Label: "repair", UID: uint32(os.Geteuid()), PID: os.Getpid()}
	var removed []string
	_, err := r.store.Update(r.ctx, info, func(tx *index.Tx) error {
		removed = removed[:0]
		for _, ref := range refs {
			now, ok, err := tx.Get(ref.Path)
			if err != nil {
				return err
			}
			if !ok || now != ref.Entry {
				continue // somebody has replaced it
			}
			if whole, err := r.whole(ref); err != nil {
				return err
			} else if whole {
				continue // somebody has brought what it lacked
			}
			for _, p := range together(ref) {
				if _, ok, err := tx.Get(p); err != nil {
					return err
				} else if !ok {
					continue
				}
				if err := tx.Delete(p); err != nil {
					return err
				}
				tx.Note("- " + p + " (damaged)")
				removed = append(removed, p)
			}
		}
		return nil
	})
	if err == nil {
		r.report.Removed = append(r.report.Removed, removed...)
	}
	return err
}

// whole tells whether nothing that an entry needs is lost any more.
func (r *repairing) whole(ref index.Referrer) (bool, error) {
	if ref.NoTree {
		return r.store.HasTree(ref.Entry.Digest)
	}
	if ref.Entry.Kind == index.KindFile {
		return r.store.HasBlob(ref.Entry.Digest), nil
	}
	for _, e := range ref.Lost {
		if !r.store.HasBlob(e.Digest) {
			return false, nil
		}
	}
	return true, nil
}

// together lists the entries that go with one: metadata beside a package, and all of
// a group of repodata, which clients take as one.
func together(ref index.Referrer) []string {
	space, rel, ok := strings.Cut(ref.Path, "/")
	if !ok {
		return []string{ref.Path}
	}
	u := conda.Classify(rel, ref.Entry.Kind == index.KindTree)
	out := []string{ref.Path}
	switch u.Kind {
	case conda.Package, conda.RattlerPackage:
		for _, s := range u.Sidecars {
			out = append(out, path.Join(space, s))
		}
	case conda.Repodata:
		for _, m := range u.Members() {
			if p := path.Join(space, m); p != ref.Path {
				out = append(out, p)
			}
		}
	}
	return out
}

// journal writes it anew, if the database is sound enough for that.
func (r *repairing) journal() error {
	if slices.ContainsFunc(r.report.Problems, func(p index.Problem) bool { return p.Kind == index.Index }) {
		return nil
	}
	if err := r.store.MendJournal(r.ctx, r.report.Problems); err != nil {
		return err
	}
	for i := range r.report.Problems {
		if p := &r.report.Problems[i]; p.Kind == index.Journal {
			p.Fixed = "written anew"
		}
	}
	return nil
}

// tell says of each problem what became of it.
func (r *repairing) tell() {
	for i := range r.report.Problems {
		p := &r.report.Problems[i]
		if p.Fixed != "" {
			continue
		}
		switch from, found := r.from[p.Digest]; {
		case p.Kind == index.Index || p.Kind == index.Journal:
			r.report.Left++
		case found && from == "":
			p.Fixed = broughtSince
		case found:
			p.Fixed = "mended from " + from
		case len(p.Paths) > 0:
			p.Fixed = "what needs it has left the newest snapshot"
			r.report.Lost++
		default:
			p.Fixed = "nothing in the newest snapshot needs it"
		}
	}
}

const broughtSince = "somebody has brought it since"

// brought notes that a content is there again. from is "" if somebody else has done it.
func (r *repairing) brought(d hashing.Digest, from string) {
	r.from[d] = from
	delete(r.lost, d)
}

var errFound = errors.New("all is found")
