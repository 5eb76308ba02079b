package shelf

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"condafs/fault"
	"condafs/hashing"
	"condafs/index"
	"condafs/internal/failpoint"
)

// dirMode is that of all directories on the shelf: nobody is to make anything there.
const dirMode = 0o555

// compare brings the whole shelf up to date with the head.
func (s *Shelf) compare(head *index.Snapshot) error {
	list, err := head.List(s.o.From)
	if err != nil {
		return err
	}
	wanted := make(map[string]hashing.Digest, len(list))
	for i := range list {
		if e := &list[i]; e.Kind == index.KindTree && s.o.Wanted(&e.Entry) {
			wanted[e.Name] = e.Digest
		}
	}
	s.mu.Lock()
	var gone []string
	for _, name := range slices.Sorted(maps.Keys(s.known)) {
		if k := s.known[name]; k.leaving == 0 && wanted[name] != k.tree {
			gone = append(gone, name)
		}
	}
	s.mu.Unlock()
	var errs []error
	for _, name := range gone {
		errs = append(errs, s.dismiss(name))
	}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		if err := s.ctx.Err(); err != nil {
			return errors.Join(append(errs, err)...)
		}
		if err := s.publish(name, wanted[name]); err != nil {
			errs = append(errs, err)
			if fault.Is(err, fault.Full) {
				break
			}
		}
	}
	return errors.Join(errs...)
}

// take looks at single packages of the head.
func (s *Shelf) take(head *index.Snapshot, names []string) error {
	var errs []error
	for _, name := range names {
		e, ok, err := head.Get(s.o.From + "/" + name)
		if err == nil && ok && e.Kind == index.KindTree && s.o.Wanted(&e) {
			err = s.publish(name, e.Digest)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// publish puts a package of the head on the shelf, unless something of its name is there.
func (s *Shelf) publish(name string, d hashing.Digest) error {
	s.work.Lock()
	defer s.work.Unlock()
	s.mu.Lock()
	there := s.known[name] != nil
	s.mu.Unlock()
	if there || name == urlsName {
		return nil
	}
	t, err := s.store.Tree(d)
	if err != nil {
		return err
	}
	dir := s.fresh(newName)
	err = s.write(t, dir)
	if err == nil {
		failpoint.Hit(failpoint.ShelfMade, s.store.Dir())
		err = s.note(name, d, false)
	}
	if err == nil {
		failpoint.Hit(failpoint.ShelfNoted, s.store.Dir())
		err = writable(s.Path(), func() error { return os.Rename(dir, filepath.Join(s.Path(), name)) })
	}
	if err == nil {
		failpoint.Hit(failpoint.ShelfShown, s.store.Dir())
		err = os.Chmod(filepath.Join(s.Path(), name), dirMode)
	}
	if err != nil {
		return fault.New("put on shelf", name, fault.Other, errors.Join(err, removeAll(dir)))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gen++
	s.known[name] = &shelved{tree: d, since: s.gen}
	return nil
}

// leavingMark is before the digest in the note of a package that leaves.
const leavingMark = "leaving "

// note writes down which tree is, or is about to be, on the shelf under a name, and whether it leaves.
func (s *Shelf) note(name string, d hashing.Digest, leaving bool) error {
	at := filepath.Join(s.dir, treesName, name)
	if err := os.Remove(at); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	text := d.String()
	if leaving {
		text = leavingMark + text
	}
	return os.Symlink(text, at)
}

// write makes a package at dir, which is left writable so that it can be renamed.
func (s *Shelf) write(t *index.Tree, dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	var dirs []string
	for path, e := range t.All() {
		at := filepath.Join(dir, filepath.FromSlash(path))
		var err error
		switch e.Kind {
		case index.KindDir:
			err = os.Mkdir(at, 0o755)
			dirs = append(dirs, at)
		case index.KindSymlink:
			err = os.Symlink(e.Link, at)
		case index.KindFile:
			_, err = s.store.PlaceBlob(e.Digest, e.Size, at, e.Mode, e.Mtime, s.sharing)
		}
		if err != nil {
			return err
		}
	}
	for _, at := range slices.Backward(dirs) {
		if err := os.Chmod(at, dirMode); err != nil {
			return err
		}
	}
	root := time.Unix(0, t.At(0).Mtime)
	return os.Chtimes(dir, root, root)
}
