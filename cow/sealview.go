package cow

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"condafs/fault"
	"condafs/index"
	"condafs/internal/failpoint"
)

// Seal turns what the overlay has at a path into something from below: entry, which
// shows the same as the overlay did. If it is a tree, the view's source must know
// that. Nodes keep their ids, and open handles go on.
//
// It fails with fault.Busy if the generation isn't gen any more or a writer is
// there. Under the view's lock it then has by move each regular file of the
// overlay. If that fails, the view stays as it is,
// but for the files that have gone. Another Seal mends it, whose by gets the
// files that are left and perhaps those that have gone.
func (v *View) Seal(path string, gen uint64, entry index.Entry, by sealer) error {
	defer v.queue.flush()
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.sealable(path, gen); err != nil {
		return fault.New("seal", path, fault.Other, err)
	}
	dirPath, name := splitPath(path)
	dir, err := v.walk(dirPath)
	if err != nil {
		return fault.New("seal", path, fault.Other, err)
	}
	defer v.tidy(dir)
	if err := v.seal(dir, name, path, &entry, by); err != nil {
		return fault.New("seal", path, fault.Other, err)
	}
	return nil
}

// sealer is who seals. Its methods are called under the view's lock, in this order.
type sealer interface {
	// begin is called when nothing stands against it and nothing has happened yet.
	begin() error
	// move takes a file away from where it is: a name in a native directory. rel is its path relative to the sealed one, "" for that itself.
	move(rel string, dirfd int, name string) error
	// done is called when the view shows the entry from below.
	done() error
}

func (v *View) sealable(path string, gen uint64) error {
	switch {
	case v.closed || v.upperDir == "":
		return unix.EROFS
	case v.gens.get(path) != gen:
		return fault.New("", "", fault.Busy, errors.New("it has changed"))
	case v.writers(path) > 0:
		return fault.New("", "", fault.Busy, errors.New("it is open for writing"))
	}
	return nil
}

func (v *View) seal(dir *Node, name, path string, entry *index.Entry, by sealer) error {
	n := dir.children[name] // nil: nobody knows it
	if dir.upper && dir.names == nil {
		if err := v.loadNames(dir); err != nil {
			return err
		}
	}
	u, there := dir.names[name]
	if u.whiteout {
		return unix.ENOENT
	}
	if err := by.begin(); err != nil {
		return err
	}
	if there {
		if err := v.moveFiles(dir, name, u, "", by); err != nil {
			return err
		}
	}
	if err := v.gained.put(path, *entry); err != nil {
		return err
	}
	failpoint.Hit(failpoint.SealGained, v.upperDir)
	if there {
		if err := v.purge(dir, name); err != nil {
			return err
		}
	}
	failpoint.Hit(failpoint.SealPurged, v.upperDir)
	if n != nil {
		if err := v.settle(n, link{dir, name}, v.gained.get(splitPath(path))); err != nil {
			return err
		}
	}
	return by.done()
}

// shows reports whether the view shows an entry from below at a path, and nothing of the overlay there.
func (v *View) shows(path string, entry *index.Entry) (bool, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	dirPath, name := splitPath(path)
	dir, err := v.walk(dirPath)
	if err == nil {
		defer v.tidy(dir)
		var f found
		if f, err = v.find(dir, name, true); err == nil {
			if f.node != nil && !f.node.upper {
				f.lower = f.node.lower
			}
			return f.lower != nil && f.lower.same(newObject(path, name, entry)), nil
		}
	}
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return false, nil
	}
	return false, err
}

// moveFiles calls move for the regular files of the overlay at a name and below.
func (v *View) moveFiles(dir *Node, name string, u upperName, rel string, by sealer) error {
	switch {
	case u.whiteout:
		return nil
	case u.typ == unix.S_IFREG:
		d, err := v.dir(dir)
		if err != nil {
			return err
		}
		defer d.release()
		return by.move(rel, d.fd, name)
	case u.typ != unix.S_IFDIR:
		return nil
	}
	n, err := v.child(dir, name)
	if err != nil {
		return err
	}
	unpin := n.pin()
	defer func() {
		unpin()
		v.tidy(n)
	}()
	if n.names == nil {
		if err := v.loadNames(n); err != nil {
			return err
		}
	}
	for c, u := range n.names {
		if err := v.moveFiles(n, c, u, join(rel, c), by); err != nil {
			return err
		}
	}
	return nil
}

