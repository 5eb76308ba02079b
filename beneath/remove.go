package beneath

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// deepest is how many descriptors RemoveAll has open at most. A client can make
// directories deeper than a process may open files.
const deepest = 64

// RemoveAll removes a name in dirfd with everything below it, and follows no link.
// What is gone already is no error. What lies deep is first moved up into dirfd,
// under a name with a # in front.
func RemoveAll(dirfd int, name string) error {
	r := remover{top: dirfd}
	err := r.remove(dirfd, name, 0)
	for err == nil && len(r.deep) > 0 {
		next := r.deep[len(r.deep)-1]
		r.deep = r.deep[:len(r.deep)-1]
		err = r.remove(dirfd, next, 0)
	}
	return err
}

// RemoveTree is RemoveAll for a path that is trusted but for its last component.
func RemoveTree(path string) error {
	dir, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: filepath.Dir(path), Err: err}
	}
	defer unix.Close(dir) //nolint:errcheck // of O_PATH, it has nothing to tell
	if err := RemoveAll(dir, filepath.Base(path)); err != nil {
		return &os.PathError{Op: "remove", Path: path, Err: err}
	}
	return nil
}

type remover struct {
	top  int
	deep []string // what was moved up into top
}

func (r *remover) remove(dirfd int, name string, level int) error {
	err := unix.Unlinkat(dirfd, name, 0)
	if err == nil || err == unix.ENOENT {
		return nil
	}
	if err != unix.EISDIR && err != unix.EPERM {
		return err
	}
	if err := unix.Unlinkat(dirfd, name, unix.AT_REMOVEDIR); err == nil || err == unix.ENOENT {
		return nil
	} else if err != unix.ENOTEMPTY && err != unix.EEXIST {
		return err
	}
	if level == deepest {
		up := "#" + random()
		r.deep = append(r.deep, up)
		return unix.Renameat(dirfd, name, r.top, up)
	}
	fd, err := openToEmpty(dirfd, name)
	if err != nil {
		return err
	}
	d := os.NewFile(uintptr(fd), name)
	defer d.Close() //nolint:errcheck // read only
	for {
		names, err := d.Readdirnames(512)
		for _, n := range names {
			if err := r.remove(fd, n, level+1); err != nil {
				return err
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	err = unix.Unlinkat(dirfd, name, unix.AT_REMOVEDIR)
	if err == unix.ENOTEMPTY || err == unix.EEXIST {
		// A listing may leave names out while others are removed.
		return r.remove(dirfd, name, level)
	}
	return err
}

// openToEmpty opens a directory, and takes the right to if its mode forbids that.
func openToEmpty(dirfd int, name string) (int, error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY
	fd, err := Open(dirfd, name, flags)
	if err != unix.EACCES {
		return fd, err
	}
	at, err := Open(dirfd, name, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return -1, err
	}
	err = unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", at), 0o700)
	_ = unix.Close(at) // of O_PATH, it has nothing to tell
	if err != nil {
		return -1, err
	}
	return Open(dirfd, name, flags)
}

func random() string {
	var b [12]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
