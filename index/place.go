package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"condafs/fault"
	"condafs/hashing"

	"golang.org/x/sys/unix"
)

// Sharing says how a file outside of objects/ gets a blob's bytes.
type Sharing uint8

const (
	// Copy gives it bytes of its own.
	Copy Sharing = iota
	// Reflink shares the bytes, copy-on-write, where the file system can, and
	// copies elsewhere.
	Reflink
	// Link makes it another name of the blob itself: one copy on disk, and no
	// protection from who writes to it. A blob has one mode and time, so a second
	// file that wants others is a Reflink.
	Link
)

// String names the way as it stands in options.
func (s Sharing) String() string { return [...]string{"copy", "reflink", "link"}[s] }

// lentXattr marks a blob that has names outside of objects/. Its value is the mode
// and the time that it took on for them, without which it would be taken for damaged.
const lentXattr = "user.condafs.lent"

type lent struct {
	mode  uint32
	mtime int64 // nanoseconds since 1970
}

func (l lent) encode() []byte {
	b := binary.BigEndian.AppendUint32(nil, l.mode)
	return binary.BigEndian.AppendUint64(b, uint64(l.mtime))
}

// readLent returns how a blob is lent, or false if it is not.
func readLent(fd int) (lent, bool, error) {
	var b [12]byte
	n, err := unix.Fgetxattr(fd, lentXattr, b[:])
	switch {
	case errors.Is(err, unix.ENODATA), errors.Is(err, unix.EOPNOTSUPP):
		return lent{}, false, nil
	case err != nil:
		return lent{}, false, err
	case n != len(b):
		return lent{}, false, fmt.Errorf("%s has %d bytes", lentXattr, n)
	}
	return lent{binary.BigEndian.Uint32(b[:]), int64(binary.BigEndian.Uint64(b[4:]))}, true, nil
}

// restTime is the modification time that a blob has while nobody has written to it.
func restTime(f *os.File) (time.Time, error) {
	l, ok, err := readLent(int(f.Fd()))
	if err != nil || !ok {
		return blobTime, err
	}
	return time.Unix(0, l.mtime), nil
}

// atRest tells whether the time of a blob says that nobody has written to it since it
// was checked.
func (s *Store) atRest(f *os.File, d hashing.Digest, fi fs.FileInfo) (bool, error) {
	if fi.ModTime().Equal(blobTime) {
		return true, nil
	}
	// Not while somebody lends it: its mark comes before its time.
	defer s.naming.lock(d)()
	fi, err := f.Stat()
	if err != nil {
		return false, err
	}
	t, err := restTime(f)
	return err == nil && fi.ModTime().Equal(t), err
}

// untouched is atRest for a blob that is not open.
func (s *Store) untouched(path string, d hashing.Digest, fi fs.FileInfo) bool {
	if fi.ModTime().Equal(blobTime) {
		return true
	}
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close() // only read
	rest, err := s.atRest(f, d, fi)
	return err == nil && rest
}

// PlaceBlob makes path, which must not exist, a file with a blob's bytes and with this
// mode (permission bits) and modification time (nanoseconds since 1970). It must be on
// the store's file system. The blob must be held or pinned. The result says which
// sharing it came to. What is placed is not synced.
//
// A damaged blob, by its size or time, is fault.Corrupt.
func (s *Store) PlaceBlob(d hashing.Digest, size int64, path string, mode uint32, mtime int64, how Sharing) (Sharing, error) {
	for {
		is, err := s.place(d, size, path, mode, mtime, how)
		if errors.Is(err, errRenamed) {
			continue // it was mended: take the new one
		}
		return is, err
	}
}

func (s *Store) place(d hashing.Digest, size int64, path string, mode uint32, mtime int64, how Sharing) (Sharing, error) {
	f, err := s.OpenBlobSize(d, size)
	if err != nil {
		return how, err
	}
	defer f.Close() // only read
	if how == Link {
		ok, err := s.lend(f, d, path, lent{mode & 0o777, mtime})
		if err != nil {
			return how, fault.New("place blob", path, fault.Other, err)
		}
		if ok {
			return Link, nil
		}
		how = Reflink
	}
	if how, err = placeCopy(f, path, mode, mtime, how); err != nil {
		return how, fault.New("place blob", path, fault.Other, err)
	}
	return how, nil
}

// lend links a blob to path if it can have that mode and time. errRenamed says that
// another file is that blob by now.
func (s *Store) lend(f *os.File, d hashing.Digest, path string, want lent) (bool, error) {
	defer s.naming.lock(d)()
	if named, err := s.named(f, d); err != nil {
		return false, err
	} else if !named {
		return false, errRenamed
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return false, err
	}
	if st.Mode&0o7777 != want.mode || st.Mtim.Nano() != want.mtime {
		if st.Nlink > 1 {
			return false, nil // others rely on what it has
		}
		// The mark first: whatever a crash leaves is explained by it.
		switch err := unix.Fsetxattr(int(f.Fd()), lentXattr, want.encode(), 0); {
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSPC):
			return false, nil
		case err != nil:
			return false, err
		}
		if err := f.Chmod(fs.FileMode(want.mode)); err != nil {
			return false, err
		}
		if err := setTime(f, time.Unix(0, want.mtime)); err != nil {
			return false, err
		}
	}
	err := os.Link(s.blobPath(d), path)
	if errors.Is(err, unix.EMLINK) {
		return false, nil
	}
	return err == nil, err
}

func placeCopy(src *os.File, path string, mode uint32, mtime int64, how Sharing) (Sharing, error) {
	dst, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return how, err
	}
	if how == Reflink && unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) != nil {
		how = Copy
	}
	if how == Copy {
		_, err = io.Copy(dst, io.NewSectionReader(src, 0, 1<<62))
	}
	if err == nil {
		err = dst.Chmod(fs.FileMode(mode & 0o777))
	}
	if err = errors.Join(err, dst.Close()); err == nil {
		err = os.Chtimes(path, time.Unix(0, mtime), time.Unix(0, mtime))
	}
	if err != nil {
		return how, errors.Join(err, os.Remove(path))
	}
	return how, nil
}

// CanReflink tells whether the store's file system shares the bytes of two files
// copy-on-write.
func (s *Store) CanReflink() (bool, error) {
	src, err := os.CreateTemp(s.StagingDir(), "clone-*")
	if err != nil {
		return false, fault.New("try a reflink", s.dir, fault.Other, err)
	}
	dst, err := os.CreateTemp(s.StagingDir(), "clone-*")
	if err != nil {
		return false, fault.New("try a reflink", s.dir, fault.Other, errors.Join(err, src.Close(), os.Remove(src.Name())))
	}
	can := unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) == nil
	return can, errors.Join(src.Close(), dst.Close(), os.Remove(src.Name()), os.Remove(dst.Name()))
}
