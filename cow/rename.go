package cow

import (
	"golang.org/x/sys/unix"
)

// renameOp is a rename that is being done.
type renameOp struct {
	from, to link
	src, dst *Node // dst is nil if nothing is at the new name
	exchange bool
}

// Rename is renameat2(2) with RENAME_NOREPLACE and RENAME_EXCHANGE. Directories
// that come from below are renamed like any other: what they are merged with is
// recorded in the overlay, and nothing in them is copied.
func (v *View) Rename(olddir *Node, oldname string, newdir *Node, newname string, flags uint32) error {
	const known = unix.RENAME_NOREPLACE | unix.RENAME_EXCHANGE
	if flags&^known != 0 || flags == known {
		return unix.EINVAL
	}
	if err := v.landLane(olddir, oldname); err != nil {
		return err
	}
	defer v.queue.flush()
	for {
		up, err := v.rename(link{olddir, oldname}, link{newdir, newname}, flags)
		if up == nil {
			return err
		}
		err = v.copyUp(up, -1)
		v.Forget(up, 1)
		if err != nil {
			return err
		}
	}
}

// rename renames, or returns a file that must be copied up before, with a reference.
func (v *View) rename(from, to link, flags uint32) (up *Node, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	op := &renameOp{from: from, to: to, exchange: flags&unix.RENAME_EXCHANGE != 0}
	if op.src, err = v.child(from.dir, from.name); err != nil {
		return nil, err
	}
	defer v.tidy(op.src)
	op.dst, err = v.child(to.dir, to.name)
	if err != nil && err != unix.ENOENT {
		return nil, err
	}
	if op.dst != nil {
		defer v.tidy(op.dst)
	} else if err := checkName(to.name); err != nil {
		return nil, err
	} else if err := v.checkDir(to.dir); err != nil {
		return nil, err
	}
	if err := v.writable(); err != nil {
		return nil, err
	}
	if err := v.account.take(0, 0); err != nil {
		return nil, err // what is remembered of renames grows, too
	}
	if flags&unix.RENAME_NOREPLACE != 0 && op.dst != nil {
		return nil, unix.EEXIST
	}
	if op.src == op.dst {
		return nil, nil // two names of one file, or twice the same
	}
	if err := v.checkRename(op); err != nil {
		return nil, err
	}
	for _, n := range op.moved() {
		err := v.bringUp(n)
		if err == errCopyUp {
			v.take(n)
			return n, nil
		}
		if err != nil {
			return nil, err
		}
	}
	for _, dir := range []*Node{from.dir, to.dir} {
		if err := v.copyUpDir(dir); err != nil {
			return nil, err
		}
	}
	return nil, v.doRename(op)
}

// moved returns the nodes that get another name.
func (op *renameOp) moved() []*Node {
	if op.exchange {
		return []*Node{op.src, op.dst}
	}
	return []*Node{op.src}
}

func (v *View) checkRename(op *renameOp) error {
	src, dst := op.src, op.dst
	switch {
	case op.exchange && dst == nil:
		return unix.ENOENT
	case src.isDir() && op.to.dir.below(src):
		return unix.EINVAL
	case dst == nil:
		return nil
	case dst.isDir() && op.from.dir.below(dst):
		if op.exchange {
			return unix.EINVAL
		}
		return unix.ENOTEMPTY
	case op.exchange:
		return nil
	case src.isDir() && !dst.isDir():
		return unix.ENOTDIR
	case !src.isDir() && dst.isDir():
		return unix.EISDIR
	case dst.isDir():
		return v.checkEmpty(dst)
	}
	return nil
}

func (v *View) doRename(op *renameOp) error {
	coverFrom, err := v.covers(op.from.dir, op.from.name)
	if err != nil {
		return err
	}
	coverTo, err := v.covers(op.to.dir, op.to.name)
	if err != nil {
		return err
	}
	if err := v.fixLower(op.src, op.from, coverTo); err != nil {
		return err
	}
	if op.exchange {
		if err := v.fixLower(op.dst, op.to, coverFrom); err != nil {
			return err
		}
	} else if op.dst != nil && len(op.dst.links) == 1 {
		if err := v.orphaned(op.dst); err != nil {
			return err
		}
	}
	oldPath, newPath := op.from.dir.at(op.from.name), op.to.dir.at(op.to.name)
	if err := v.renameNative(op, coverFrom); err != nil {
		return err
	}
	v.renamed(op, coverFrom)
	return v.announce(op, oldPath, newPath)
}

