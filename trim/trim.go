// Package trim takes out of the newest snapshot what has not been used for longest, so that a collection can free its space:
// down to a size, up to free space, or what is older than an age.
//
// Use costs nothing to record: the file system does it. Clients read a package's list of files before they link it, from the
// mount or natively from the shelf, and its access time tells when, to a day (relatime). The scrub leaves that as it is. Where the file system keeps none (noatime), the time of publication is all that is known.
//
// Nothing that anybody has is taken away: a session goes on with its snapshot, and an environment with its own names of the
// files. What an environment has hard links to stays, as its removal would free nothing.
package trim

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"condafs/conda"
	"condafs/fault"
	"condafs/hashing"
	"condafs/index"
)

// Limits say how much may stay. A zero is no limit.
type Limits struct {
	MaxSize int64         // bytes of the store
	MinFree int64         // bytes of its file system that are to be free
	MaxAge  time.Duration // since a package was used
}

// None reports whether nothing is limited.
func (l Limits) None() bool { return l == Limits{} }

// Options are what a Run may be told.
type Options struct {
	Limits
	DryRun bool
	Freed  int64 // bytes that will be free anyway, and need not be made so
	// Shelves name plain directories by the directory of head that they show.
	Shelves map[string]string
	Now     time.Time
}

// Package is what goes together: a package, its archive, and what stands beside them.
type Package struct {
	Name  string // with its directory in head: shared/pkgs/numpy-2.1.0-py312_0
	Bytes int64  // before sharing of equal content
	Used  time.Time
	paths map[string]index.Entry
}

// Report is what a Run did, or would.
type Report struct {
	Removed []Package // the one that was not used for longest first
	Bytes   int64     // theirs, before sharing
	Linked  int       // packages that stay, as environments have links to them
	Over    int64     // bytes that are still too many when nothing more can go
	NoTimes bool      // the file system records no use
}

// Run removes what the limits say. Space is freed by the collection that is to follow; before it, there should be one, so
// that what is garbage already does not count.
func Run(ctx context.Context, s *index.Store, o Options) (Report, error) {
	var r Report
	if o.None() {
		return r, nil
	}
	t := &trimming{ctx: ctx, store: s, o: o, r: &r}
	need, err := t.need()
	if err != nil {
		return r, err
	}
	if need <= 0 && o.MaxAge == 0 {
		return r, nil
	}
	if err := t.find(); err != nil {
		return r, err
	}
	if err := t.choose(need); err != nil || o.DryRun || len(r.Removed) == 0 {
		return r, err
	}
	return r, t.remove()
}

// noTimes is ST_NOATIME of statvfs(3).
const noTimes = 0x400

type trimming struct {
	ctx       context.Context
	store     *index.Store
	o         Options
	r         *Report
	published map[string]time.Time // by path below the space, from the log
	found     map[string]*Package
	names     map[uint64]uint64 // of inodes on the shelves; nil before countNames
}

// need is how many bytes have to go.
func (t *trimming) need() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(t.store.Dir(), &st); err != nil {
		return 0, fault.New("look at the space of", t.store.Dir(), fault.Other, err)
	}
	t.r.NoTimes = st.Flags&noTimes != 0
	var need int64
	if t.o.MaxSize > 0 {
		need = t.store.Size() - t.o.MaxSize
	}
	if t.o.MinFree > 0 {
		need = max(need, t.o.MinFree-int64(st.Bavail)*st.Bsize)
	}
	return need - t.o.Freed, nil
}

// published is when a commit was made; tests have it say something else.
var published = madeAt

func madeAt(c index.CommitRecord) time.Time { return c.Time }

