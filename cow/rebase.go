package cow

import (
	"errors"

	"golang.org/x/sys/unix"

	"condafs/fault"
	"condafs/index"
)

// Rebase shows another snapshot from now on. Only a view that is clean, or
// read-only, can be rebased; else it fails with fault.Busy. Nodes of what is the
// same in both snapshots go on; those of what isn't lose their names. Handles that
// are open go on.
//
// The former snapshot can be released afterwards if no handle is open.
func (v *View) Rebase(snap *index.Snapshot) error {
	p, ok := v.lower.src.(pinned)
	if !ok {
		return fault.New("rebase view", "", fault.Unsupported, nil)
	}
	return v.rebase(pinned{snap, p.store})
}

func (v *View) rebase(src source) error {
	defer v.queue.flush()
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return fault.New("rebase view", "", fault.Stale, unix.ESTALE)
	}
	if v.upperDir != "" {
		if err := v.sweep(); err != nil {
			return fault.New("rebase view", v.upperDir, fault.Other, err)
		}
	}
	next := lower{src: src, spaces: v.lower.spaces}
	if err := v.adoptLower(v.root, next.root(), &next); err != nil {
		return fault.New("rebase view", "", fault.Other, err)
	}
	v.lower = next
	if err := v.gained.reset(); err != nil {
		return fault.New("rebase view", "", fault.Other, err)
	}
	return nil
}

// sweep empties the overlay of a clean view: nothing but copies of directories
// can be in it.
func (v *View) sweep() error {
	if v.writers("") > 0 {
		return fault.New("", "", fault.Busy, errors.New("a file is open for writing"))
	}
	list, err := v.changes()
	if err != nil {
		return err
	}
	if len(list) > 0 {
		return fault.New("", "", fault.Busy, errors.New("it has changes"))
	}
	for name := range v.root.names {
		if err := v.purge(v.root, name); err != nil {
			return err
		}
		if n := v.root.children[name]; n != nil {
			v.leaveOverlay(n)
		}
	}
	return nil
}

// leaveOverlay notes that the overlay's copy of a directory, and of those in it,
// has gone.
func (v *View) leaveOverlay(n *Node) {
	for _, c := range n.children {
		v.leaveOverlay(c)
	}
	if n.upper {
		n.upper, n.names, n.mark = false, nil, mark{}
		v.dirs.drop(n)
	}
}

// adoptLower compares what a live directory showed with what it is to show.
func (v *View) adoptLower(n *Node, now *object, next *lower) error {
	before, err := v.shownIn(n)
	if err != nil {
		return err
	}
	n.lower = now
	after := make(map[string]*object)
	err = next.each(now, func(o *object) bool {
		after[o.Name] = o
		return true
	})
	if err != nil {
		return err
	}
	for name := range after {
		if before[name] == nil {
			v.invalidate(n, name)
		}
	}
	for name, o := range before {
		c := n.children[name]
		switch p := after[name]; {
		case p != nil && o.same(p):
			if c == nil {
				continue
			}
			if o.isDir() && o.pkg == nil {
				if err := v.adoptLower(c, p, next); err != nil {
					return err
				}
			}
		default:
			v.invalidate(n, name)
			if c != nil {
				if err := v.uproot(c); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// shownIn lists what a directory that the overlay has nothing of shows.
func (v *View) shownIn(n *Node) (map[string]*object, error) {
	m := make(map[string]*object)
	err := v.eachUnder(n, func(o *object) bool {
		m[o.Name] = o
		return true
	})
	return m, err
}
