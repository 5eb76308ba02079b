package cow

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The overlay is kept in the format of the kernel's overlayfs: a whiteout is a
// character device 0:0, an opaque directory has an xattr.

func openat(dirfd int, name string, flags int, mode uint32) (int, error) {
	for {
		fd, err := unix.Openat(dirfd, name, flags|unix.O_CLOEXEC, mode)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

func fstatat(dirfd int, name string, st *unix.Stat_t) error {
	return unix.Fstatat(dirfd, name, st, unix.AT_SYMLINK_NOFOLLOW)
}

func isWhiteout(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

// makeWhiteout makes a whiteout. An overlayfs, as containers have it for their
// root, reserves the device for itself; there it is an empty file with xattrs.
func makeWhiteout(dirfd int, name string) error {
	err := unix.Mknodat(dirfd, name, unix.S_IFCHR, 0)
	if err != unix.EPERM && err != unix.EINVAL && err != unix.EOPNOTSUPP {
		return err
	}
	return makeFileWhiteout(dirfd, name)
}

func makeFileWhiteout(dirfd int, name string) error {
	fd, err := openat(dirfd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	err = unix.Fsetxattr(fd, xattrMark, mark{whiteout: true}.encode(), 0)
	if err == nil {
		// For the kernel's overlayfs, which may not let us.
		if xerr := unix.Fsetxattr(fd, xattrWhiteout, []byte("y"), 0); xerr != unix.EPERM && xerr != unix.EOPNOTSUPP {
			err = xerr
		}
	}
	if cerr := unix.Close(fd); err == nil {
		err = cerr
	}
	if err != nil {
		_ = unix.Unlinkat(dirfd, name, 0) // the error is told already
	}
	return err
}

// setTimes sets times without following links.
func setTimes(dirfd int, name string, atime, mtime unix.Timespec) error {
	return unix.UtimesNanoAt(dirfd, name, []unix.Timespec{atime, mtime}, unix.AT_SYMLINK_NOFOLLOW)
}

// keepMtime runs f and puts the modification time of a directory back: what f
// does in there is our own affair, which no client should see.
func keepMtime(dirfd int, f func() error) error {
	var st unix.Stat_t
	if err := unix.Fstat(dirfd, &st); err != nil {
		return err
	}
	err := f()
	return errors.Join(err, unix.UtimesNanoAt(dirfd, ".", []unix.Timespec{{Nsec: unix.UTIME_OMIT}, st.Mtim}, 0))
}

// dirEntry is what getdents says of a name.
type dirEntry struct {
	name string
	ino  uint64
	typ  uint32 // type bits; 0 if the file system doesn't say
}

// readNames lists a native directory without "." and "..".
func readNames(dirfd int) ([]dirEntry, error) {
	fd, err := openat(dirfd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var list []dirEntry
	buf := make([]byte, 32<<10)
	for {
		n, err := unix.ReadDirent(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return list, nil
		}
		list = parseDirents(buf[:n], list)
	}
}

func parseDirents(b []byte, list []dirEntry) []dirEntry {
	const (
		inoAt  = unsafe.Offsetof(unix.Dirent{}.Ino)
		lenAt  = unsafe.Offsetof(unix.Dirent{}.Reclen)
		typeAt = unsafe.Offsetof(unix.Dirent{}.Type)
		nameAt = unsafe.Offsetof(unix.Dirent{}.Name)
	)
	for len(b) > int(nameAt) {
		size := int(binary.NativeEndian.Uint16(b[lenAt:]))
		name := b[nameAt:size]
		if i := bytes.IndexByte(name, 0); i >= 0 {
			name = name[:i]
		}
		if s := string(name); s != "." && s != ".." {
			list = append(list, dirEntry{
				name: s,
				ino:  binary.NativeEndian.Uint64(b[inoAt:]),
				typ:  uint32(b[typeAt]) << 12,
			})
		}
		b = b[size:]
	}
	return list
}

// procPath names a native file to the calls that take paths only.
func procPath(fd int, name string) string {
	p := "/proc/self/fd/" + strconv.Itoa(fd)
	if name != "" {
		p += "/" + name
	}
	return p
}

// checkName rejects what can't be a name.
func checkName(name string) error {
	switch {
	case len(name) > 255:
		return unix.ENAMETOOLONG
	case name == "":
		return unix.ENOENT
	case name == ".", name == "..":
		return unix.EINVAL
	}
	for i := range len(name) {
		if name[i] == '/' || name[i] == 0 {
			return unix.EINVAL
		}
	}
	return nil
}
