package cow

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"condafs/conda"
	"condafs/fault"
)

// ChangeOp says what a view did to a path.
type ChangeOp uint8

const (
	// Added: nothing is below at the path.
	Added ChangeOp = iota + 1
	// Changed: something is below at the path, and shows differently.
	Changed
	// Deleted: what is below at the path doesn't show.
	Deleted
)

// Change is a difference between what a view shows and what is below its overlay.
type Change struct {
	Path  string
	Op    ChangeOp
	IsDir bool // Deleted: it was one
}

// Changes lists what the overlay has, sorted by path. A directory that merely
// holds units (see conda.Dir) is listed if it is new, and then what is in it; of
// any other the path stands for all of it.
func (v *View) Changes() ([]Change, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.changes()
}

func (v *View) changes() ([]Change, error) {
	if v.upperDir == "" || v.closed {
		return nil, nil
	}
	var list []Change
	if err := v.changesIn(v.root, "", &list); err != nil {
		return nil, fault.New("list changes", "", fault.Other, err)
	}
	slices.SortFunc(list, func(a, b Change) int { return strings.Compare(a.Path, b.Path) })
	return list, nil
}

func (v *View) changesIn(dir *Node, path string, list *[]Change) error {
	if dir.names == nil {
		if err := v.loadNames(dir); err != nil {
			return err
		}
	}
	dir.refs.Add(1) // it stays while its children come and go
	defer dir.refs.Add(-1)
	for name, u := range dir.names {
		if err := v.changeAt(dir, name, u, join(path, name), list); err != nil {
			return err
		}
	}
	return nil
}

func (v *View) changeAt(dir *Node, name string, u upperName, path string, list *[]Change) error {
	obj, err := v.under(dir, name)
	if err != nil {
		return err
	}
	covered, err := v.covers(dir, name)
	if err != nil {
		return err
	}
	op := Changed
	if !covered {
		op = Added
	}
	switch {
	case u.whiteout:
		if covered {
			*list = append(*list, Change{path, Deleted, obj == nil || obj.isDir()})
		}
		return nil
	case u.typ != unix.S_IFDIR:
		*list = append(*list, Change{path, op, false})
		return nil
	}
	n, err := v.child(dir, name)
	if err != nil {
		return err
	}
	defer v.tidy(n)
	if conda.Classify(path, true).Kind == conda.Dir {
		if op == Added {
			*list = append(*list, Change{path, Added, true})
		}
		return v.changesIn(n, path, list)
	}
	if obj != nil {
		same, err := v.unchanged(n, obj)
		if err != nil || same {
			return err
		}
	}
	*list = append(*list, Change{path, op, true})
	return nil
}

// unchanged reports whether a directory in the overlay shows just what is below.
func (v *View) unchanged(n *Node, obj *object) (bool, error) {
	if n.lower == nil || n.lower.ino != obj.ino {
		return false, nil // opaque, or from elsewhere
	}
	a, err := v.attr(n)
	if err != nil || a.Mode&modeBits != obj.Mode&modeBits {
		return false, err
	}
	if n.names == nil {
		if err := v.loadNames(n); err != nil {
			return false, err
		}
	}
	for name, u := range n.names {
		if u.typ != unix.S_IFDIR {
			return false, nil
		}
		o, err := v.under(n, name)
		if err != nil || o == nil {
			return false, err
		}
		c, err := v.child(n, name)
		if err != nil {
			return false, err
		}
		n.refs.Add(1)
		same, err := v.unchanged(c, o)
		v.tidy(c)
		n.refs.Add(-1)
		if err != nil || !same {
			return false, err
		}
	}
	return true, nil
}

// Clean reports whether the view shows just what is below its overlay, and
// nobody is about to change that.
func (v *View) Clean() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.writers("") > 0 {
		return false
	}
	list, err := v.changes()
	return err == nil && len(list) == 0
}