// purge takes a name out of the overlay with all that is below. The directory's
// time doesn't change.
func (v *View) purge(dir *Node, name string) error {
	d, err := v.dir(dir)
	if err != nil {
		return err
	}
	defer d.release()
	tmp := v.workName()
	err = keepMtime(d.fd, func() error {
		err := unix.Renameat(d.fd, name, v.workfd, tmp)
		if err == unix.ENOENT {
			err = nil // a file that has been moved away
		}
		return err
	})
	if err != nil {
		return err
	}
	delete(dir.names, name)
	v.discard(tmp)
	return nil
}

// settle makes a live node show what is below, where its overlay has gone: obj,
// or nothing if that is nil or of another type. The same goes for what is in it.
func (v *View) settle(n *Node, at link, obj *object) error {
	if obj == nil || obj.typ() != n.typ {
		return v.uproot(n)
	}
	wasUpper := n.upper
	n.upper, n.lower, n.names, n.mark = false, obj, nil, mark{}
	if n.linked != 0 {
		v.splitOff(n, at)
	}
	if n.isDir() {
		v.dirs.drop(n)
		for name, c := range n.children {
			o, err := v.under(n, name)
			if err == nil {
				err = v.settle(c, link{n, name}, o)
			}
			if err != nil {
				return err
			}
		}
	}
	if !wasUpper {
		return nil
	}
	v.lendIno(n.ino)
	v.hmu.Lock()
	for _, h := range n.handles {
		if h.lower == nil {
			h.lower = obj
		}
	}
	v.hmu.Unlock()
	return nil
}

// splitOff leaves a node that had several names only this one: they are separate
// files from now on. The kernel may still know it by the others; as long as nobody
// writes, the difference doesn't show, and before that the names are looked up again.
func (v *View) splitOff(n *Node, at link) {
	v.unlinkNative(n)
	n.split = true
	n.ino = n.lower.ino // the other names keep the former one
	for _, l := range slices.Clone(n.links) {
		if l != at {
			n.detach(l.dir, l.name)
			v.tidy(l.dir)
		}
	}
}

// uproot takes all names away from a node, and from what is in it.
func (v *View) uproot(n *Node) error {
	if a, err := v.attr(n); err == nil {
		n.last = &remains{Attr: a}
	} else if n.last == nil {
		n.last = &remains{Attr: Attr{Ino: n.ino, Mode: n.typ, UID: v.uid, GID: v.gid}}
	}
	n.last.Nlink = 0
	for _, c := range n.children {
		if err := v.uproot(c); err != nil {
			return err
		}
	}
	for len(n.links) > 0 {
		n.detach(n.links[0].dir, n.links[0].name)
	}
	v.unlinkNative(n)
	v.dirs.drop(n)
	n.names = nil
	v.tidy(n)
	return nil
}

// Gain shows a new entry at a path where the view has, and had, nothing. It
// reports false if there is something else, or if the view has removed what was there.
func (v *View) Gain(path string, entry index.Entry) (bool, error) {
	defer v.queue.flush()
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.writable(); err != nil {
		return false, fault.New("gain", path, fault.Other, err)
	}
	ok, err := v.gain(path, entry)
	if err != nil {
		err = fault.New("gain", path, fault.Other, err)
	}
	return ok, err
}

func (v *View) gain(path string, entry index.Entry) (bool, error) {
	dirPath, name := splitPath(path)
	dir, err := v.walk(dirPath)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer v.tidy(dir)
	if !dir.isDir() {
		return false, nil
	}
	f, err := v.find(dir, name, true)
	switch {
	case err == nil:
		want := newObject(path, name, &entry)
		if f.node != nil && !f.node.upper {
			f.lower = f.node.lower
		}
		return f.lower != nil && f.lower.same(want), nil
	case err != unix.ENOENT:
		return false, err
	case dir.names[name].whiteout || v.gained.has(path):
		return false, nil
	}
	if err := v.gained.put(path, entry); err != nil {
		return false, err
	}
	v.invalidate(dir, name)
	return true, nil
}