// fixLower records in a directory what it is merged with, before it leaves the
// place that told. covered says that something else is below where it goes.
func (v *View) fixLower(n *Node, at link, covered bool) error {
	if !n.isDir() || n.lower == nil && !covered {
		return nil
	}
	d, err := v.dir(at.dir)
	if err != nil {
		return err
	}
	defer d.release()
	if n.lower == nil {
		return setOpaque(d.fd, at.name)
	}
	return unix.Lsetxattr(procPath(d.fd, at.name), xattrOrigin, []byte(n.lower.origin()), 0)
}

// renameNative does the native part. Only its first step can fail.
func (v *View) renameNative(op *renameOp, cover bool) error {
	from, err := v.dir(op.from.dir)
	if err != nil {
		return err
	}
	defer from.release()
	to, err := v.dir(op.to.dir)
	if err != nil {
		return err
	}
	defer to.release()
	old, there := op.to.dir.names[op.to.name]
	exchange := op.exchange || there && (op.src.isDir() || old.typ == unix.S_IFDIR)
	if exchange {
		err := unix.Renameat2(from.fd, op.from.name, to.fd, op.to.name, unix.RENAME_EXCHANGE)
		if err != nil || op.exchange {
			return err
		}
		// What was in the way is at the old name now: a whiteout or an empty directory.
		switch {
		case !cover:
			return v.eraseNative(from.fd, op.from.name, old.typ)
		case !old.whiteout:
			return v.replaceByWhiteout(from.fd, op.from.name, old.typ)
		}
		return nil
	}
	if !cover {
		return unix.Renameat(from.fd, op.from.name, to.fd, op.to.name)
	}
	err = unix.Renameat2(from.fd, op.from.name, to.fd, op.to.name, unix.RENAME_WHITEOUT)
	if err != unix.EINVAL && err != unix.EPERM {
		return err
	}
	// Not all file systems can leave a whiteout behind.
	if err := unix.Renameat(from.fd, op.from.name, to.fd, op.to.name); err != nil {
		return err
	}
	return makeWhiteout(from.fd, op.from.name)
}

// renamed changes the nodes accordingly.
func (v *View) renamed(op *renameOp, cover bool) {
	from, to := op.from, op.to
	src := from.dir.names[from.name]
	if op.dst != nil && !op.exchange {
		v.lost(op.dst, to.dir, to.name)
	}
	op.src.detach(from.dir, from.name)
	switch {
	case op.exchange:
		op.dst.detach(to.dir, to.name)
		op.dst.attach(from.dir, from.name)
		from.dir.names[from.name] = to.dir.names[to.name]
	case cover:
		from.dir.names[from.name] = upperName{typ: unix.S_IFCHR, whiteout: true}
		v.account.grow(0, 1)
	default:
		delete(from.dir.names, from.name)
	}
	op.src.attach(to.dir, to.name)
	to.dir.names[to.name] = src
}

// announce follows up on a rename: what was gained moves along, the generations
// change, and the owner of the view hears of it.
func (v *View) announce(op *renameOp, oldPath, newPath string) error {
	v.gens.bumpBelow(oldPath)
	v.gens.bumpBelow(newPath)
	v.queue.emit(Event{Op: Renamed, Path: newPath, OldPath: oldPath, IsDir: op.src.isDir()})
	if op.exchange {
		v.queue.emit(Event{Op: Renamed, Path: oldPath, OldPath: newPath, IsDir: op.dst.isDir()})
	}
	return v.gained.follow(op.relocations(oldPath, newPath)...)
}

// relocations returns the directories that the rename has moved or removed.
func (op *renameOp) relocations(oldPath, newPath string) []relocation {
	var moves []relocation
	if op.dst != nil && op.dst.isDir() {
		to := ""
		if op.exchange {
			to = oldPath
		}
		moves = append(moves, relocation{newPath, to})
	}
	if op.src.isDir() {
		moves = append(moves, relocation{oldPath, newPath})
	}
	return moves
}
