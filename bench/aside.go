package bench

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// roomToKeep is the free space, in bytes, above which nothing is removed between measurements.
const roomToKeep = 20 << 30

// putAside takes a directory out of the way of later measurements. It is not removed as long as there is room: for some
// minutes after many files have been removed, ext4 takes up to twenty times as long to make one, because it does not
// reuse their inodes yet and passes over each of them (recently_deleted in its ialloc.c).
func (b *bench) putAside(dir string) error {
	to := filepath.Join(b.scratch, "aside-"+strconv.Itoa(len(b.aside)))
	if err := os.Rename(dir, to); err != nil {
		return err
	}
	b.aside = append(b.aside, to)
	var st unix.Statfs_t
	if err := unix.Statfs(b.scratch, &st); err != nil {
		return err
	}
	if int64(st.Bavail)*st.Bsize > roomToKeep {
		return nil
	}
	var errs []error
	for _, old := range b.aside {
		errs = append(errs, os.RemoveAll(old)) // those of before are gone already
	}
	return errors.Join(errs...)
}
