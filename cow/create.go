package cow

import (
	"os"

	"golang.org/x/sys/unix"

	"condafs/beneath"
	"condafs/internal/failpoint"
)

// Create makes a regular file and opens it. If there is one already it is
// opened, unless flags has O_EXCL.
func (v *View) Create(dir *Node, name string, flags int, mode uint32) (*Node, Attr, *Handle, error) {
	defer v.queue.flush()
	for {
		n, a, h, err := v.createNew(dir, name, flags, mode)
		if err != unix.EEXIST || flags&unix.O_EXCL != 0 {
			return n, a, h, err
		}
		n, a, h, err = v.openExisting(dir, name, flags)
		if err != unix.ENOENT && err != unix.ESTALE {
			return n, a, h, err
		}
	}
}

func (v *View) openExisting(dir *Node, name string, flags int) (*Node, Attr, *Handle, error) {
	n, _, err := v.Lookup(dir, name)
	if err != nil {
		return nil, Attr{}, nil, err
	}
	h, err := v.Open(n, flags)
	if err != nil {
		v.Forget(n, 1)
		return nil, Attr{}, nil, err
	}
	a, err := v.Getattr(n, h)
	if err != nil {
		v.Forget(n, 1)
		_ = h.Release() // nothing was written through it
		return nil, Attr{}, nil, err
	}
	return n, a, h, nil
}

func (v *View) createNew(dir *Node, name string, flags int, mode uint32) (*Node, Attr, *Handle, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.vacant(dir, name); err != nil {
		return nil, Attr{}, nil, err
	}
	if err := v.account.opened(1); err != nil {
		return nil, Attr{}, nil, err
	}
	c := made{v: v}
	fd := -1
	err := v.make(dir, name, 0, func(dirfd int, name string) error {
		var err error
		fd, err = openat(dirfd, name, flags&openFlags|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, nativeMode(unix.S_IFREG, mode))
		if err != nil {
			return err
		}
		if err = c.finish(fd, unix.S_IFREG, mode); err != nil {
			unix.Close(fd)
			_ = unix.Unlinkat(dirfd, name, 0) // the error is told already
		}
		return err
	})
	if err != nil {
		v.account.closed(1)
		return nil, Attr{}, nil, err
	}
	failpoint.Hit(failpoint.FileMade, v.upperDir)
	n := v.added(dir, name, &c)
	h := v.register(n, os.NewFile(uintptr(fd), "overlay file"), flags, nil)
	v.take(n)
	return n, v.nativeAttr(n, &c.st), h, nil
}

// Tmpfile makes a file without a name, which Link can give one.
func (v *View) Tmpfile(dir *Node, flags int, mode uint32) (*Node, Attr, *Handle, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.account.opened(1); err != nil {
		return nil, Attr{}, nil, err
	}
	n, a, h, err := v.tmpfile(dir, flags, mode)
	if err != nil {
		v.account.closed(1)
	}
	return n, a, h, err
}

func (v *View) tmpfile(dir *Node, flags int, mode uint32) (*Node, Attr, *Handle, error) {
	if err := v.changeableDir(dir); err != nil {
		return nil, Attr{}, nil, err
	}
	if err := v.account.take(0, 1); err != nil {
		return nil, Attr{}, nil, err
	}
	defer v.account.made(0, 1)
	fd, err := openat(v.workfd, ".", flags&(openFlags|unix.O_EXCL)|unix.O_TMPFILE, nativeMode(unix.S_IFREG, mode))
	if err != nil {
		return nil, Attr{}, nil, err
	}
	c := made{v: v}
	if err := c.finish(fd, unix.S_IFREG, mode); err != nil {
		unix.Close(fd)
		return nil, Attr{}, nil, err
	}
	n := v.newNode(unix.S_IFREG, c.ino())
	n.upper, n.mark = true, c.mark
	a := v.nativeAttr(n, &c.st)
	n.last = &remains{Attr: a}
	h := v.register(n, os.NewFile(uintptr(fd), "overlay file"), flags, nil)
	v.take(n)
	return n, a, h, nil
}

// Mkdir makes a directory.
func (v *View) Mkdir(dir *Node, name string, mode uint32) (*Node, Attr, error) {
	return v.makeNode(dir, name, 0, func(dirfd int, name string, c *made) error {
		if err := unix.Mkdirat(dirfd, name, nativeMode(unix.S_IFDIR, mode)); err != nil {
			return err
		}
		return c.finishName(dirfd, name, unix.S_IFDIR, mode)
	})
}

