package index

import (
	"os"

	"golang.org/x/sys/unix"

	"condafs/fault"
	"condafs/hashing"
)

// Holds reports whether a file somewhere else has a blob's bytes, as the disk has them: it reads past the page cache. One that is the
// blob itself, under another name, is not read: that is what Verify and the scrub do. pace, if not nil, is told of what was read; its error
// ends the reading.
func (s *Store) Holds(f *os.File, d hashing.Digest, pace func(bytes int) error) (bool, error) {
	var file, blob unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &file); err != nil {
		return false, fault.New("read", f.Name(), fault.Other, err)
	}
	err := unix.Fstatat(int(s.root.Fd()), blobName(d), &blob, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil && file.Dev == blob.Dev && file.Ino == blob.Ino {
		return true, nil
	}
	sums, err := newUncached(pace).sum(f)
	if err != nil {
		return false, fault.New("read", f.Name(), fault.Other, err)
	}
	return sums.Blake3 == d, nil
}
