package transfer

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"condafs/beneath"
	"condafs/conda"
	"condafs/fault"
	"condafs/hashing"
	"condafs/index"
)

// ExportOptions say what to export where.
type ExportOptions struct {
	// Dir is made if it is not there. What it holds already stays as it is.
	Dir string
	// Names are packages (name-version-build) or file names of archives; none means all.
	Names    []string
	Spaces   Spaces
	Progress func(Progress) // may be nil; called from several goroutines
}

// ExportReport says what an export did.
type ExportReport struct {
	Exported []string // names in Dir
	Present  int      // that Dir had already
	Rejected []Note   // what could not be written, and why
	Bytes    int64
}

// Export writes packages of the newest snapshot as a plain package directory. Each
// package appears there whole, by a rename, and is hashed as it is written.
func Export(ctx context.Context, store *index.Store, o ExportOptions) (*ExportReport, error) {
	head := store.PinHead()
	defer head.Release()
	ex := &exporter{ctx: ctx, store: store, o: o}
	units, err := ex.choose(head)
	if err != nil {
		return nil, err
	}
	if err := ex.open(); err != nil {
		return nil, fault.New("export to", o.Dir, fault.Other, err)
	}
	defer ex.close()
	ex.total = int64(len(units))
	todo := make(chan unit)
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for u := range todo {
				if ctx.Err() == nil {
					ex.unit(u)
				}
			}
		})
	}
	for _, u := range units {
		todo <- u
	}
	close(todo)
	workers.Wait()
	if ctx.Err() != nil {
		return nil, fault.New("export to", o.Dir, fault.Canceled, context.Cause(ctx)).
			WithHint("run it again to go on")
	}
	if err := ex.lists(head); err != nil {
		return nil, err
	}
	if err := ex.sync(); err != nil {
		return nil, err
	}
	slices.Sort(ex.report.Exported)
	return &ex.report, nil
}

type exporter struct {
	ctx   context.Context
	store *index.Store
	o     ExportOptions
	// Whoever can write to o.Dir may be at work there; nothing is written elsewhere.
	root  *os.Root
	dir   *os.File // of root
	total int64

	mu     sync.Mutex // guards what follows
	report ExportReport
	done   int64
}

// open makes the directory to write to.
func (ex *exporter) open() (err error) {
	if err := os.MkdirAll(ex.o.Dir, 0o755); err != nil {
		return err
	}
	if ex.root, err = os.OpenRoot(ex.o.Dir); err != nil {
		return err
	}
	if ex.dir, err = ex.root.Open("."); err != nil {
		return errors.Join(err, ex.root.Close())
	}
	return nil
}

func (ex *exporter) close() {
	_ = ex.dir.Close() // both of a directory: nothing is written through them
	_ = ex.root.Close()
}

// temporary makes up a name in the directory.
func temporary() string { return ".condafs-export-" + rand.Text() }

// unit is a package or an archive to be written.
type unit struct {
	name string
	index.Entry
}

// choose lists what to write: the user's own things hide shared ones of the same name.
func (ex *exporter) choose(head *index.Snapshot) ([]unit, error) {
	const op = "export"
	seen := map[string]bool{}
	found := map[string]bool{}
	var units []unit
	for _, space := range ex.o.Spaces.both() {
		dir := path.Join(space, cache)
		if _, ok, err := head.Get(dir); err != nil {
			return nil, err
		} else if !ok {
			continue
		}
		l, err := head.List(dir)
		if err != nil {
			return nil, err
		}
		for _, e := range l {
			stem, archive := conda.CutArchiveExt(e.Name)
			if seen[e.Name] || (e.Kind != index.KindTree && (e.Kind != index.KindFile || !archive)) {
				continue
			}
			if len(ex.o.Names) > 0 && !slices.Contains(ex.o.Names, e.Name) && !slices.Contains(ex.o.Names, stem) {
				continue
			}
			seen[e.Name], found[e.Name], found[stem] = true, true, true
			units = append(units, unit{e.Name, e.Entry})
		}
	}
	for _, n := range ex.o.Names {
		if !found[n] {
			return nil, fault.New(op, n, fault.NotFound, errors.New("no such package in the newest snapshot")).WithHint("`condafs ls` lists what is there")
		}
	}
	slices.SortFunc(units, func(a, b unit) int { return strings.Compare(a.name, b.name) })
	return units, nil
}

