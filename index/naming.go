package index

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"condafs/hashing"

	"golang.org/x/sys/unix"
)

// naming guards what the names in objects/ stand for. Who gives a blob its name, takes it
// away, vouches for it or changes its mark and its time holds the lock of its digest
// meanwhile, and reads no content. So nobody judges one file and then acts on another
// one that was put in its place, or sees a blob that is being lent half marked.
type naming [64]sync.Mutex

// lock returns what unlocks.
func (n *naming) lock(d hashing.Digest) (unlock func()) {
	m := &n[int(d[0])%len(n)]
	m.Lock()
	return m.Unlock
}

// errRenamed says that a name stands for another file by now, or for none: look again.
var errRenamed = errors.New("another file has that name by now")

// renamed makes a name that is gone errRenamed.
func renamed(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return errRenamed
	}
	return err
}

// named tells whether an open file is the blob. The caller has locked.
func (s *Store) named(f *os.File, d hashing.Digest) (bool, error) {
	fi, err := f.Stat()
	if err != nil {
		return false, err
	}
	now, err := os.Lstat(s.blobPath(d))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(fi, now), err
}

// seeNamed notes that a held blob is there, if it is the file that was looked at.
func (s *Store) seeNamed(d hashing.Digest, fi fs.FileInfo) bool {
	defer s.naming.lock(d)()
	now, err := os.Lstat(s.blobPath(d))
	if err != nil || !os.SameFile(fi, now) {
		return false
	}
	s.held.blob(d).seen(d, fi.Size())
	return true
}

// setTime sets both times of an open file, whatever its name stands for.
func setTime(f *os.File, t time.Time) error {
	ts := unix.NsecToTimespec(t.UnixNano())
	err := unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), []unix.Timespec{ts, ts}, 0)
	if err != nil {
		return &fs.PathError{Op: "set time", Path: f.Name(), Err: err}
	}
	return nil
}
