// Package beneath reaches files below a directory, and never anything else.
//
// Clients put what they like into an overlay, at any time: links to anywhere,
// FIFOs, directories where a file was a moment ago. So a path in there is never
// given to the kernel as a whole from the root of the file system. It is resolved
// from a descriptor of the directory that it must stay in, by openat2(2) with
// RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS: no ".." and no link leads out, whoever
// renames what meanwhile. Where the kernel or a container's filter has no openat2,
// the path is walked one component at a time, which gives the same.
//
// Paths are relative, with slashes; "" is the directory itself. They may be longer
// than one system call takes.
package beneath

import (
	"errors"
	"os"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Open opens a path below dirfd. flags are those of openat(2), without O_CREAT. A link
// anywhere in the path, its end included, is ELOOP; a way out is EXDEV.
func Open(dirfd int, path string, flags int) (int, error) {
	if path == "" {
		path = "."
	}
	if len(path) >= unix.PathMax || noOpenat2.Load() {
		return walk(dirfd, path, flags)
	}
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
	for {
		fd, err := unix.Openat2(dirfd, path, &how)
		switch err {
		case unix.EINTR, unix.EAGAIN: // EAGAIN: something was renamed meanwhile
			continue
		case unix.ENOSYS:
			noOpenat2.Store(true)
			return walk(dirfd, path, flags)
		case unix.EPERM: // of a container's filter, perhaps
			return walk(dirfd, path, flags)
		}
		return fd, err
	}
}

// noOpenat2 says that the kernel is too old.
var noOpenat2 atomic.Bool

// walk opens one component after the other.
func walk(dirfd int, path string, flags int) (int, error) {
	at := dirfd
	defer func() {
		if at != dirfd {
			_ = unix.Close(at) // of O_PATH, it has nothing to tell
		}
	}()
	for {
		name, rest, more := strings.Cut(path, "/")
		switch {
		case name == "..":
			return -1, unix.EXDEV
		case name == "" && more && at == dirfd:
			return -1, unix.EXDEV // absolute
		case name == "":
			name = "."
		}
		if !more {
			return open(at, name, flags|unix.O_NOFOLLOW)
		}
		fd, err := open(at, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW)
		if err != nil {
			return -1, err
		}
		if at != dirfd {
			_ = unix.Close(at)
		}
		at, path = fd, rest
	}
}

// open is openat without interruptions. A link is ELOOP, as openat2 has it.
func open(dirfd int, name string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(dirfd, name, flags|unix.O_CLOEXEC, 0)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.ENOTDIR && isLink(dirfd, name):
			return -1, unix.ELOOP
		case err == nil && flags&unix.O_PATH != 0 && flags&unix.O_DIRECTORY == 0 && isLink(fd, ""):
			return -1, errors.Join(unix.ELOOP, unix.Close(fd))
		}
		return fd, err
	}
}

func isLink(fd int, name string) bool {
	var st unix.Stat_t
	err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK
}

// Parent opens the directory that a path below dirfd is in, for calls that take a
// descriptor and a name. The caller closes it.
func Parent(dirfd int, path string) (fd int, name string, err error) {
	dir := ""
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		dir, path = path[:i], path[i+1:]
	}
	if path == "" || path == "." || path == ".." {
		return -1, "", unix.EINVAL
	}
	fd, err = Open(dirfd, dir, unix.O_PATH|unix.O_DIRECTORY)
	return fd, path, err
}

// ErrNotRegular says that something is no regular file.
var ErrNotRegular = errors.New("it is no regular file")

// OpenFile opens a regular file below dirfd for reading. It never blocks, as on a
// FIFO, and anything else is ErrNotRegular.
func OpenFile(dirfd int, path string) (*os.File, error) {
	fd, err := Open(dirfd, path, unix.O_RDONLY|unix.O_NONBLOCK)
	switch {
	case err == unix.ELOOP, err == unix.ENXIO: // a link; a socket
		return nil, ErrNotRegular
	case err != nil:
		return nil, err
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = ErrNotRegular
	}
	if err == nil {
		err = unix.SetNonblock(fd, false)
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), path), nil
}
