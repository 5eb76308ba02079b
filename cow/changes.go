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
	// Lane says that a client is unpacking it past the view.
	Lane bool
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
	l := changeList{room: room{most: v.pathBytes}}
	if err := v.changesIn(v.root, v.root.lower, "", &l); err != nil {
		return nil, fault.New("list changes", "", fault.Other, err)
	}
	list := l.list
	slices.SortFunc(list, func(a, b Change) int { return strings.Compare(a.Path, b.Path) })
	return list, nil
}

// changeList collects changes.
type changeList struct {
	list []Change
	room room
}

func (l *changeList) add(c Change) error {
	l.list = append(l.list, c)
	return l.room.take(c.Path)
}

// changesIn compares a directory with base, what is below at its path, or nil. It
// looks at what the overlay has only, unless the directory shows something else
// than base: because it was made anew, or renamed.
func (v *View) changesIn(dir *Node, base *object, path string, list *changeList) error {
	if dir.upper && dir.names == nil {
		if err := v.loadNames(dir); err != nil {
			return err
		}
	}
	defer dir.pin()()
	if dir.lower != nil && base != nil && dir.lower.ino == base.ino {
		for name := range dir.names {
			if err := v.changeAt(dir, base, name, path, list); err != nil {
				return err
			}
		}
		return nil
	}
	names, err := v.allNames(dir, base, path)
	if err != nil {
		return err
	}
	for name := range names {
		if err := v.changeAt(dir, base, name, path, list); err != nil {
			return err
		}
	}
	return nil
}

// allNames returns the names that a directory shows, and those that are in base or were
// gained at its path.
func (v *View) allNames(dir *Node, base *object, path string) (map[string]bool, error) {
	names := make(map[string]bool)
	shown, err := v.list(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range shown {
		names[e.Name] = true
	}
	for name := range dir.names {
		names[name] = true
	}
	for name := range v.gained.dirs[path] {
		names[name] = true
	}
	if base == nil {
		return names, nil
	}
	err = v.lower.each(base, func(o *object) bool {
		names[o.Name] = true
		return true
	})
	return names, err
}

func (v *View) changeAt(dir *Node, base *object, name, dirPath string, list *changeList) error {
	path := join(dirPath, name)
	obj := v.gained.get(dirPath, name)
	if obj == nil && base != nil {
		var err error
		if obj, err = v.lower.child(base, name); err != nil {
			return err
		}
	}
	op := Changed
	if obj == nil && !v.gained.has(path) {
		op = Added
	}
	if u, ok := dir.names[name]; ok && !u.whiteout && u.typ != unix.S_IFDIR {
		lane, err := v.isLane(dir, name, u)
		if err != nil {
			return err
		}
		return list.add(Change{Path: path, Op: op, IsDir: lane, Lane: lane})
	}
	n, err := v.child(dir, name)
	if err == unix.ENOENT {
		if op != Added {
			return list.add(Change{Path: path, Op: Deleted, IsDir: v.wasDir(path, obj)})
		}
		return nil
	}
	if err != nil {
		return err
	}
	defer v.tidy(n)
	if !n.isDir() {
		if obj == nil || !n.lower.same(obj) {
			return list.add(Change{Path: path, Op: op})
		}
		return nil
	}
	holdsUnits := conda.Classify(path, true).Kind == conda.Dir
	if obj != nil && !obj.isDir() {
		obj = nil
	} else if holdsUnits && op == Changed {
		return v.changesIn(n, obj, path, list)
	}
	if obj != nil {
		same, err := v.unchanged(n, obj)
		if err != nil || same {
			return err
		}
	}
	if err := list.add(Change{Path: path, Op: op, IsDir: true}); err != nil {
		return err
	}
	if holdsUnits {
		return v.changesIn(n, obj, path, list)
	}
	return nil
}

// wasDir says whether what was removed was a directory: obj, or what was gained there.
func (v *View) wasDir(path string, obj *object) bool {
	if obj != nil {
		return obj.isDir()
	}
	if g := v.gained.was(path); g != nil {
		return g.obj.isDir()
	}
	return true // only what was in it is known
}

// unchanged reports whether a directory in the overlay shows just what is below.
func (v *View) unchanged(n *Node, obj *object) (bool, error) {
	if n.lower == nil || n.lower.ino != obj.ino {
		return false, nil // made anew, or from elsewhere
	}
	if !n.upper {
		return true, nil
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
		unpin := n.pin()
		same, err := v.unchanged(c, o)
		v.tidy(c)
		unpin()
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
