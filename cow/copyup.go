package cow

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"condafs/fault"
	"condafs/internal/failpoint"
)

// errCopyUp asks for the content of a file to be copied up first, which is done
// without the view's lock.
var errCopyUp = errors.New("needs copy-up")

// copyUp brings a file from below into the overlay. Of its content only size
// bytes are taken; all if size is negative. Meanwhile, the view is not locked: the
// copy grows in the work directory and is renamed to its place at the end,
// wherever that is by then.
func (v *View) copyUp(n *Node, size int64) error {
	n.copying.Lock()
	defer n.copying.Unlock()
	for {
		v.mu.RLock()
		obj, err := n.lower, v.writable()
		if n.upper {
			obj = nil
		}
		busy := err == nil && obj != nil
		if busy {
			v.copies.Add(1)
		}
		v.mu.RUnlock()
		if !busy {
			return err
		}
		done, err := v.copyOnce(n, obj, size)
		v.copies.Done()
		if done || err != nil {
			return err
		}
	}
}

func (v *View) copyOnce(n *Node, obj *object, size int64) (done bool, err error) {
	bytes := obj.Size
	if size >= 0 {
		bytes = min(size, obj.Size)
	}
	if err := v.account.take(bytes, 1); err != nil {
		return false, err
	}
	defer v.account.made(bytes, 1)
	c, err := v.copyOut(obj, size, n.ino)
	if err != nil {
		return false, err
	}
	return v.installCopy(n, obj, c)
}

// copied is a file in the work directory.
type copied struct {
	name string
	f    *os.File
	mark mark
}

// copyOut copies what is below into the work directory.
func (v *View) copyOut(obj *object, size int64, ino uint64) (copied, error) {
	src, err := v.lower.open(obj)
	if err != nil {
		return copied{}, err
	}
	c := copied{name: v.workName(), mark: mark{ino: ino}.withMode(unix.S_IFREG, obj.Mode)}
	fd, err := openat(v.workfd, c.name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return copied{}, closeAfter(src, err)
	}
	c.f = os.NewFile(uintptr(fd), "copy")
	err = closeAfter(src, copyContent(c.f, src, obj.Size, size))
	if err == nil {
		err = unix.Fsetxattr(fd, xattrMark, c.mark.encode(), 0)
	}
	if err == nil {
		err = unix.Fchmod(fd, nativeMode(unix.S_IFREG, obj.Mode))
	}
	if err == nil {
		t := unix.NsecToTimespec(obj.Mtime)
		err = setTimes(v.workfd, c.name, t, t)
	}
	if err != nil {
		v.discard(c.name)
		return copied{}, closeAfter(c.f, err)
	}
	return c, nil
}

// copyContent copies the first limit bytes, or all if limit is negative, of a
// file that has size bytes. The file systems share the blocks where they can.
func copyContent(dst, src *os.File, size, limit int64) error {
	if limit < 0 {
		if unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) == nil {
			return nil
		}
		limit = size
	}
	limit = min(limit, size)
	n, err := io.Copy(dst, io.LimitReader(src, limit)) // copy_file_range or sendfile
	if err == nil && n != limit {
		err = fault.New("copy up", src.Name(), fault.Corrupt, fmt.Errorf("it has %d bytes, not %d: %w", n, size, io.ErrUnexpectedEOF))
	}
	return err
}

// installCopy makes a copy the file, if the file is still what was copied.
func (v *View) installCopy(n *Node, obj *object, c copied) (done bool, err error) {
	failpoint.Hit(failpoint.CopyMade, v.upperDir)
	v.mu.Lock()
	defer v.mu.Unlock()
	defer func() { err = closeAfter(c.f, err) }()
	if n.upper || n.lower != obj {
		v.discard(c.name)
		return n.upper, nil
	}
	if err := v.writable(); err != nil {
		v.discard(c.name)
		return false, err
	}
	if len(n.links) == 0 {
		// Removed, but somebody still has it: it gets a nameless file. Its
		// descriptor is the only one, so no bound is put on these.
		v.discard(c.name)
		fd, err := unix.FcntlInt(c.f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return false, err
		}
		v.keepOrphan(n, fd)
	} else if err := v.moveIn(n.links[0], c.name, upperName{typ: n.typ, ino: n.ino, marked: true}); err != nil {
		v.discard(c.name)
		return false, err
	}
	failpoint.Hit(failpoint.CopyMoved, v.upperDir)
	v.inOverlay(n, c.mark)
	v.touched(n)
	return true, nil
}