// Mknod makes a regular file, a FIFO or a socket. Devices are refused with EPERM.
func (v *View) Mknod(dir *Node, name string, mode, rdev uint32) (*Node, Attr, error) {
	typ := mode & unix.S_IFMT
	switch typ {
	case 0:
		typ = unix.S_IFREG
	case unix.S_IFREG, unix.S_IFIFO, unix.S_IFSOCK:
	case unix.S_IFDIR:
		return nil, Attr{}, unix.EPERM
	case unix.S_IFCHR, unix.S_IFBLK:
		return nil, Attr{}, unix.EPERM
	default:
		return nil, Attr{}, unix.EINVAL
	}
	return v.makeNode(dir, name, 0, func(dirfd int, name string, c *made) error {
		if err := unix.Mknodat(dirfd, name, typ|nativeMode(typ, mode), 0); err != nil {
			return err
		}
		return c.finishName(dirfd, name, typ, mode)
	})
}

// Symlink makes a symbolic link.
func (v *View) Symlink(dir *Node, name, target string) (*Node, Attr, error) {
	return v.makeNode(dir, name, int64(len(target)), func(dirfd int, name string, c *made) error {
		if err := unix.Symlinkat(target, dirfd, name); err != nil {
			return err
		}
		return fstatat(dirfd, name, &c.st)
	})
}

// Link gives a file one more name. It takes a reference of the node, as Lookup does.
func (v *View) Link(n, dir *Node, name string) (Attr, error) {
	defer v.queue.flush()
	for {
		a, err := v.link(n, dir, name)
		if err != errCopyUp {
			return a, err
		}
		if err := v.copyUp(n, -1); err != nil {
			return Attr{}, err
		}
	}
}

func (v *View) link(n, dir *Node, name string) (Attr, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.vacant(dir, name); err != nil {
		return Attr{}, err
	}
	if n.isDir() || n.lane != nil { // a client takes that for a directory
		return Attr{}, unix.EPERM
	}
	if n.split {
		v.replace(n)
		return Attr{}, unix.ESTALE
	}
	if err := v.bringUp(n); err != nil {
		return Attr{}, err
	}
	p, err := v.native(n)
	if err == errNameless {
		return Attr{}, unix.ENOENT
	}
	if err != nil {
		return Attr{}, err
	}
	defer p.release()
	var st unix.Stat_t
	err = v.make(dir, name, 0, func(dirfd int, name string) error {
		var err error
		if p.name == "" {
			err = unix.Linkat(unix.AT_FDCWD, procPath(p.fd, ""), dirfd, name, unix.AT_SYMLINK_FOLLOW)
		} else {
			err = unix.Linkat(p.fd, p.name, dirfd, name, 0)
		}
		if err != nil {
			return err
		}
		return fstatat(dirfd, name, &st)
	})
	if err != nil {
		return Attr{}, err
	}
	dir.names[name] = upperName{typ: n.typ, ino: n.ino, marked: n.mark != mark{}}
	n.attach(dir, name)
	if n.linked == 0 {
		v.linked[st.Ino], n.linked = n, st.Ino
	}
	v.touched(n)
	v.queue.emit(Event{Op: Created, Path: dir.at(name)})
	v.take(n)
	return v.nativeAttr(n, &st), nil
}

// makeNode makes what f does, and what has that many bytes.
func (v *View) makeNode(dir *Node, name string, bytes int64, f func(dirfd int, name string, c *made) error) (*Node, Attr, error) {
	defer v.queue.flush()
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.vacant(dir, name); err != nil {
		return nil, Attr{}, err
	}
	c := made{v: v}
	err := v.make(dir, name, bytes, func(dirfd int, name string) error {
		err := f(dirfd, name, &c)
		if err != nil && err != unix.EEXIST {
			_ = beneath.RemoveAll(dirfd, name) // the error is told already
		}
		return err
	})
	if err != nil {
		return nil, Attr{}, err
	}
	n := v.added(dir, name, &c)
	v.take(n)
	return n, v.nativeAttr(n, &c.st), nil
}

// made is a native object that has just been made.
type made struct {
	v    *View
	st   unix.Stat_t
	mark mark
}

