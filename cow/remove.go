package cow

import (
	"golang.org/x/sys/unix"
)

// Unlink removes the name of anything but a directory.
func (v *View) Unlink(dir *Node, name string) error {
	return v.remove(dir, name, func(n *Node) error {
		if n.isDir() {
			return unix.EISDIR
		}
		return nil
	})
}

// Rmdir removes an empty directory.
func (v *View) Rmdir(dir *Node, name string) error {
	return v.remove(dir, name, func(n *Node) error {
		if !n.isDir() {
			return unix.ENOTDIR
		}
		return v.checkEmpty(n)
	})
}

func (v *View) remove(dir *Node, name string, check func(n *Node) error) error {
	defer v.queue.flush()
	v.mu.Lock()
	defer v.mu.Unlock()
	n, err := v.child(dir, name)
	if err != nil {
		return err
	}
	defer v.tidy(n)
	v.removing = true
	defer func() { v.removing = false }()
	if err := check(n); err != nil {
		return err
	}
	if err := v.changeableDir(dir); err != nil {
		return err
	}
	if err := v.copyUpDir(dir); err != nil {
		return err
	}
	cover, err := v.covers(dir, name)
	if err != nil {
		return err
	}
	if len(n.links) == 1 {
		if err := v.orphaned(n); err != nil {
			return err
		}
	}
	path := dir.at(name)
	if err := v.erase(dir, name, cover); err != nil {
		return err
	}
	v.lost(n, dir, name)
	if n.isDir() {
		v.gens.bumpBelow(path)
		if err := v.gained.follow(relocation{path, ""}); err != nil {
			return err
		}
	} else {
		v.gens.bump(path)
		v.touched(n)
	}
	v.queue.emit(Event{Op: Removed, Path: path, IsDir: n.isDir()})
	return nil
}

// lost notes that a node has lost a name.
func (v *View) lost(n, dir *Node, name string) {
	n.detach(dir, name)
	if len(n.links) > 0 {
		return
	}
	if l := n.liveLane(); l != nil {
		v.leaveLane(l)
	}
	if n.lastAttr().Nlink == 0 {
		v.unlinkNative(n) // its inode number may be another file's next
	}
	v.dirs.drop(n)
	n.names = nil
}

// checkEmpty returns ENOTEMPTY if a client sees anything in a directory.
func (v *View) checkEmpty(n *Node) error {
	if n.upper && n.names == nil {
		if err := v.loadNames(n); err != nil {
			return err
		}
	}
	for _, e := range n.names {
		if !e.whiteout {
			return unix.ENOTEMPTY
		}
	}
	empty := true
	err := v.eachUnder(n, func(o *object) bool {
		_, hidden := n.names[o.Name]
		empty = hidden
		return empty
	})
	if err == nil && !empty {
		err = unix.ENOTEMPTY
	}
	return err
}

// eachUnder calls f for everything that a directory has below the overlay,
// hidden or not, until it returns false.
func (v *View) eachUnder(n *Node, f func(o *object) bool) error {
	more := true
	var seen map[string]bool
	if !v.gained.empty() {
		if path, ok := n.path(); ok {
			v.gained.each(path, func(o *object) bool {
				if seen == nil {
					seen = make(map[string]bool)
				}
				seen[o.Name] = true
				more = f(o)
				return more
			})
		}
	}
	if n.lower == nil || !more {
		return nil
	}
	return v.lower.each(n.lower, func(o *object) bool { return seen[o.Name] || f(o) })
}

// erase removes a name natively. If something is below the name, a whiteout takes
// its place. What clients don't see in there goes, too.
func (v *View) erase(dir *Node, name string, cover bool) error {
	d, err := v.dir(dir)
	if err != nil {
		return err
	}
	defer d.release()
	old, there := dir.names[name]
	switch {
	case !there:
		if !cover {
			return unix.ENOENT
		}
		err = makeWhiteout(d.fd, name)
	case !cover:
		err = v.eraseNative(d.fd, name, old.typ)
	default:
		err = v.replaceByWhiteout(d.fd, name, old.typ)
	}
	if err != nil {
		return err
	}
	if cover {
		dir.names[name] = upperName{typ: unix.S_IFCHR, whiteout: true}
		if !there {
			v.account.grow(0, 1)
		}
	} else {
		delete(dir.names, name)
	}
	return nil
}

func (v *View) eraseNative(dirfd int, name string, typ uint32) error {
	if typ != unix.S_IFDIR {
		return unix.Unlinkat(dirfd, name, 0)
	}
	err := unix.Unlinkat(dirfd, name, unix.AT_REMOVEDIR)
	if err != unix.ENOTEMPTY && err != unix.EEXIST {
		return err
	}
	// Whiteouts are left in it. It goes at once, and they go when it is out of sight.
	tmp := v.workName()
	if err := unix.Renameat(dirfd, name, v.workfd, tmp); err != nil {
		return err
	}
	v.discard(tmp)
	return nil
}

func (v *View) replaceByWhiteout(dirfd int, name string, typ uint32) error {
	tmp := v.workName()
	if err := makeWhiteout(v.workfd, tmp); err != nil {
		return err
	}
	flags := uint(0)
	if typ == unix.S_IFDIR {
		flags = unix.RENAME_EXCHANGE
	}
	err := unix.Renameat2(v.workfd, tmp, dirfd, name, flags)
	if err != nil || flags != 0 {
		v.discard(tmp)
	}
	return err
}