func (ex *exporter) unit(u unit) {
	present, err := ex.write(u)
	ex.mu.Lock()
	ex.done++
	p := Progress{Phase: "exporting", Done: ex.done, Total: ex.total, Unit: "packages", Item: u.name}
	switch {
	case err != nil && ex.ctx.Err() != nil:
	case err != nil:
		ex.report.Rejected = append(ex.report.Rejected, Note{u.name, err.Error()})
	case present:
		ex.report.Present++
	default:
		ex.report.Exported = append(ex.report.Exported, u.name)
		ex.report.Bytes += u.Size
	}
	ex.mu.Unlock()
	if ex.o.Progress != nil {
		ex.o.Progress(p)
	}
}

// write makes one unit below a temporary name and then gives it its own.
func (ex *exporter) write(u unit) (present bool, err error) {
	target := filepath.Join(ex.o.Dir, u.name)
	var tree *index.Tree
	if u.Kind == index.KindTree {
		if tree, err = ex.store.Tree(u.Digest); err != nil {
			return false, err
		}
	}
	switch same, err := ex.looksLike(u, tree); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return false, err
	case same:
		return true, nil
	default:
		return false, fault.New("write", target, fault.Exists, errors.New("something else is there")).WithHint("remove it, or export to another directory")
	}
	name := temporary()
	if err := ex.root.Mkdir(name, 0o700); err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, beneath.RemoveAll(int(ex.dir.Fd()), name)) }()
	tmp, err := newPlace(ex.root, name)
	if err != nil {
		return false, err
	}
	defer tmp.close()
	const at = "x"
	if tree != nil {
		err = ex.tree(tmp, at, tree)
	} else {
		err = ex.file(tmp, at, u.Digest, u.Mode, u.Mtime)
	}
	if err != nil {
		return false, err
	}
	// A directory that came up meanwhile with something in it is not replaced.
	return false, unix.Renameat2(int(tmp.dir.Fd()), at, int(ex.dir.Fd()), u.name, unix.RENAME_NOREPLACE)
}

// looksLike reports whether what is there under a unit's name is the unit, as far as sizes and times tell.
func (ex *exporter) looksLike(u unit, tree *index.Tree) (bool, error) {
	fi, err := ex.root.Lstat(u.name)
	if err != nil {
		return false, err
	}
	if tree == nil {
		return fi.Mode().IsRegular() && fi.Size() == u.Size && fi.ModTime().UnixNano() == u.Mtime, nil
	}
	if !fi.IsDir() {
		return false, nil
	}
	s, err := openSource(ex.root, u.name, maxFiles)
	if err != nil {
		return false, err
	}
	return s.matches(tree), s.Close()
}

// place is a directory that something is written into.
type place struct {
	root *os.Root
	dir  *os.File
}

func newPlace(parent *os.Root, name string) (*place, error) {
	root, err := parent.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	dir, err := root.Open(".")
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return &place{root, dir}, nil
}

func (p *place) close() {
	_ = p.dir.Close() // both of a directory: nothing is written through them
	_ = p.root.Close()
}