// ino is the inode number that it shows.
func (c *made) ino() uint64 {
	if c.mark.ino != 0 {
		return c.mark.ino
	}
	return c.st.Ino
}

// finish gives a new file the mode that it shall show; the process' umask may
// have changed it.
func (c *made) finish(fd int, typ, mode uint32) error {
	if err := unix.Fstat(fd, &c.st); err != nil {
		return err
	}
	if want := nativeMode(typ, mode); c.st.Mode&0o7777 != want {
		if err := unix.Fchmod(fd, want); err != nil {
			return err
		}
		c.st.Mode = typ | want
	}
	c.mark = c.v.ownIno(c.st.Ino).withMode(typ, mode)
	if c.mark == (mark{}) {
		return nil
	}
	return unix.Fsetxattr(fd, xattrMark, c.mark.encode(), 0)
}

// finishName does the same for what was made by name.
func (c *made) finishName(dirfd int, name string, typ, mode uint32) error {
	if err := fstatat(dirfd, name, &c.st); err != nil {
		return err
	}
	if want := nativeMode(typ, mode); c.st.Mode&0o7777 != want {
		if err := unix.Fchmodat(dirfd, name, want, 0); err != nil {
			return err
		}
		c.st.Mode = typ | want
	}
	if !markable(typ) {
		return nil
	}
	c.mark = c.v.ownIno(c.st.Ino).withMode(typ, mode)
	return writeMark(dirfd, name, mark{}, c.mark)
}

// changeableDir tells why nothing can be made or removed in a directory.
func (v *View) changeableDir(dir *Node) error {
	if err := v.checkDir(dir); err != nil {
		return err
	}
	return v.writable()
}

// vacant checks that a name can be made, and copies its directory up.
func (v *View) vacant(dir *Node, name string) error {
	_, err := v.find(dir, name, true)
	switch err {
	case nil:
		return unix.EEXIST
	case unix.ENOENT:
	default:
		return err
	}
	if err := v.changeableDir(dir); err != nil {
		return err
	}
	if name == "" {
		return unix.ENOENT
	}
	return v.copyUpDir(dir)
}

// make has f make a native object at a vacant name. Where a whiteout is, f works
// in the work directory, and what it has made then takes the whiteout's place at
// once, so that what is below never shows.
func (v *View) make(dir *Node, name string, bytes int64, f func(dirfd int, name string) error) error {
	if err := v.account.take(bytes, 1); err != nil {
		return err
	}
	defer v.account.made(bytes, 1)
	d, err := v.dir(dir)
	if err != nil {
		return err
	}
	defer d.release()
	if !dir.names[name].whiteout {
		return f(d.fd, name)
	}
	tmp := v.workName()
	if err := f(v.workfd, tmp); err != nil {
		return err
	}
	return v.overWhiteout(tmp, d.fd, name)
}

// overWhiteout renames something new from the work directory to where a whiteout
// is. A directory becomes opaque.
func (v *View) overWhiteout(tmp string, dirfd int, name string) error {
	var st unix.Stat_t
	err := fstatat(v.workfd, tmp, &st)
	switch {
	case err != nil:
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		if err = setOpaque(v.workfd, tmp); err == nil {
			err = unix.Renameat2(v.workfd, tmp, dirfd, name, unix.RENAME_EXCHANGE)
		}
		v.discard(tmp) // the whiteout
		return err
	default:
		if err = unix.Renameat(v.workfd, tmp, dirfd, name); err == nil {
			return nil
		}
	}
	v.discard(tmp)
	return err
}

// added makes the node of something new in the overlay.
func (v *View) added(dir *Node, name string, c *made) *Node {
	return v.addedAs(dir, name, c, c.st.Mode&unix.S_IFMT == unix.S_IFDIR)
}

// addedAs is added for what the view's owner is told to be a directory, or not.
func (v *View) addedAs(dir *Node, name string, c *made, isDir bool) *Node {
	typ := c.st.Mode & unix.S_IFMT
	n := v.newNode(typ, c.ino())
	n.upper, n.mark = true, c.mark
	if typ == unix.S_IFDIR {
		n.names = make(map[string]upperName)
	}
	n.attach(dir, name)
	dir.names[name] = upperName{typ: typ, ino: n.ino, marked: c.mark != mark{}}
	path := dir.at(name)
	v.gens.bump(path)
	v.queue.emit(Event{Op: Created, Path: path, IsDir: isDir})
	return n
}