// find lists the packages of head.
func (t *trimming) find() error {
	log, err := t.store.Log(0)
	if err != nil {
		return err
	}
	t.published = make(map[string]time.Time)
	for _, c := range log { // the newest first
		for _, what := range c.What {
			if p, ok := strings.CutPrefix(what, "+ "); ok {
				p, _, _ = strings.Cut(p, " (")
				if _, seen := t.published[p]; !seen {
					t.published[p] = published(c)
				}
			}
		}
	}
	head := t.store.PinHead()
	defer head.Release()
	t.found = make(map[string]*Package)
	spaces, err := head.List("")
	if err != nil {
		return err
	}
	for _, space := range spaces {
		if space.Kind == index.KindDir {
			if err := t.below(head, space.Name, ""); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *trimming) below(head *index.Snapshot, space, dir string) error {
	if err := t.ctx.Err(); err != nil {
		return fault.New("trim store", t.store.Dir(), fault.Canceled, context.Cause(t.ctx))
	}
	l, err := head.List(path.Join(space, dir))
	if err != nil {
		return err
	}
	for _, e := range l {
		at := path.Join(dir, e.Name)
		switch u := conda.Classify(at, e.Kind == index.KindTree); {
		case e.Kind == index.KindDir:
			if err := t.below(head, space, at); err != nil {
				return err
			}
		case u.Kind == conda.Package || u.Kind == conda.RattlerPackage || u.Kind == conda.Archive:
			if err := t.take(head, space, at, u, e.Entry); err != nil {
				return err
			}
		}
	}
	return nil
}

// take adds something to the package that it belongs to.
func (t *trimming) take(head *index.Snapshot, space, at string, u conda.Unit, e index.Entry) error {
	name := path.Join(space, at)
	if u.Kind == conda.Archive {
		name, _ = conda.CutArchiveExt(name)
	}
	p := t.found[name]
	if p == nil {
		p = &Package{Name: name, paths: make(map[string]index.Entry)}
		t.found[name] = p
	}
	p.paths[path.Join(space, at)] = e
	p.Bytes += e.Size
	for _, s := range u.Sidecars {
		beside := path.Join(space, s)
		se, ok, err := head.Get(beside)
		if err != nil {
			return err
		}
		if ok && se.Kind != index.KindDir {
			p.paths[beside] = se
			p.Bytes += se.Size
		}
	}
	used, err := t.used(space, at, e)
	if err != nil {
		return err
	}
	if p.Used.Before(used) {
		p.Used = used
	}
	return nil
}

// read are the files that clients read before they link a package, the first that it has. What they read of all packages when
// they look at a cache (info/repodata_record.json) tells nothing.
var read = []string{"info/paths.json", "info/files", "info/index.json"}

// used tells when something was published or last used.
func (t *trimming) used(space, at string, e index.Entry) (time.Time, error) {
	used := t.published[at]
	look := func(d hashing.Digest, size int64) error {
		f, err := t.store.OpenBlobSize(d, size)
		if err != nil {
			return nil // verify and repair are for that; here it has not been used
		}
		fi, err := f.Stat()
		if err := errors.Join(err, f.Close()); err != nil {
			return fault.New("look at", f.Name(), fault.Other, err)
		}
		used = latest(used, accessed(fi))
		return nil
	}
	if e.Kind == index.KindFile {
		return used, look(e.Digest, e.Size)
	}
	tree, err := t.store.Tree(e.Digest)
	if err != nil {
		return used, err
	}
	shelf := t.shelf(space, at)
	for _, name := range read {
		i, ok := tree.Find(name)
		if !ok || tree.At(i).Kind != index.KindFile {
			continue
		}
		if err := look(tree.At(i).Digest, tree.At(i).Size); err != nil {
			return used, err
		}
		if shelf != "" {
			if fi, err := os.Lstat(filepath.Join(shelf, name)); err == nil {
				used = latest(used, accessed(fi))
			}
		}
		break
	}
	return used, nil
}

// shelf is where a package lies natively, if it does; "" if there is no such shelf.
func (t *trimming) shelf(space, at string) string {
	if dir := t.o.Shelves[path.Join(space, path.Dir(at))]; dir != "" {
		return filepath.Join(dir, path.Base(at))
	}
	return ""
}

func accessed(fi fs.FileInfo) time.Time {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return time.Time{}
	}
	return time.Unix(st.Atim.Unix())
}

func latest(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// choose decides which packages go.
func (t *trimming) choose(need int64) error {
	all := make([]*Package, 0, len(t.found))
	for _, p := range t.found {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *Package) int { return cmp.Or(a.Used.Compare(b.Used), cmp.Compare(a.Name, b.Name)) })
	for _, p := range all {
		old := t.o.MaxAge > 0 && t.o.Now.Sub(p.Used) > t.o.MaxAge
		if !old && t.r.Bytes >= need {
			break // the others were used later still
		}
		linked, err := t.linked(p)
		if err != nil {
			return err
		}
		if linked {
			t.r.Linked++
			continue
		}
		t.r.Removed = append(t.r.Removed, *p)
		t.r.Bytes += p.Bytes
	}
	t.r.Over = max(0, need-t.r.Bytes)
	return nil
}

// looks is how many files of a package are looked at for others' links: an environment has links to nearly all of them.
const looks = 64

// linked reports whether files of a package have names outside of the store, which are those of environments.
func (t *trimming) linked(p *Package) (bool, error) {
	for at, e := range p.paths {
		space, rel, _ := strings.Cut(at, "/")
		shelf := t.shelf(space, rel)
		if e.Kind != index.KindTree || shelf == "" {
			continue
		}
		tree, err := t.store.Tree(e.Digest)
		if err != nil {
			return false, err
		}
		n := 0
		for name, te := range tree.All() {
			if te.Kind != index.KindFile || te.Size == 0 || strings.HasPrefix(name, "info/") {
				continue // those are not linked
			}
			if n++; n > looks {
				break
			}
			fi, err := os.Lstat(filepath.Join(shelf, filepath.FromSlash(name)))
			if err != nil {
				continue // it is not there: nobody can have linked it from there
			}
			if more, err := t.namedElsewhere(fi, te); more || err != nil {
				return more, err
			}
		}
	}
	return false, nil
}

// namedElsewhere reports whether a shelf's file has more names than the shelves and the store give it.
func (t *trimming) namedElsewhere(fi fs.FileInfo, te index.TreeEntry) (bool, error) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok || st.Nlink < 2 {
		return false, nil
	}
	if err := t.countNames(); err != nil {
		return false, err
	}
	own := max(1, t.names[st.Ino])
	if f, err := t.store.OpenBlobSize(te.Digest, te.Size); err == nil {
		bi, err := f.Stat()
		if err := errors.Join(err, f.Close()); err != nil {
			return false, fault.New("look at", f.Name(), fault.Other, err)
		}
		if os.SameFile(fi, bi) {
			own++
		}
	}
	return uint64(st.Nlink) > own, nil
}