// inOverlay notes that a node which is no directory has been copied up.
func (v *View) inOverlay(n *Node, m mark) {
	n.upper = true
	n.lower = nil
	n.mark = m
}

// moveIn renames something that was prepared in the work directory to where it
// belongs. The directory's time doesn't change: nothing has, for the client.
func (v *View) moveIn(l link, tmp string, u upperName) error {
	if err := v.copyUpDir(l.dir); err != nil {
		return err
	}
	d, err := v.dir(l.dir)
	if err != nil {
		return err
	}
	defer d.release()
	err = keepMtime(d.fd, func() error { return unix.Renameat(v.workfd, tmp, d.fd, l.name) })
	if err == nil {
		l.dir.names[l.name] = u
	}
	return err
}

// copyUpDir makes sure that a directory, and so all its parents, are in the
// overlay and that its names there are known. v.mu is held for writing.
func (v *View) copyUpDir(n *Node) error {
	if n.upper {
		if n.names == nil {
			return v.loadNames(n)
		}
		return nil
	}
	if n.away {
		return unix.ESTALE
	}
	if len(n.links) == 0 {
		return unix.ENOENT
	}
	if v.removing {
		v.account.grow(0, 1)
	} else if err := v.account.take(0, 1); err != nil {
		return err
	} else {
		defer v.account.made(0, 1)
	}
	l := n.links[0]
	tmp := v.workName()
	if err := unix.Mkdirat(v.workfd, tmp, 0o700); err != nil {
		return err
	}
	m := mark{ino: n.ino}.withMode(n.typ, n.lower.Mode)
	err := writeMark(v.workfd, tmp, mark{}, m)
	if err == nil {
		err = unix.Fchmodat(v.workfd, tmp, nativeMode(n.typ, n.lower.Mode), 0)
	}
	if err == nil {
		t := unix.NsecToTimespec(n.lower.Mtime)
		err = setTimes(v.workfd, tmp, t, t)
	}
	if err == nil {
		err = v.moveIn(l, tmp, upperName{typ: n.typ, ino: n.ino, marked: true})
	}
	if err != nil {
		v.discard(tmp)
		return err
	}
	n.upper, n.mark, n.names = true, m, make(map[string]upperName)
	return nil
}

// copyUpLink copies a symbolic link up. It shows the number of its copy from then on: a
// link can't have a mark, and each of its names, in whatever directory that is looked up
// again, must show the same number. v.mu is held for writing.
func (v *View) copyUpLink(n *Node) error {
	if len(n.links) == 0 {
		return unix.ENOENT
	}
	bytes := int64(len(n.lower.Link))
	if err := v.account.take(bytes, 1); err != nil {
		return err
	}
	defer v.account.made(bytes, 1)
	tmp := v.workName()
	if err := unix.Symlinkat(n.lower.Link, v.workfd, tmp); err != nil {
		return err
	}
	var st unix.Stat_t
	err := fstatat(v.workfd, tmp, &st)
	if err == nil {
		t := unix.NsecToTimespec(n.lower.Mtime)
		err = setTimes(v.workfd, tmp, t, t)
	}
	if err == nil {
		err = v.moveIn(n.links[0], tmp, upperName{typ: n.typ, ino: st.Ino})
	}
	if err != nil {
		v.discard(tmp)
		return err
	}
	n.ino = st.Ino
	v.inOverlay(n, mark{})
	return nil
}

// bringUp copies a node up if it is not in the overlay. For a file it returns
// errCopyUp. v.mu is held for writing.
func (v *View) bringUp(n *Node) error {
	switch {
	case n.isDir():
		return v.copyUpDir(n)
	case n.upper:
		return nil
	case n.isFile():
		return errCopyUp
	}
	return v.copyUpLink(n)
}
