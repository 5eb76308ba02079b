package index

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"condafs/beneath"
	"condafs/fault"
	"condafs/hashing"
	"condafs/internal/failpoint"

	"golang.org/x/sys/unix"
)

// blobTime is the modification time of every blob that is not lent (place.go). A write to a blob, by whoever gets
// past its mode 0444, changes it, so that a quick look finds what to hash again.
var blobTime = time.Unix(315532800, 0) // 1980

const blobMode = 0o444

func (s *Store) blobPath(d hashing.Digest) string {
	return filepath.Join(s.dir, blobName(d))
}

// blobName is relative to the store.
func blobName(d hashing.Digest) string {
	hex := d.String()
	return objectsName + "/" + hex[:2] + "/" + hex[2:]
}

// HasBlob tells whether a blob is there. It may go the next moment unless it is held
// or a pinned state refers to it.
func (s *Store) HasBlob(d hashing.Digest) bool {
	fi, err := os.Lstat(s.blobPath(d))
	return err == nil && fi.Mode().IsRegular()
}

// OpenBlob opens a blob for reading. One that is not there, is something else than a
// file, or was written to and has other bytes now is fault.Corrupt.
//
// Whether somebody wrote to it is seen by its time: looking at the bytes at each
// opening would cost what reading them costs. Bytes that have changed by themselves
// are found by Verify and by the scrub.
func (s *Store) OpenBlob(d hashing.Digest) (*os.File, error) { return s.OpenBlobSize(d, -1) }

// OpenBlobSize is OpenBlob for a blob whose size is known, if it is not negative: any
// other is fault.Corrupt.
func (s *Store) OpenBlobSize(d hashing.Digest, size int64) (*os.File, error) {
	name := blobName(d)
	fd, err := beneath.Open(int(s.root.Fd()), name, unix.O_RDONLY|unix.O_NONBLOCK)
	if err == nil {
		f := os.NewFile(uintptr(fd), filepath.Join(s.dir, name))
		if err = s.checkOpen(f, d, size); err == nil {
			return f, nil
		}
		f.Close() // only read
	}
	switch {
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.EXDEV), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENOTDIR):
		err = fault.New("open blob", d.String(), fault.Corrupt, fmt.Errorf("it is no file: %w", err)).WithHint(hintVerify)
	case errors.Is(err, fs.ErrNotExist):
		err = fault.New("open blob", d.String(), fault.Corrupt, errors.New("it is missing from the store")).WithHint(hintVerify)
	case !fault.Is(err, fault.Corrupt):
		return nil, fault.New("open blob", d.String(), fault.Other, err)
	}
	if f := s.damaged.Load(); f != nil {
		(*f)(d)
	}
	return nil, err
}

// checkOpen finds the damage that an open blob shows without being read.
func (s *Store) checkOpen(f *os.File, d hashing.Digest, size int64) error {
	fi, err := f.Stat()
	switch {
	case err != nil:
		return err
	case !fi.Mode().IsRegular():
		return fault.New("open blob", d.String(), fault.Corrupt, fmt.Errorf("it is no file but %v", fi.Mode().Type())).WithHint(hintVerify)
	case size >= 0 && fi.Size() != size:
		return wrongSize(d, fi.Size(), size)
	}
	if rest, err := s.atRest(f, d, fi); rest || err != nil {
		return err
	}
	good, err := s.rehashFile(f, d)
	if err == nil && !good {
		err = fault.New("open blob", d.String(), fault.Corrupt, errors.New("somebody wrote to it: its bytes are not what its name says")).WithHint(hintVerify)
	}
	return err
}

// OnDamaged has f told of each blob that turns out to be damaged when somebody opens it.
// It must return at once.
func (s *Store) OnDamaged(f func(d hashing.Digest)) { s.damaged.Store(&f) }

const hintVerify = "run condafs verify to see which packages are affected"

func wrongSize(d hashing.Digest, is, should int64) error {
	return fault.New("open blob", d.String(), fault.Corrupt, fmt.Errorf("it has %d bytes, not %d", is, should)).WithHint(hintVerify)
}

