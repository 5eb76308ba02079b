package cow

import (
	"os"

	"golang.org/x/sys/unix"
)

// openFlags are what open(2) is told of the flags of a client.
const openFlags = unix.O_ACCMODE | unix.O_SYNC | unix.O_DSYNC

// Open opens a regular file. Opening for writing copies it up.
//
// ESTALE means that the name must be looked up again, because it is another node
// now; the kernel does so by itself. It happens when the file has got another
// native file while a passthrough handle is open on its former one.
func (v *View) Open(n *Node, flags int) (*Handle, error) {
	switch n.typ {
	case unix.S_IFREG:
	case unix.S_IFDIR:
		return nil, unix.EISDIR
	case unix.S_IFLNK:
		return nil, unix.ELOOP
	default:
		return nil, unix.ENXIO
	}
	if err := v.account.opened(1); err != nil {
		return nil, err
	}
	h, err := v.open(n, flags)
	if err != nil {
		v.account.closed(1)
	}
	return h, err
}

func (v *View) open(n *Node, flags int) (*Handle, error) {
	if flags&unix.O_ACCMODE == unix.O_RDONLY && flags&unix.O_TRUNC == 0 {
		return v.openToRead(n, flags)
	}
	size := int64(-1)
	if flags&unix.O_TRUNC != 0 {
		size = 0
	}
	for {
		h, err := v.openToWrite(n, flags)
		if err != errCopyUp {
			return h, err
		}
		if err := v.copyUp(n, size); err != nil {
			return nil, err
		}
	}
}

func (v *View) openToRead(n *Node, flags int) (*Handle, error) {
	h, err := v.openShared(n, flags)
	if err != errExclusive {
		return h, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.replace(n)
	return nil, unix.ESTALE
}

func (v *View) openShared(n *Node, flags int) (*Handle, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	f, obj, err := v.openNode(n, flags)
	if err != nil {
		return nil, err
	}
	if v.conflicts(n, f) {
		return nil, closeAfter(f, errExclusive)
	}
	return v.register(n, f, flags, obj), nil
}

func (v *View) openToWrite(n *Node, flags int) (*Handle, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.writable(); err != nil {
		return nil, err
	}
	if n.split {
		v.replace(n)
		return nil, unix.ESTALE
	}
	if !n.upper {
		return nil, errCopyUp
	}
	access := flags
	if flags&unix.O_TRUNC != 0 && flags&unix.O_ACCMODE == unix.O_RDONLY {
		access |= unix.O_RDWR
	}
	f, _, err := v.openNode(n, access)
	if err != nil {
		return nil, err
	}
	if v.conflicts(n, f) {
		v.replace(n)
		return nil, closeAfter(f, unix.ESTALE)
	}
	if flags&unix.O_TRUNC != 0 {
		if err := unix.Ftruncate(int(f.Fd()), 0); err != nil {
			return nil, closeAfter(f, err)
		}
	}
	v.touched(n)
	return v.register(n, f, access, nil), nil
}

// openNode opens what a node has for content at present. v.mu is held.
func (v *View) openNode(n *Node, flags int) (*os.File, *object, error) {
	if v.closed {
		return nil, nil, unix.ESTALE
	}
	if !n.upper {
		f, err := v.lower.open(n.lower)
		return f, n.lower, err
	}
	p, err := v.native(n)
	if err == errNameless {
		return nil, nil, unix.ESTALE
	}
	if err != nil {
		return nil, nil, err
	}
	defer p.release()
	var fd int
	if p.name == "" {
		fd, err = openat(unix.AT_FDCWD, procPath(p.fd, ""), flags&openFlags, 0)
	} else {
		fd, err = openat(p.fd, p.name, flags&openFlags|unix.O_NOFOLLOW, 0)
	}
	if err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(fd), "overlay file"), nil, nil
}

// conflicts reports whether the kernel itself reads another native file of the
// node: it can't have two at a time. v.mu is held.
func (v *View) conflicts(n *Node, f *os.File) bool {
	v.hmu.Lock()
	defer v.hmu.Unlock()
	for _, h := range n.handles {
		if h.passthrough.Load() && !sameNative(h.f, f) {
			return true
		}
	}
	return false
}

// closeAfter closes a file and returns the first error. It keeps err as it is.
func closeAfter(f *os.File, err error) error {
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

func sameNative(a, b *os.File) bool {
	var s, t unix.Stat_t
	return unix.Fstat(int(a.Fd()), &s) == nil && unix.Fstat(int(b.Fd()), &t) == nil && s.Dev == t.Dev && s.Ino == t.Ino
}

// replace takes the names away from a node, so that the next Lookup makes new
// ones. The old node remains for those who have it open. v.mu is held for writing.
func (v *View) replace(n *Node) {
	if a, err := v.attr(n); err == nil {
		n.last = &remains{Attr: a}
	}
	links := n.links
	for len(n.links) > 0 {
		n.detach(n.links[0].dir, n.links[0].name)
	}
	v.unlinkNative(n)
	if n.upper && !n.split {
		// What its handles show is what it is from now on.
		v.hmu.Lock()
		for _, h := range n.handles {
			if h.lower != nil {
				n.upper, n.lower = false, h.lower
				break
			}
		}
		v.hmu.Unlock()
	}
	for _, l := range links {
		v.tidy(l.dir)
	}
	v.tidy(n)
}
