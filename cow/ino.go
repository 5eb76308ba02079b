package cow

import "math/rand/v2"

// lendIno notes that something shows the inode number of a native file that it is not
// any more, or was not made as: what was sealed goes on showing its number, also when it
// has been copied up again. The disk may give the number to another file. v.mu is held for writing.
func (v *View) lendIno(ino uint64) {
	if ino&lowerIno != 0 {
		return // no file has such a one
	}
	if v.lent == nil {
		v.lent = make(map[uint64]struct{})
	}
	v.lent[ino] = struct{}{}
}

// ownIno returns the mark that gives a new native file a number that nothing else shows.
// v.mu is held.
func (v *View) ownIno(native uint64) mark {
	if _, lent := v.lent[native]; !lent {
		return mark{}
	}
	return mark{ino: treeIno(native^rand.Uint64(), 0)}
}
