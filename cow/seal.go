package cow

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"condafs/beneath"
	"condafs/conda"
	"condafs/fault"
	"condafs/hashing"
	"condafs/index"
	"condafs/internal/failpoint"

	"golang.org/x/sys/unix"
)

// item is one path that has passed its checks. Its content is in the store's
// objects, and it is to be published or has been.
type item struct {
	unit conda.Unit
	path string
	// public is what others are to see, without its tree once the item is settled.
	public form
	// base is what the session started from, for the merge.
	base *index.Entry
	// settled items have been merged: the head has them, or what was there first.
	settled  bool
	manifest string // its redo manifest, if it was sealed
	// before is what the session has published at the path earlier: what it started from, should this one be withdrawn.
	before *item
}

// published returns what the session has published where it is.
func (it *item) published() *item {
	if it == nil || it.settled {
		return it
	}
	return it.before
}

// withdraw takes an item back that is not published. s.mu is held.
func (s *Session) withdraw(it *item) {
	if it.before != nil {
		s.items[it.path] = it.before
	} else {
		delete(s.items, it.path)
	}
}

// ownManifest reports whether nobody else relies on the item's manifest.
func (it *item) ownManifest() bool {
	return it.manifest != "" && (it.before == nil || it.before.manifest != it.manifest)
}

// sealAll seals what is in the overlay, and takes note of the rest.
func (s *Session) sealAll(parts []*part) error {
	failpoint.Hit(failpoint.UnitChecked, s.e.store.Dir())
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
	s.show(p.shown)
	s.keep(p.public)
	if it.manifest, err = s.writeManifest(p, it); err != nil {
		return err
	}
	m := &mover{s: s, p: p, it: it}
	if err := s.view.Seal(p.path, p.gen, p.shown.entry, m); err != nil {
		return s.unsealed(m, err)
	}
	s.mu.Lock()
	delete(s.stalled, p.path)
	it.before = s.items[p.path].published()
	s.items[p.path] = it
	s.mu.Unlock()
	return failpoint.Err(failpoint.SealDone, s.e.store.Dir())
}

