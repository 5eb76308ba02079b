package cow

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"
)

// found is what a name in a directory stands for: a live node, or what the
// node is to be made of.
type found struct {
	node  *Node
	upper bool    // the overlay has it
	lower *object // else what is below
}

// errExclusive asks for the lock to be held for writing.
var errExclusive = errors.New("needs the lock for writing")

// find looks a name up: the overlay hides what the view has gained, and that
// hides the snapshot. v.mu is held; exclusive says that it is held for writing.
func (v *View) find(dir *Node, name string, exclusive bool) (found, error) {
	if err := v.checkDir(dir); err != nil {
		return found{}, err
	}
	if err := checkName(name); err != nil {
		return found{}, err
	}
	if c := dir.children[name]; c != nil {
		return found{node: c}, nil
	}
	if dir.upper {
		if dir.names == nil {
			if !exclusive {
				return found{}, errExclusive
			}
			if err := v.loadNames(dir); err != nil {
				return found{}, err
			}
		}
		if e, ok := dir.names[name]; ok {
			if e.whiteout {
				return found{}, unix.ENOENT
			}
			return found{upper: true}, nil
		}
	}
	obj, err := v.under(dir, name)
	if err == nil && obj == nil {
		err = unix.ENOENT
	}
	return found{lower: obj}, err
}

func (v *View) checkDir(dir *Node) error {
	switch {
	case v.closed:
		return unix.ESTALE
	case !dir.isDir():
		return unix.ENOTDIR
	case !dir.alive():
		return unix.ENOENT
	}
	return nil
}

// under returns what is below the overlay at a name, whether the overlay hides
// it or not; nil if nothing is.
func (v *View) under(dir *Node, name string) (*object, error) {
	if !v.gained.empty() {
		if path, ok := dir.path(); ok {
			if o := v.gained.get(path, name); o != nil {
				return o, nil
			}
		}
	}
	if dir.lower == nil {
		return nil, nil
	}
	return v.lower.child(dir.lower, name)
}

// covers reports whether the removal of a name must leave a whiteout.
func (v *View) covers(dir *Node, name string) (bool, error) {
	if !v.gained.empty() && v.gained.has(dir.at(name)) {
		return true, nil
	}
	obj, err := v.under(dir, name)
	return obj != nil, err
}

// child returns the node of a name. It may be a new one that nobody refers to:
// the caller takes a reference or tidies it. v.mu is held for writing.
func (v *View) child(dir *Node, name string) (*Node, error) {
	f, err := v.find(dir, name, true)
	if err != nil || f.node != nil {
		return f.node, err
	}
	if f.upper {
		return v.upperChild(dir, name)
	}
	n := v.newNode(f.lower.typ(), f.lower.ino)
	n.lower = f.lower
	n.attach(dir, name)
	return n, nil
}

// upperChild makes the node of a name that the overlay has.
func (v *View) upperChild(dir *Node, name string) (*Node, error) {
	d, err := v.dir(dir)
	if err != nil {
		return nil, err
	}
	defer d.release()
	var st unix.Stat_t
	if err := fstatat(d.fd, name, &st); err != nil {
		return nil, err
	}
	typ := st.Mode & unix.S_IFMT
	if n := v.linked[st.Ino]; n != nil {
		n.attach(dir, name)
		return n, nil
	}
	u := dir.names[name]
	n := v.newNode(typ, u.ino)
	n.upper = true
	if u.marked || v.markedUnseen && markable(typ) {
		if n.mark, err = readMark(d.fd, name); err != nil {
			return nil, err
		}
	}
	if typ == unix.S_IFDIR {
		if n.lower, err = v.mergedWith(dir, name, d.fd); err != nil {
			return nil, err
		}
	} else if st.Nlink > 1 {
		v.linked[st.Ino], n.linked = n, st.Ino
	}
	if typ == unix.S_IFLNK {
		if err := v.foundLink(n, d.fd, name, &st); err != nil {
			return nil, err
		}
	}
	n.attach(dir, name)
	return n, nil
}

// mergedWith returns the directory that one of the overlay is merged with, or nil.
func (v *View) mergedWith(dir *Node, name string, dirfd int) (*object, error) {
	origin, err := getNative(dirfd, name, xattrOrigin)
	if err != nil {
		return nil, err
	}
	if origin != nil {
		return v.lower.find(string(origin))
	}
	opaque, err := getNative(dirfd, name, xattrOpaque)
	if err != nil || string(opaque) == "y" {
		return nil, err
	}
	o, err := v.under(dir, name)
	if o != nil && !o.isDir() {
		o = nil
	}
	return o, err
}

// loadNames reads what the overlay has in a directory. v.mu is held for writing.
func (v *View) loadNames(dir *Node) error {
	d, err := v.dir(dir)
	if err != nil {
		return err
	}
	defer d.release()
	list, err := readNames(d.fd)
	if err != nil {
		return err
	}
	names := make(map[string]upperName, len(list))
	for _, e := range list {
		u := upperName{typ: e.typ, ino: e.ino}
		if e.typ == 0 || e.typ == unix.S_IFCHR {
			var st unix.Stat_t
			if err := fstatat(d.fd, e.name, &st); err != nil {
				return err
			}
			u.typ, u.whiteout = st.Mode&unix.S_IFMT, isWhiteout(&st)
		}
		if markable(u.typ) {
			m, err := readMark(d.fd, e.name)
			if err != nil {
				return err
			}
			u.marked, u.whiteout = m != mark{}, m.whiteout
			if m.ino != 0 {
				u.ino = m.ino
				v.lendIno(m.ino)
			}
		}
		names[e.name] = u
	}
	dir.names = names
	return nil
}

// Lookup finds a name in a directory. Like every method that hands out a node,
// it takes one reference for the caller, to be given back by Forget.
func (v *View) Lookup(dir *Node, name string) (*Node, Attr, error) {
	v.passLane(dir, name)
	if n, a, err := v.lookupShared(dir, name); err != errExclusive {
		return n, a, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	n, err := v.child(dir, name)
	if err != nil {
		return nil, Attr{}, err
	}
	defer v.tidy(n) // stays if it is handed out
	return v.handOut(n)
}

// lookupShared finds live nodes and what isn't there.
func (v *View) lookupShared(dir *Node, name string) (*Node, Attr, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	f, err := v.find(dir, name, false)
	if err != nil {
		return nil, Attr{}, err
	}
	if f.node == nil {
		return nil, Attr{}, errExclusive
	}
	return v.handOut(f.node)
}

// handOut takes a reference for the caller. v.mu is held.
func (v *View) handOut(n *Node) (*Node, Attr, error) {
	a, err := v.attr(n)
	if err != nil {
		return nil, Attr{}, err
	}
	v.take(n)
	return n, a, nil
}

func cutPath(path string) (name, rest string, more bool) { return strings.Cut(path, "/") }