// countNames counts what names the shelves give to files that have several: equal files of two packages are one there.
func (t *trimming) countNames() error {
	if t.names != nil {
		return nil
	}
	t.names = make(map[uint64]uint64)
	for _, dir := range t.o.Shelves {
		err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // it has left the shelf meanwhile
			}
			if err != nil || !e.Type().IsRegular() {
				return cmp.Or(err, context.Cause(t.ctx))
			}
			fi, err := e.Info()
			if err != nil {
				return nil // as above
			}
			if st, ok := fi.Sys().(*syscall.Stat_t); ok && st.Nlink > 2 {
				t.names[st.Ino]++
			}
			return nil
		})
		if err != nil {
			return fault.New("look at the shelf", dir, fault.KindOf(err), err)
		}
	}
	return nil
}

// remove takes the chosen ones out of head, in one commit. What somebody has replaced meanwhile stays.
func (t *trimming) remove() error {
	info := index.CommitInfo{Label: "trim", UID: uint32(os.Geteuid()), PID: os.Getpid()}
	_, err := t.store.Update(t.ctx, info, func(tx *index.Tx) error {
		for _, p := range t.r.Removed {
			for at, was := range p.paths {
				now, ok, err := tx.Get(at)
				if err != nil {
					return err
				}
				if !ok || now != was {
					continue
				}
				if err := tx.Delete(at); err != nil {
					return err
				}
			}
			tx.Note("- " + p.Name + " (not used since " + p.Used.UTC().Format(time.DateOnly) + ")")
		}
		return nil
	})
	return err
}
