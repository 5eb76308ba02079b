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
	return s.putAside(p, why, s.overlaySize(p), func(to string) (undo func() error, err error) {
		if err := unix.Renameat(dirfd, name, unix.AT_FDCWD, to); err != nil {
			return nil, err
		}
		return func() error { return unix.Renameat(unix.AT_FDCWD, to, dirfd, name) }, nil
	})
}

// quarantineItem copies a sealed item into quarantine: its content is in the
// store, where nobody may write to it.
func (s *Session) quarantineItem(it *item, why string) error {
	return s.putAside(it.path, why, it.public.entry.Size, func(to string) (undo func() error, err error) {
		undo = func() error { return beneath.RemoveTree(to) }
		if err := s.export(it.public, to); err != nil {
			return nil, errors.Join(err, undo())
		}
		return undo, nil
	})
}

// putAside makes a place in quarantine, lets fill bring the content there, and
// records it. Content without a record would never be found, so it goes back
// if that fails.
func (s *Session) putAside(p, why string, bytes int64, fill func(to string) (undo func() error, err error)) error {
	id := newID()
	dir := s.e.store.QuarantineDir(id)
	to := filepath.Join(dir, filepath.FromSlash(p))
	fail := func(err error) error {
		return errors.Join(fault.New("put into quarantine", p, fault.Other, err), beneath.RemoveTree(dir))
	}
	if err := os.MkdirAll(path.Dir(to), 0o700); err != nil {
		return fail(err)
	}
	undo, err := fill(to)
	if err != nil {
		return fail(err)
	}
	failpoint.Hit(failpoint.QuarantineMoved, s.e.store.Dir())
	err = s.e.store.AddQuarantine(index.QuarantineRecord{
		ID: id, Time: s.e.o.Now(), Path: p, Reason: why, Session: s.id, UID: s.uid, Bytes: bytes,
	})
	failpoint.Hit(failpoint.QuarantineDone, s.e.store.Dir())
	if err == nil {
		if err := s.view.account.trim(); err != nil {
			s.e.log.Warn("what a user has in quarantine could not be bounded", "uid", s.uid, "error", err)
		}
		return nil
	}
	if uerr := undo(); uerr != nil {
		// What is in dir is now the only copy: it stays.
		return errors.Join(fault.New("put into quarantine", p, fault.Other, err), uerr)
	}
	return fail(err)
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