// unsealed takes note of a part that could not be sealed.
func (s *Session) unsealed(m *mover, err error) error {
	s.mu.Lock()
	before := s.stalled[m.p.path] != nil
	s.mu.Unlock()
	if before && fault.Is(err, fault.Busy) {
		// It was sealed by half, and its client has touched it since. So it is a
		// matter of the overlay again.
		for rel := range m.p.overlay {
			m.moved = append(m.moved, rel)
		}
		before = false
		m.restore()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if before || len(m.moved) > 0 || m.shown {
		s.stalled[m.p.path] = m.p
		return err
	}
	delete(s.stalled, m.p.path)
	return errors.Join(err, m.forget())
}

// mover moves the files of a part, all or none. The view is locked while its methods are called.
type mover struct {
	s     *Session
	p     *part
	it    *item
	moved []string // by their paths below the part's
	shown bool     // the view shows the part from below, though its manifest does not say so
}

// begin lets the manifest count.
func (m *mover) begin() error {
	if err := os.Rename(m.it.manifest+tmpSuffix, m.it.manifest); err != nil {
		return fault.New("write manifest", m.p.path, fault.Other, err)
	}
	return failpoint.Err(failpoint.ManifestRenamed, m.s.e.store.Dir())
}

// done notes, before the client can do anything, that there is nothing left to redo.
func (m *mover) done() error {
	err := sealManifest(m.it)
	m.shown = err != nil
	failpoint.Hit(failpoint.SealMarked, m.s.e.store.Dir())
	return err
}

// forget takes the manifest back: nothing has moved.
func (m *mover) forget() error {
	if err := failpoint.Err(failpoint.SealForget, m.s.e.store.Dir()); err != nil {
		return err
	}
	return errors.Join(removeManifest(m.it.manifest+tmpSuffix), removeManifest(m.it.manifest))
}

// move takes one file, under the view's lock. When that fails, as on a full
// disk, what was moved before goes back, so that clients find it unchanged.
func (m *mover) move(rel string, dirfd int, name string) error {
	d, ok := m.p.overlay[rel]
	if !ok {
		m.restore()
		return fault.New("seal", m.p.path+"/"+rel, fault.Busy, errors.New("it was not there when the unit was checked"))
	}
	err := m.s.adopt(dirfd, name, d)
	if err == nil {
		m.moved = append(m.moved, rel)
		err = failpoint.Err(failpoint.SealMoved, m.s.e.store.Dir())
	}
	if err != nil {
		m.restore()
	}
	return err
}

// restore brings files back from the store; moved keeps what it cannot.
func (m *mover) restore() {
	m.moved = slices.DeleteFunc(m.moved, func(rel string) bool {
		err := failpoint.Err(failpoint.SealRestore, m.s.e.store.Dir())
		if err == nil {
			err = m.bringBack(rel)
		}
		if err != nil {
			m.s.e.log.Warn("a file that was being sealed cannot be used until there is room", "session", m.s.id, "path", m.p.path+"/"+rel, "error", err)
		}
		return err == nil
	})
	if len(m.moved) == 0 {
		// Already now, before the client goes on. Should it fail, unsealed tells so.
		m.forget() //nolint:errcheck // see above
	}
}

func (m *mover) bringBack(rel string) error {
	// The client may be at work there, so no link of its is followed.
	dirfd, name, err := beneath.Parent(m.s.view.rootfd, join(m.p.path, rel))
	if err != nil {
		return err
	}
	defer unix.Close(dirfd) //nolint:errcheck // of O_PATH, it has nothing to tell
	var st unix.Stat_t
	if fstatat(dirfd, name, &st) == nil {
		return nil
	}
	mode, mtime := m.p.shown.entry.Mode, m.p.shown.entry.Mtime
	if t := m.p.shown.tree; t != nil {
		i, ok := t.Find(rel)
		if !ok {
			return fault.New("restore", rel, fault.NotFound, nil)
		}
		mode, mtime = t.At(i).Mode, t.At(i).Mtime
	}
	// Beside the overlay first: half a file would pass for the whole one.
	tmp := filepath.Join(m.s.e.store.StagingDir(), newID())
	err = m.s.exportOne(index.KindFile, m.p.overlay[rel], "", mode, tmp)
	if err == nil {
		err = errors.Join(os.Chmod(tmp, fs.FileMode(mode&0o777)), os.Chtimes(tmp, time.Time{}, time.Unix(0, mtime)))
	}
	if err == nil {
		err = unix.Renameat(unix.AT_FDCWD, tmp, dirfd, name)
	}
	if err != nil {
		return errors.Join(err, beneath.RemoveTree(tmp))
	}
	return nil
}

// adopt moves one file. An earlier try may have moved it already.
func (s *Session) adopt(dirfd int, name string, d hashing.Digest) error {
	_, err := s.e.store.AdoptFile(s.hold, dirfd, name, d)
	if errors.Is(err, fs.ErrNotExist) && s.e.store.HasBlob(d) {
		return nil
	}
	return err
}

// show is keep for what the view is to show: it lets the view find the tree of a
// package that the store doesn't have, or not yet.
func (s *Session) show(f form) {
	s.keep(f)
	if f.tree == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trees[f.entry.Digest] = f.tree
}

// keep protects content from garbage collection.
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
	case f.entry.Kind == index.KindFile:
		s.hold.Blob(f.entry.Digest)
	}
}

// sealedSource is what the session's view is based on: its snapshot, and the trees of
// what was sealed, which the store has only in their public form, or not yet.
type sealedSource struct {
	source
	s *Session
}

func (l sealedSource) Tree(d hashing.Digest) (*index.Tree, error) {
	l.s.mu.Lock()
	t := l.s.trees[d]
	l.s.mu.Unlock()
	if t != nil {
		return t, nil
	}
	return l.source.Tree(d)
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
	s.withdraw(it)
	if !it.ownManifest() {
		return nil
	}
	return removeManifest(it.manifest)
}

// promote takes note of something that the view shows from below: to be
// published with more trust than before, or at another path, in a directory that
// was renamed.
func (s *Session) promote(p *part) error {
	base, err := s.baseOf(p.path)
	if err != nil {
		return err
	}
	if sameContent(base, &p.public.entry) && base.Trust >= p.public.entry.Trust {
		return nil
	}
	s.keep(p.public)
	s.mu.Lock()
	defer s.mu.Unlock()
	it := &item{unit: p.unit, path: p.path, public: p.public, base: base}
	if old := s.items[p.path]; old != nil {
		it.manifest, it.before = old.manifest, old.published()
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
