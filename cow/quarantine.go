package cow

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"condafs/beneath"
	"condafs/fault"
	"condafs/hashing"
	"condafs/index"
	"condafs/internal/failpoint"

	"golang.org/x/sys/unix"
)

// quarantine moves what the overlay holds at a path into quarantine, with why.
// The session has ended: its view takes no writes any more.
func (s *Session) quarantine(p, why string) error {
	dirfd, name, err := beneath.Parent(s.view.rootfd, p)
	var st unix.Stat_t
	if err == nil {
		defer unix.Close(dirfd) //nolint:errcheck // of O_PATH, it has nothing to tell
		err = fstatat(dirfd, name, &st)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil // nothing of it is the session's
	}
	if err != nil {
		return fault.New("put into quarantine", p, fault.Other, err)
	}
	return s.putAside(p, why, s.overlaySize(p), func(to string) error {
		return unix.Renameat(dirfd, name, unix.AT_FDCWD, to)
	})
}

// quarantineItem copies a sealed item into quarantine: its content is in the
// store, where nobody may write to it.
func (s *Session) quarantineItem(it *item, why string) error {
	return s.putAside(it.path, why, it.public.entry.Size, func(to string) error { return s.export(it.public, to) })
}

// putAside records something in quarantine and lets fill bring its content there, in
// this order: content without a record would never be found. When the daemon dies in
// between, the next one removes the record, see dropEmptyQuarantine.
func (s *Session) putAside(p, why string, bytes int64, fill func(to string) error) error {
	id := newID()
	to := filepath.Join(s.e.store.QuarantineDir(id), filepath.FromSlash(p))
	err := s.e.store.AddQuarantine(index.QuarantineRecord{
		ID: id, Time: s.e.o.Now(), Path: p, Reason: why, Session: s.id, UID: s.uid, Bytes: bytes,
	})
	failpoint.Hit(failpoint.QuarantineRecorded, s.e.store.Dir())
	if err != nil {
		return fault.New("put into quarantine", p, fault.Other, err)
	}
	err = os.MkdirAll(path.Dir(to), 0o700)
	if err == nil {
		err = fill(to)
	}
	failpoint.Hit(failpoint.QuarantineDone, s.e.store.Dir())
	if err != nil {
		return errors.Join(fault.New("put into quarantine", p, fault.Other, err), s.e.store.RemoveQuarantine(id))
	}
	s.e.counts.quarantine(bytes)
	if err := s.view.account.trim(); err != nil {
		s.e.log.Warn("what a user has in quarantine could not be bounded", "uid", s.uid, "error", err)
	}
	return nil
}

// dropEmptyQuarantine removes the records of things that were never brought into
// quarantine, or whose content a power failure has taken.
func (e *Engine) dropEmptyQuarantine() error {
	records, err := e.store.Quarantined()
	if err != nil {
		return err
	}
	for _, r := range records {
		empty, err := holdsNothing(e.store.QuarantineDir(r.ID))
		if err != nil {
			return fault.New("recover quarantine", r.ID, fault.Other, err)
		}
		if !empty {
			continue
		}
		e.log.Warn("nothing is left of what was put into quarantine", "path", r.Path, "why", r.Reason)
		if err := e.store.RemoveQuarantine(r.ID); err != nil {
			return err
		}
	}
	return nil
}

// holdsNothing reports whether there is nothing but directories in a directory, or none.
func holdsNothing(dir string) (empty bool, err error) {
	empty = true
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			err = fs.SkipAll
			empty = false
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return empty, err
}

// export writes what the store holds as plain files.
func (s *Session) export(f form, to string) error {
	if f.tree == nil {
		return s.exportOne(f.entry.Kind, f.entry.Digest, f.entry.Link, f.entry.Mode, to)
	}
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	for rel, e := range f.tree.All() {
		if err := s.exportOne(e.Kind, e.Digest, e.Link, e.Mode, filepath.Join(to, filepath.FromSlash(rel))); err != nil {
			return err
		}
	}
	return nil
}

func (s *Session) exportOne(kind index.Kind, d hashing.Digest, link string, mode uint32, to string) error {
	switch kind {
	case index.KindDir:
		return os.Mkdir(to, 0o755)
	case index.KindSymlink:
		return os.Symlink(link, to)
	}
	src, err := s.e.store.OpenBlob(d)
	if err != nil {
		return err
	}
	defer src.Close() //nolint:errcheck // read only
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fs.FileMode(mode&0o777|0o600))
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close())
}
