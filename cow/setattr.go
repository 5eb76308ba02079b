package cow

import (
	"golang.org/x/sys/unix"
)

// Setattr changes attributes and returns all of them. h may be an open handle of
// the node, or nil. A change that changes nothing copies nothing up.
//
// Everything in a view belongs to its user and group. Giving it to others fails
// with EPERM, except for root, for whom it does nothing, as archives that root
// unpacks ask for it all the time.
func (v *View) Setattr(n *Node, h *Handle, s SetAttr) (Attr, error) {
	if s.Valid&SetSize != 0 {
		switch {
		case n.isDir():
			return Attr{}, unix.EISDIR
		case !n.isFile(), s.Size < 0:
			return Attr{}, unix.EINVAL
		}
	}
	for {
		a, err := v.setattr(n, h, s)
		if err != errCopyUp {
			return a, err
		}
		size := int64(-1)
		if s.Valid&SetSize != 0 {
			size = s.Size
		}
		if err := v.copyUp(n, size); err != nil {
			return Attr{}, err
		}
	}
}

func (v *View) setattr(n *Node, h *Handle, s SetAttr) (Attr, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return Attr{}, unix.ESTALE
	}
	a, err := v.attr(n)
	if err != nil {
		return a, err
	}
	if err := v.checkOwner(&s); err != nil {
		return a, err
	}
	if !n.upper && s.changesNothing(&a) || s.Valid == 0 {
		return a, nil
	}
	if err := v.writable(); err != nil {
		return a, err
	}
	if n.split {
		v.replace(n)
		return a, unix.ESTALE
	}
	if err := v.bringUp(n); err != nil {
		return a, err
	}
	longer := int64(0)
	if s.Valid&SetSize != 0 {
		longer = max(0, s.Size-a.Size)
	}
	if err := v.account.take(longer, 0); err != nil {
		return a, err
	}
	defer v.account.made(longer, 0)
	if err := v.apply(n, h, &s, &a); err != nil {
		return a, err
	}
	v.touched(n)
	return v.attr(n)
}

// checkOwner takes the owner out of the change.
func (v *View) checkOwner(s *SetAttr) error {
	if v.uid != 0 && (s.Valid&SetUID != 0 && s.UID != v.uid || s.Valid&SetGID != 0 && s.GID != v.gid) {
		return unix.EPERM
	}
	s.Valid &^= SetUID | SetGID
	return nil
}

// changesNothing reports whether a has everything already that s sets.
func (s *SetAttr) changesNothing(a *Attr) bool {
	switch {
	case s.Valid&SetMode != 0 && s.Mode&modeBits != a.Mode&modeBits,
		s.Valid&SetSize != 0 && s.Size != a.Size,
		s.Valid&SetAtime != 0 && (s.Valid&SetAtimeNow != 0 || s.Atime != a.Atime),
		s.Valid&SetMtime != 0 && (s.Valid&SetMtimeNow != 0 || s.Mtime != a.Mtime):
		return false
	}
	return true
}

// apply changes a node that is in the overlay.
func (v *View) apply(n *Node, h *Handle, s *SetAttr, a *Attr) error {
	p, err := v.native(n)
	if err == errNameless {
		// Removed long ago. Whoever asks sees no difference.
		return nil
	}
	if err != nil {
		return err
	}
	defer p.release()
	if s.Valid&SetSize != 0 {
		if err := truncate(p, h, s.Size); err != nil {
			return err
		}
	}
	if s.Valid&SetMode != 0 {
		if err := p.chmod(n, s.Mode); err != nil {
			return err
		}
	}
	if s.Valid&(SetAtime|SetMtime) != 0 {
		return p.setTimes(s)
	}
	return nil
}

func truncate(p place, h *Handle, size int64) error {
	if h != nil && h.writable {
		return unix.Ftruncate(int(h.f.Fd()), size)
	}
	fd, err := -1, error(nil)
	if p.name == "" {
		fd, err = openat(unix.AT_FDCWD, procPath(p.fd, ""), unix.O_WRONLY, 0)
	} else {
		fd, err = openat(p.fd, p.name, unix.O_WRONLY|unix.O_NOFOLLOW, 0)
	}
	if err != nil {
		return err
	}
	err = unix.Ftruncate(fd, size)
	if cerr := unix.Close(fd); err == nil {
		err = cerr
	}
	return err
}

func (p place) chmod(n *Node, mode uint32) error {
	if n.typ == unix.S_IFLNK {
		return unix.EOPNOTSUPP
	}
	native := nativeMode(n.typ, mode)
	var err error
	if p.name == "" {
		err = unix.Chmod(procPath(p.fd, ""), native)
	} else {
		err = unix.Fchmodat(p.fd, p.name, native, 0)
	}
	if err != nil || !markable(n.typ) {
		return err
	}
	m := n.mark.withMode(n.typ, mode)
	if err := p.writeMark(n.mark, m); err != nil {
		return err
	}
	n.mark = m
	if m != (mark{}) && n.view.hasOtherNames(n) {
		n.view.markedUnseen = true
	}
	for _, l := range n.links {
		u := l.dir.names[l.name]
		u.marked = u.marked || m != mark{}
		l.dir.names[l.name] = u
	}
	return nil
}

func (p place) writeMark(old, m mark) error {
	if p.name != "" {
		return writeMark(p.fd, p.name, old, m)
	}
	switch {
	case m == old:
		return nil
	case m == mark{}:
		return unix.Removexattr(procPath(p.fd, ""), xattrMark)
	}
	return unix.Setxattr(procPath(p.fd, ""), xattrMark, m.encode(), 0)
}

func (p place) setTimes(s *SetAttr) error {
	ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Nsec: unix.UTIME_OMIT}}
	if s.Valid&SetAtime != 0 {
		ts[0] = s.Atime
		if s.Valid&SetAtimeNow != 0 {
			ts[0] = unix.Timespec{Nsec: unix.UTIME_NOW}
		}
	}
	if s.Valid&SetMtime != 0 {
		ts[1] = s.Mtime
		if s.Valid&SetMtimeNow != 0 {
			ts[1] = unix.Timespec{Nsec: unix.UTIME_NOW}
		}
	}
	if p.name == "" {
		return unix.UtimesNanoAt(unix.AT_FDCWD, procPath(p.fd, ""), ts, 0)
	}
	return unix.UtimesNanoAt(p.fd, p.name, ts, unix.AT_SYMLINK_NOFOLLOW)
}

// Readlink returns where a symbolic link points to.
func (v *View) Readlink(n *Node) (string, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	switch {
	case v.closed:
		return "", unix.ESTALE
	case n.typ != unix.S_IFLNK:
		return "", unix.EINVAL
	}
	return v.readlink(n)
}

func (v *View) readlink(n *Node) (string, error) {
	if !n.upper {
		return n.lower.Link, nil
	}
	p, err := v.native(n)
	if err == errNameless {
		if n.last == nil || n.last.target == "" {
			return "", unix.ENOENT
		}
		return n.last.target, nil
	}
	if err != nil {
		return "", err
	}
	defer p.release()
	buf := make([]byte, unix.PathMax)
	size, err := unix.Readlinkat(p.fd, p.name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:size]), nil
}