// tree writes a package. The tree's order is parents first; directories get their
// modes and times last, from below, so that neither stands in the way.
func (ex *exporter) tree(to *place, at string, t *index.Tree) error {
	type dir struct {
		path string
		e    index.TreeEntry
	}
	dirs := []dir{{at, t.At(0)}}
	if err := to.root.Mkdir(at, 0o755); err != nil {
		return err
	}
	for p, e := range t.All() {
		if p == "" {
			continue
		}
		if err := ex.ctx.Err(); err != nil {
			return err
		}
		name := at + "/" + p
		var err error
		switch e.Kind {
		case index.KindDir:
			err = to.root.Mkdir(name, 0o755)
			dirs = append(dirs, dir{name, e})
		case index.KindSymlink:
			if err = to.root.Symlink(e.Link, name); err == nil {
				err = to.setTime(name, e.Mtime)
			}
		default:
			err = ex.file(to, name, e.Digest, e.Mode, e.Mtime)
		}
		if err != nil {
			return err
		}
	}
	slices.Reverse(dirs)
	for _, d := range dirs {
		if err := to.root.Chmod(d.path, fs.FileMode(d.e.Mode&0o777)); err != nil {
			return err
		}
		if err := to.setTime(d.path, d.e.Mtime); err != nil {
			return err
		}
	}
	return nil
}

// file writes one blob and checks that it is what its name says.
func (ex *exporter) file(to *place, name string, d hashing.Digest, mode uint32, mtime int64) error {
	src, err := ex.store.OpenBlob(d)
	if err != nil {
		return err
	}
	defer src.Close() //nolint:errcheck // read only
	dst, err := to.root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	sums, err := copyHashed(dst, src)
	if err == nil && sums.Blake3 != d {
		err = fault.New("export", name, fault.Corrupt, fmt.Errorf("blob %s is damaged", d)).WithHint("see `condafs verify --full`")
	}
	if err == nil {
		err = dst.Chmod(fs.FileMode(mode & 0o777))
	}
	if err := errors.Join(err, dst.Close()); err != nil {
		return err
	}
	return to.setTime(name, mtime)
}

// copyHashed shares extents where it can, and hashes what has arrived.
func copyHashed(dst, src *os.File) (hashing.Sums, error) {
	if unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) == nil {
		return hashing.File(dst, 0)
	}
	h := hashing.New(0)
	_, err := io.Copy(io.MultiWriter(dst, h), src)
	return h.Sums(), err
}

// setTime sets the modification time of a name, and not of what it links to.
func (p *place) setTime(name string, mtime int64) error {
	dir, base, err := beneath.Parent(int(p.dir.Fd()), name)
	if err == nil {
		ts := unix.NsecToTimespec(mtime)
		err = unix.UtimesNanoAt(dir, base, []unix.Timespec{unix.NsecToTimespec(time.Now().UnixNano()), ts}, unix.AT_SYMLINK_NOFOLLOW)
		_ = unix.Close(dir) // of O_PATH, it has nothing to tell
	}
	if err != nil {
		return &fs.PathError{Op: "utimensat", Path: name, Err: err}
	}
	return nil
}

// lists writes the addresses that packages came from. Without a urls.txt conda does
// not take the directory for a package cache.
func (ex *exporter) lists(head *index.Snapshot) error {
	for _, name := range urlLists {
		e, ok, err := find(head.Get, ex.o.Spaces.both(), name)
		if err != nil {
			return err
		}
		var ours []byte
		if ok {
			f, err := ex.store.OpenBlob(e.Digest)
			if err != nil {
				return err
			}
			ours, err = io.ReadAll(f)
			if err := errors.Join(err, f.Close()); err != nil {
				return err
			}
		} else if name != urlLists[0] {
			continue
		}
		if err := ex.mergeInto(name, ours); err != nil {
			return fault.New("export to", ex.o.Dir, fault.Other, err)
		}
	}
	return nil
}

// mergeInto adds lines to a list, which appears whole.
func (ex *exporter) mergeInto(name string, ours []byte) error {
	theirs, err := readList(ex.root, name)
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return err
	}
	union := conda.UnionURLs(nil, theirs, ours)
	if !missing && bytes.Equal(union, theirs) {
		return nil
	}
	tmp := temporary()
	f, err := ex.root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(union)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, ex.root.Remove(tmp))
	}
	return ex.root.Rename(tmp, name)
}

// sync makes the export survive a power failure.
func (ex *exporter) sync() error {
	if err := unix.Syncfs(int(ex.dir.Fd())); err != nil {
		return fault.New("export to", ex.o.Dir, fault.IO, err)
	}
	return nil
}
