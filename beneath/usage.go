package beneath

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Usage is what a tree takes.
type Usage struct {
	Bytes int64 // of regular files, see Size, and of links
	Files int64 // names of any kind
}

// maxLevels is how deep Measure looks: it has a descriptor open for each level.
const maxLevels = 256

// ErrDeep says that something lies deeper than Measure looks.
var ErrDeep = errors.New("too many directories inside of each other")

// Measure sums up a name in dirfd and all below it. Files may come and go meanwhile, so
// it is about right then. A name that is not there takes nothing. After an error the
// result is what was seen.
func Measure(dirfd int, name string) (Usage, error) {
	var u Usage
	err := u.add(dirfd, name, 0)
	return u, err
}

func (u *Usage) add(dirfd int, name string, level int) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return unlessGone(err)
	}
	u.Files++
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		u.Bytes += Size(&st)
		return nil
	case unix.S_IFLNK:
		u.Bytes += st.Size
		return nil
	case unix.S_IFDIR:
	default:
		return nil
	}
	if level == maxLevels {
		return ErrDeep
	}
	fd, err := Open(dirfd, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return unlessGone(err)
	}
	d := os.NewFile(uintptr(fd), name)
	defer d.Close() //nolint:errcheck // read only
	var deep error
	for {
		names, err := d.Readdirnames(512)
		for _, n := range names {
			if err := u.add(fd, n, level+1); errors.Is(err, ErrDeep) {
				deep = err
			} else if err != nil {
				return err
			}
		}
		if err == io.EOF {
			return deep
		}
		if err != nil {
			return err
		}
	}
}

// Size is how much a regular file takes: what it would if it had no holes, or what it
// does, if that is more: with room that was set aside for it, or with attributes.
func Size(st *unix.Stat_t) int64 {
	const block = 4096
	if disk := st.Blocks * 512; disk > (st.Size+block-1)/block*block {
		return disk
	}
	return st.Size
}

func unlessGone(err error) error {
	switch err {
	case unix.ENOENT, unix.ENOTDIR, unix.ELOOP: // something else by now
		return nil
	}
	return err
}
