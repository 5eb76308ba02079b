package lossyfs

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// Export writes the whole file system into a directory of another one. Change times, and
// inode numbers, cannot be kept.
func (f *FS) Export(dir string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return exportDir(f.root, dir, make(map[*inode]string))
}

func exportDir(n *inode, to string, links map[*inode]string) error {
	for _, name := range slices.Sorted(maps.Keys(n.names)) {
		c, at := n.names[name], filepath.Join(to, name)
		if err := exportNode(c, at, links); err != nil {
			return fmt.Errorf("export %s: %w", at, err)
		}
	}
	return nil
}

func exportNode(n *inode, at string, links map[*inode]string) (err error) {
	if first := links[n]; first != "" {
		return os.Link(first, at)
	}
	links[n] = at
	a := &n.attr
	switch a.mode & unix.S_IFMT {
	case unix.S_IFDIR:
		if err = os.Mkdir(at, 0o700); err == nil {
			err = exportDir(n, at, links)
		}
	case unix.S_IFREG:
		err = exportFile(n, at)
	case unix.S_IFLNK:
		err = os.Symlink(a.link, at)
	default:
		err = unix.Mknod(at, a.mode, int(a.rdev))
	}
	if err != nil {
		return err
	}
	for name, value := range a.xattrs {
		if err := unix.Lsetxattr(at, name, []byte(value), 0); err != nil {
			return err
		}
	}
	if err := os.Lchown(at, int(a.uid), int(a.gid)); err != nil {
		return err
	}
	if a.mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Chmod(at, a.mode&0o7777); err != nil {
			return err
		}
	}
	times := []unix.Timespec{unix.NsecToTimespec(a.atime), unix.NsecToTimespec(a.mtime)}
	return unix.UtimesNanoAt(unix.AT_FDCWD, at, times, unix.AT_SYMLINK_NOFOLLOW)
}

func exportFile(n *inode, at string) error {
	f, err := os.OpenFile(at, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = f.Truncate(n.data.size)
	for i, p := range n.data.pages {
		if err != nil {
			break
		}
		_, err = f.WriteAt(p[:max(0, min(pageSize, n.data.size-i*pageSize))], i*pageSize)
	}
	return errors.Join(err, f.Close())
}
