package cow

import (
	"errors"
	"io/fs"
	"os"

	"condafs/conda"
	"condafs/fault"
	"condafs/hashing"
	"condafs/index"
)

// item is one path that has passed its checks. Its content is in the store's
// objects, and it is to be published or has been.
type item struct {
	unit conda.Unit
	path string
	// public is what others are to see.
	public form
	// base is what the session started from, for the merge.
	base *index.Entry
	// settled items have been merged: the head has them, or what was there first.
	settled  bool
	manifest string // its redo manifest, if it was sealed
}

// sealAll seals what is in the overlay, and takes note of what is below it and
// has become more trustworthy.
func (s *Session) sealAll(parts []*part) error {
	for _, p := range parts {
		var err error
		if p.overlay != nil {
			err = s.seal(p)
		} else {
			err = s.promote(p)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// seal moves a part's files into the store's objects and makes the view show
// them from there. Before, it writes down what it is about to do: a daemon that
// dies half-way finds the rest of the files in the overlay, and the manifest.
func (s *Session) seal(p *part) error {
	base, err := s.baseOf(p.path)
	if err != nil {
		return err
	}
	it := &item{unit: p.unit, path: p.path, public: p.public, base: base}
	s.keep(p.shown)
	s.keep(p.public)
	if it.manifest, err = s.writeManifest(p, it); err != nil {
		return err
	}
	if err := s.e.reach(stepManifest); err != nil {
		return err
	}
	moved := false
	err = s.view.Seal(p.path, p.gen, p.shown.entry, p.shown.tree, func(rel, native string) error {
		d, ok := p.overlay[rel]
		if !ok {
			return fault.New("seal", p.path+"/"+rel, fault.Busy, errors.New("it was not there when the unit was checked"))
		}
		if err := s.adopt(native, d); err != nil {
			return err
		}
		moved = true
		return s.e.reach(stepMoved)
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
		delete(s.stalled, p.path)
		s.items[p.path] = it
		return s.e.reach(stepSealed)
	case moved || s.stalled[p.path] != nil:
		s.stalled[p.path] = p
		return err
	}
	return errors.Join(err, removeManifest(it.manifest))
}

// adopt moves one file. An earlier try may have moved it already.
func (s *Session) adopt(native string, d hashing.Digest) error {
	_, err := s.e.store.AdoptFile(s.hold, native, d)
	if errors.Is(err, fs.ErrNotExist) && s.e.store.HasBlob(d) {
		return nil
	}
	return err
}

// keep protects content from garbage collection, and lets the view find the
// tree of a package that the store doesn't have yet.
func (s *Session) keep(f form) {
	switch {
	case f.tree != nil:
		digests := make([]hashing.Digest, 0, f.tree.Len())
		for _, e := range f.tree.All() {
			if e.Kind == index.KindFile {
				digests = append(digests, e.Digest)
			}
		}
		s.hold.Blob(digests...)
		s.hold.Tree(f.entry.Digest)
		s.mu.Lock()
		s.trees[f.entry.Digest] = f.tree
		s.mu.Unlock()
	case f.entry.Kind == index.KindFile:
		s.hold.Blob(f.entry.Digest)
	}
}

// sealedSource is what the session's view is based on: its snapshot, and the trees of
// what was sealed, which the store has only in their public form, or not yet.
type sealedSource struct {
	pinned
	s *Session
}

func (l sealedSource) Tree(d hashing.Digest) (*index.Tree, error) {
	l.s.mu.Lock()
	t := l.s.trees[d]
	l.s.mu.Unlock()
	if t != nil {
		return t, nil
	}
	return l.pinned.Tree(d)
}

// resume seals the rest of what an error had stopped half-way.
func (s *Session) resume(root string) error {
	s.mu.Lock()
	var parts []*part
	for _, p := range s.stalled {
		if r, ok := packageRoot(p.unit); root == "" || ok && r == root {
			parts = append(parts, p)
		}
	}
	s.mu.Unlock()
	for _, p := range parts {
		if err := s.seal(p); err != nil {
			return err
		}
	}
	return nil
}

// forgetSealed notes that the client has removed what was sealed at a path and
// is not published yet.
func (s *Session) forgetSealed(path string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	it := s.items[path]
	if it == nil || it.settled {
		return nil
	}
	delete(s.items, path)
	return removeManifest(it.manifest)
}

// promote takes note of something that the view shows from below and that is
// to be published with more trust than before.
func (s *Session) promote(p *part) error {
	base, err := s.baseOf(p.path)
	if err != nil {
		return err
	}
	if base == nil || base.Trust >= p.public.entry.Trust {
		return nil
	}
	s.keep(p.public)
	s.mu.Lock()
	defer s.mu.Unlock()
	it := &item{unit: p.unit, path: p.path, public: p.public, base: base}
	if old := s.items[p.path]; old != nil {
		it.manifest = old.manifest
		if !old.settled {
			it.base = old.base
		}
	}
	s.items[p.path] = it
	return nil
}

// baseOf returns what the session started from at a path: what it has published
// there itself since, or what its snapshot shows. nil means nothing.
func (s *Session) baseOf(path string) (*index.Entry, error) {
	s.mu.Lock()
	it, removed := s.items[path], s.removed[path]
	s.mu.Unlock()
	switch {
	case it != nil && !it.settled:
		return it.base, nil
	case it != nil:
		e := it.public.entry
		return &e, nil
	case removed:
		return nil, nil
	}
	return entryIn(s.snap, s.uid, path)
}

// getter is a snapshot or a transaction.
type getter interface {
	Get(path string) (index.Entry, bool, error)
	List(dir string) ([]index.DirEntry, error)
}

// entryIn returns what a user sees at a path: that in his own space, or the
// shared one. nil means nothing.
func entryIn(g getter, uid uint32, path string) (*index.Entry, error) {
	for _, space := range spaces(uid) {
		e, ok, err := g.Get(space + "/" + path)
		if err != nil {
			return nil, err
		}
		if ok {
			return &e, nil
		}
	}
	return nil, nil
}

func removeManifest(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.New("remove manifest", name, fault.Other, err)
	}
	return nil
}
