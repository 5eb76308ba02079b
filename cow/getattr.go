package cow

import (
	"golang.org/x/sys/unix"
)

// Getattr returns the attributes of a node. h may be an open handle of it, or nil.
func (v *View) Getattr(n *Node, h *Handle) (Attr, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if v.closed {
		if h == nil {
			return Attr{}, unix.ESTALE
		}
		var st unix.Stat_t
		err := unix.Fstat(int(h.f.Fd()), &st)
		return v.nativeAttr(n, &st), err
	}
	return v.attr(n)
}

// attr returns the attributes of a node. v.mu is held.
func (v *View) attr(n *Node) (Attr, error) {
	if !n.upper {
		return v.lowerAttr(n), nil
	}
	var st unix.Stat_t
	if err := v.stat(n, &st); err != nil {
		if err == errNameless {
			return n.lastAttr(), nil
		}
		return Attr{}, err
	}
	return v.nativeAttr(n, &st), nil
}

func (v *View) lowerAttr(n *Node) Attr {
	o := n.lower
	t := unix.NsecToTimespec(o.Mtime)
	a := Attr{
		Ino: n.ino, Mode: n.typ | o.Mode&modeBits, Nlink: 1, UID: v.uid, GID: v.gid,
		Size: o.Size, Atime: t, Mtime: t, Ctime: t,
	}
	switch n.typ {
	case unix.S_IFDIR:
		a.Size = 4096
	case unix.S_IFLNK:
		a.Mode |= 0o777
		a.Size = int64(len(o.Link))
	}
	a.Blocks = (a.Size + 511) / 512
	if !n.alive() {
		a.Nlink = 0
	}
	return a
}

func (v *View) nativeAttr(n *Node, st *unix.Stat_t) Attr {
	a := Attr{
		Ino: n.ino, Mode: n.typ | st.Mode&modeBits, Nlink: uint32(st.Nlink), UID: v.uid, GID: v.gid,
		Size: st.Size, Blocks: st.Blocks, Atime: st.Atim, Mtime: st.Mtim, Ctime: st.Ctim,
	}
	switch n.typ {
	case unix.S_IFDIR:
		if !v.allNative(n) {
			a.Nlink = 1
		}
	case unix.S_IFBLK, unix.S_IFCHR:
		a.Rdev = uint32(st.Rdev)
	}
	if n.mark.hasMode {
		a.Mode = n.typ | n.mark.mode
	}
	return a
}

// allNative reports whether everything in a directory is in the overlay. Then its
// native link count is right; else nobody counts, which 1 tells, as on overlayfs.
func (v *View) allNative(n *Node) bool {
	if n.lower != nil {
		return false
	}
	if v.gained.empty() {
		return true
	}
	path, ok := n.path()
	return ok && len(v.gained.dirs[path]) == 0
}

// stat stats the native object of a node in the overlay. errNameless means that
// there is none to ask any more.
func (v *View) stat(n *Node, st *unix.Stat_t) error {
	t, err := v.native(n)
	if err != nil {
		return err
	}
	defer t.release()
	if t.name == "" {
		return unix.Fstat(t.fd, st)
	}
	return fstatat(t.fd, t.name, st)
}
