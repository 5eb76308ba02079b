package transfer

import (
	"bytes"
	"context"
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
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, fault.New("export to", o.Dir, fault.Other, err)
	}
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
	total int64

	mu     sync.Mutex // guards what follows
	report ExportReport
	done   int64
}

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
	switch same, err := looksLike(target, u, tree); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return false, err
	case same:
		return true, nil
	default:
		return false, fault.New("write", target, fault.Exists, errors.New("something else is there")).WithHint("remove it, or export to another directory")
	}
	tmp, err := os.MkdirTemp(ex.o.Dir, ".condafs-export-")
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, removeAll(tmp)) }()
	at := filepath.Join(tmp, "x")
	if tree != nil {
		err = ex.tree(at, tree)
	} else {
		err = ex.file(at, u.Digest, u.Mode, u.Mtime)
	}
	if err != nil {
		return false, err
	}
	// A directory that came up meanwhile with something in it is not replaced.
	return false, unix.Renameat2(unix.AT_FDCWD, at, unix.AT_FDCWD, target, unix.RENAME_NOREPLACE)
}

// removeAll also removes directories that the package's modes make read-only.
func removeAll(dir string) error {
	if err := os.RemoveAll(dir); err == nil {
		return nil
	}
	_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			return os.Chmod(p, 0o700)
		}
		return err
	})
	return os.RemoveAll(dir)
}

// looksLike reports whether what is at target is the unit, as far as sizes and times tell.
func looksLike(target string, u unit, tree *index.Tree) (bool, error) {
	fi, err := os.Lstat(target)
	if err != nil {
		return false, err
	}
	if tree == nil {
		return fi.Mode().IsRegular() && fi.Size() == u.Size && fi.ModTime().UnixNano() == u.Mtime, nil
	}
	if !fi.IsDir() {
		return false, nil
	}
	s, err := openSource(target, maxFiles)
	if err != nil {
		return false, err
	}
	return s.matches(tree), s.Close()
}

// tree writes a package. The tree's order is parents first; directories get their
// modes and times last, from below, so that neither stands in the way.
func (ex *exporter) tree(at string, t *index.Tree) error {
	type dir struct {
		path string
		e    *index.TreeEntry
	}
	dirs := []dir{{at, t.At(0)}}
	if err := os.Mkdir(at, 0o755); err != nil {
		return err
	}
	for p, e := range t.All() {
		if p == "" {
			continue
		}
		if err := ex.ctx.Err(); err != nil {
			return err
		}
		name := filepath.Join(at, p)
		var err error
		switch e.Kind {
		case index.KindDir:
			err = os.Mkdir(name, 0o755)
			dirs = append(dirs, dir{name, e})
		case index.KindSymlink:
			if err = os.Symlink(e.Link, name); err == nil {
				err = setTime(name, e.Mtime)
			}
		default:
			err = ex.file(name, e.Digest, e.Mode, e.Mtime)
		}
		if err != nil {
			return err
		}
	}
	slices.Reverse(dirs)
	for _, d := range dirs {
		if err := os.Chmod(d.path, fs.FileMode(d.e.Mode)); err != nil {
			return err
		}
		if err := setTime(d.path, d.e.Mtime); err != nil {
			return err
		}
	}
	return nil
}

// file writes one blob and checks that it is what its name says.
func (ex *exporter) file(name string, d hashing.Digest, mode uint32, mtime int64) error {
	src, err := ex.store.OpenBlob(d)
	if err != nil {
		return err
	}
	defer src.Close() //nolint:errcheck // read only
	dst, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	sums, err := copyHashed(dst, src)
	if err == nil && sums.Blake3 != d {
		err = fault.New("export", name, fault.Corrupt, fmt.Errorf("blob %s is damaged", d)).WithHint("see `condafs verify --full`")
	}
	if err == nil {
		err = dst.Chmod(fs.FileMode(mode))
	}
	if err := errors.Join(err, dst.Close()); err != nil {
		return err
	}
	return setTime(name, mtime)
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
func setTime(name string, mtime int64) error {
	ts := unix.NsecToTimespec(mtime)
	err := unix.UtimesNanoAt(unix.AT_FDCWD, name, []unix.Timespec{unix.NsecToTimespec(time.Now().UnixNano()), ts}, unix.AT_SYMLINK_NOFOLLOW)
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
		if err := mergeInto(filepath.Join(ex.o.Dir, name), ours); err != nil {
			return fault.New("export to", ex.o.Dir, fault.Other, err)
		}
	}
	return nil
}

// mergeInto adds lines to a list, which appears whole.
func mergeInto(name string, ours []byte) error {
	theirs, err := readList(name)
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return err
	}
	union := conda.UnionURLs(nil, theirs, ours)
	if !missing && bytes.Equal(union, theirs) {
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".condafs-export-")
	if err != nil {
		return err
	}
	_, err = f.Write(union)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return os.Rename(f.Name(), name)
}

// sync makes the export survive a power failure.
func (ex *exporter) sync() error {
	d, err := os.Open(ex.o.Dir)
	if err != nil {
		return fault.New("export to", ex.o.Dir, fault.Other, err)
	}
	if err := errors.Join(unix.Syncfs(int(d.Fd())), d.Close()); err != nil {
		return fault.New("export to", ex.o.Dir, fault.IO, err)
	}
	return nil
}
