package cow

import (
	"errors"

	"golang.org/x/sys/unix"
)

// maxOrphans bounds the descriptors that a view keeps for files that were
// removed while somebody still knew them.
const maxOrphans = 1024

// errNameless says that a node was removed and nothing native is left of it.
var errNameless = errors.New("removed")

// place is where the native object of a node is: a name in a directory, or,
// with an empty name, a descriptor of the object itself.
type place struct {
	fd   int
	name string
	dir  dirRef
}

func (p place) release() { p.dir.release() }

// native finds the native object of a node in the overlay. v.mu is held.
func (v *View) native(n *Node) (place, error) {
	if n == v.root {
		return place{fd: v.rootfd, name: "."}, nil
	}
	if len(n.links) > 0 {
		l := n.links[0]
		d, err := v.dir(l.dir)
		return place{d.fd, l.name, d}, err
	}
	if n.orphan >= 0 {
		return place{fd: n.orphan}, nil
	}
	v.hmu.Lock()
	defer v.hmu.Unlock()
	for _, h := range n.handles {
		if h.lower == nil {
			return place{fd: int(h.f.Fd())}, nil
		}
	}
	return place{}, errNameless
}

// lastAttr returns the attributes of a node that has no name. They are zero if
// nobody was there to ask for them.
func (n *Node) lastAttr() Attr {
	if n.last == nil {
		return Attr{}
	}
	return n.last.Attr
}

// path returns a path for the calls that take nothing else, and whether its
// last component is a link to be followed.
func (p place) path() (path string, follow bool) { return procPath(p.fd, p.name), p.name == "" }

// orphaned prepares a node for the loss of its last known name, which is about
// to be removed. v.mu is held for writing.
func (v *View) orphaned(n *Node) error {
	if n.refs.Load() <= 0 && !n.isOpen() {
		return nil // nobody will ask
	}
	a, err := v.attr(n)
	if err != nil {
		return err
	}
	n.last = &remains{Attr: a}
	if n.isDir() || a.Nlink <= 1 {
		n.last.Nlink = 0
	}
	if n.typ == unix.S_IFLNK {
		n.last.target, err = v.readlink(n)
		return err
	}
	if !n.upper || !n.isFile() || n.orphan >= 0 {
		return nil
	}
	v.hmu.Lock()
	if len(v.orphans) >= maxOrphans {
		v.hmu.Unlock()
		return nil
	}
	for _, h := range n.handles {
		if h.lower == nil && a.Nlink <= 1 {
			v.hmu.Unlock()
			return nil // its descriptor serves as well
		}
	}
	v.hmu.Unlock()
	p, err := v.native(n)
	if err != nil {
		return err
	}
	defer p.release()
	// Where descriptors run out, the attributes have to do.
	if fd, err := openat(p.fd, p.name, unix.O_PATH|unix.O_NOFOLLOW, 0); err == nil {
		v.keepOrphan(n, fd)
	}
	return nil
}

// outlive keeps the native file of a node without a name whose handle is about to be closed,
// and had been enough so far: the kernel may know the node, and open it once more, until
// it forgets it. v.mu is held for writing.
func (v *View) outlive(n *Node, h *Handle) {
	v.hmu.Lock()
	kept := v.closed || n.orphan >= 0 || len(n.handles) > 0 || len(v.orphans) >= maxOrphans
	v.hmu.Unlock()
	if kept || !n.upper || n.refs.Load() <= 0 {
		return
	}
	if fd, err := openat(unix.AT_FDCWD, procPath(int(h.f.Fd()), ""), unix.O_PATH, 0); err == nil {
		v.keepOrphan(n, fd)
	}
}

// keepOrphan keeps a descriptor of a node without a name. v.mu is held for writing.
func (v *View) keepOrphan(n *Node, fd int) {
	n.orphan = fd
	v.account.keep(1)
	v.hmu.Lock()
	defer v.hmu.Unlock()
	v.orphans[fd] = struct{}{}
}

func (v *View) closeOrphan(n *Node) {
	v.hmu.Lock()
	delete(v.orphans, n.orphan)
	v.hmu.Unlock()
	v.account.closed(1)
	unix.Close(n.orphan)
	n.orphan = -1
}