// AdoptFile makes a file of the store's file system the blob d, which is what the
// caller has found it to hash to. Nobody may have it open for writing. The file is
// renamed into objects/, or removed if the blob is there already (moved == false). A
// file that has other names is copied, because it can be written under those.
//
// The file is called name in the directory dirfd, as for openat(2). Links are not
// followed, and what is no regular file is left alone: clients can make such things
// where a file was.
//
// The blob is held by h. It is durable after the next Update that refers to it.
func (s *Store) AdoptFile(h *Hold, dirfd int, name string, d hashing.Digest) (moved bool, err error) {
	h.Blob(d)
	f, err := openRegular(dirfd, name)
	if err != nil {
		return false, adoptError(name, err)
	}
	defer f.Close() // only read
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return false, adoptError(name, err)
	}
	if st.Nlink == 1 {
		return s.install(dirfd, name, f, &st, d)
	}
	copied, err := s.copyToStaging(f)
	if err != nil {
		return false, adoptError(name, err)
	}
	failpoint.Hit(failpoint.BlobCopied, s.dir)
	if moved, err = s.AdoptFile(h, unix.AT_FDCWD, copied, d); err != nil {
		return false, errors.Join(err, os.Remove(copied))
	}
	if err := unix.Unlinkat(dirfd, name, 0); err != nil {
		return false, adoptError(name, err)
	}
	return moved, nil
}

// openRegular opens a regular file, and nothing that would block or lead elsewhere.
func openRegular(dirfd int, name string) (*os.File, error) {
	fd, err := unix.Openat(dirfd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = fault.New("", "", fault.Usage, errors.New("it is no regular file"))
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), name), nil
}

func adoptError(path string, err error) error {
	e := fault.New("adopt", path, fault.Other, err)
	if fault.Is(err, fault.Full) {
		return e.WithHint(hintFull)
	}
	return e
}

func (s *Store) copyToStaging(src *os.File) (name string, err error) {
	dst, err := os.CreateTemp(s.StagingDir(), "copy-*")
	if err != nil {
		return "", err
	}
	// A reflink shares the bytes where the file system can; io.Copy asks the kernel
	// to copy where it cannot.
	if err = unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())); err != nil {
		_, err = io.Copy(dst, src)
	}
	if err = errors.Join(err, dst.Close()); err != nil {
		return "", errors.Join(err, os.Remove(dst.Name()))
	}
	return dst.Name(), nil
}

// install gives a file its final mode, owner and time, so that it never appears in
// objects/ with others, and its final name.
func (s *Store) install(dirfd int, name string, f *os.File, st *unix.Stat_t, d hashing.Digest) (moved bool, err error) {
	// Chown first: it may clear mode bits.
	if uid, gid := os.Geteuid(), os.Getegid(); int(st.Uid) != uid || int(st.Gid) != gid {
		if err := f.Chown(uid, gid); err != nil {
			return false, adoptError(name, err)
		}
	}
	if err := f.Chmod(blobMode); err != nil {
		return false, adoptError(name, err)
	}
	t := unix.NsecToTimespec(blobTime.UnixNano())
	if err := unix.UtimesNanoAt(dirfd, name, []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, adoptError(name, err)
	}
	failpoint.Hit(failpoint.BlobReady, s.dir)
	for {
		err := s.takeName(dirfd, name, st.Size, d)
		if err == nil {
			failpoint.Hit(failpoint.BlobRenamed, s.dir)
			return true, nil
		}
		if errors.Is(err, fs.ErrExist) {
			moved, err = s.meetExisting(dirfd, name, st.Size, d)
			if errors.Is(err, errRenamed) {
				continue
			}
		}
		if err != nil {
			return false, adoptError(name, err)
		}
		if !moved {
			failpoint.Hit(failpoint.BlobDuplicate, s.dir)
		}
		return moved, nil
	}
}

// takeName renames a file to a blob's name and fails as fs.ErrExist if that is taken.
func (s *Store) takeName(dirfd int, name string, size int64, d hashing.Digest) error {
	defer s.naming.lock(d)()
	dst := s.blobPath(d)
	err := renameNew(dirfd, name, dst)
	if errors.Is(err, fs.ErrNotExist) { // somebody removed the directory
		if err = os.Mkdir(filepath.Dir(dst), 0o700); err == nil || errors.Is(err, fs.ErrExist) {
			err = renameNew(dirfd, name, dst)
		}
	}
	if err != nil {
		return err
	}
	s.blobs.Add(1)
	s.bytes.Add(size)
	s.held.blob(d).seen(d, size)
	return nil
}

// renameNew renames and fails as fs.ErrExist if the name is taken.
func renameNew(dirfd int, from, to string) error {
	err := unix.Renameat2(dirfd, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
		return err
	}
	// A file system without RENAME_NOREPLACE.
	if err := unix.Linkat(dirfd, from, unix.AT_FDCWD, to, 0); err != nil {
		return err
	}
	return unix.Unlinkat(dirfd, from, 0)
}

// meetExisting drops a duplicate of a blob, or puts it in the place of one that turns
// out to be damaged. errRenamed says that another file has that name by now, or none.
func (s *Store) meetExisting(dirfd int, name string, size int64, d hashing.Digest) (moved bool, err error) {
	dst := s.blobPath(d)
	fi, err := os.Lstat(dst)
	if err != nil {
		return false, renamed(err)
	}
	good := fi.Size() == size && fi.Mode().IsRegular()
	if good && (!s.untouched(dst, d, fi) || s.suspect(fi)) {
		if good, err = s.rehash(dst, d); err != nil {
			return false, renamed(err)
		}
	}
	defer s.naming.lock(d)()
	now, err := os.Lstat(dst)
	if err != nil {
		return false, renamed(err)
	}
	if !os.SameFile(fi, now) {
		return false, errRenamed
	}
	s.held.blob(d).seen(d, size)
	if good {
		return false, unix.Unlinkat(dirfd, name, 0)
	}
	s.log.Warn("replaced a damaged blob", "digest", d, "bytes", fi.Size(), "should", size)
	if err := unix.Renameat(dirfd, name, unix.AT_FDCWD, dst); err != nil {
		return false, err
	}
	s.bytes.Add(size - fi.Size())
	return true, nil
}

// rehash tells whether a blob's bytes are what its name says, and if so marks it as
// untouched and, by its change time, as checked.
func (s *Store) rehash(path string, d hashing.Digest) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	good, err := s.rehashFile(f, d)
	return good, errors.Join(err, f.Close())
}

func (s *Store) rehashFile(f *os.File, d hashing.Digest) (bool, error) {
	leaveTimes(int(f.Fd()))
	return s.rehashBy(f, d, func() (hashing.Sums, error) { return hashing.File(f, 0) })
}

// rehashBy is rehashFile for one who reads in a way of his own.
func (s *Store) rehashBy(f *os.File, d hashing.Digest, read func() (hashing.Sums, error)) (bool, error) {
	for range 3 {
		before, err := f.Stat()
		if err != nil {
			return false, err
		}
		sums, err := read()
		if err != nil || sums.Blake3 != d {
			return false, err
		}
		if done, err := s.vouch(f, d, before.ModTime()); done || err != nil {
			return done, err
		}
	}
	return false, nil // somebody writes to it again and again
}

// vouch marks a blob as checked, unless its time says that it was written to since: not
// if it is the time of rest, which lend may have changed, or another one who checked.
func (s *Store) vouch(f *os.File, d hashing.Digest, since time.Time) (bool, error) {
	defer s.naming.lock(d)()
	fi, err := f.Stat()
	if err != nil {
		return false, err
	}
	rest, err := restTime(f)
	if err != nil {
		return false, err
	}
	resting := fi.ModTime().Equal(rest)
	if !resting && !fi.ModTime().Equal(since) {
		return false, nil
	}
	if resting && !s.suspect(fi) {
		return true, nil
	}
	return true, setTime(f, rest)
}

// PutBlob stores what r gives, held by h, and returns its sums. It is durable after
// the next Update that refers to it.
func (s *Store) PutBlob(h *Hold, r io.Reader, extra hashing.Extra) (hashing.Sums, error) {
	f, err := os.CreateTemp(s.StagingDir(), "blob-*")
	if err != nil {
		return hashing.Sums{}, adoptError("stream", err)
	}
	sums, err := hashing.Reader(io.TeeReader(r, f), extra)
	if err = errors.Join(err, f.Close()); err == nil {
		failpoint.Hit(failpoint.BlobStaged, s.dir)
		_, err = s.AdoptFile(h, unix.AT_FDCWD, f.Name(), sums.Blake3)
	}
	if err == nil {
		return sums, nil
	}
	if rmErr := os.Remove(f.Name()); rmErr != nil && !errors.Is(rmErr, fs.ErrNotExist) {
		err = errors.Join(err, rmErr)
	}
	return hashing.Sums{}, adoptError("stream", err)
}

// findBlob makes sure that a held blob is there and, for size >= 0, has that size.
func (s *Store) findBlob(d hashing.Digest, size int64) error {
	is, ok := s.held.blob(d).seenSize(d)
	for !ok {
		fi, err := os.Lstat(s.blobPath(d))
		if err != nil {
			return fault.New("refer to blob", d.String(), fault.Corrupt, fmt.Errorf("it is not in the store: %w", err))
		}
		if is = fi.Size(); s.suspect(fi) {
			good, err := s.rehash(s.blobPath(d), d)
			if err != nil {
				return fault.New("refer to blob", d.String(), fault.Other, err)
			}
			if !good {
				return fault.New("refer to blob", d.String(), fault.Corrupt, errors.New("a crash of the machine damaged it")).WithHint(hintVerify)
			}
		}
		ok = s.seeNamed(d, fi)
	}
	if size >= 0 && is != size {
		return wrongSize(d, is, size)
	}
	return nil
}
