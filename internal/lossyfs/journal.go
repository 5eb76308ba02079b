package lossyfs

import (
	"slices"
	"time"
)

// change is one of names or attributes, which happens on disk whole or not at all.
type change struct {
	do   what
	node *inode
	dir  *inode // where node was, or is to be
	name string
	// Of a rename, the new place, and of an exchange what was there.
	toDir  *inode
	toName string
	other  *inode
	attr   attr
}

type what int

const (
	added what = iota
	removed
	renamed
	exchanged
	changed // attributes
)

// apply makes a change on disk. Earlier ones may be missing there.
func (c *change) apply() {
	take := func(dir *inode, name string, n *inode) {
		if dir.disk.names[name] == n {
			delete(dir.disk.names, name)
		}
	}
	switch c.do {
	case added:
		c.dir.disk.names[c.name] = c.node
	case removed:
		take(c.dir, c.name, c.node)
	case renamed:
		take(c.dir, c.name, c.node)
		c.toDir.disk.names[c.toName] = c.node
	case exchanged:
		c.dir.disk.names[c.name] = c.other
		c.toDir.disk.names[c.toName] = c.node
	case changed:
		c.node.disk.attr = c.attr
	}
}

// settle applies all pending changes for which which is true, in order, and forgets them.
func (f *FS) settle(which func(c *change) bool) {
	f.changes = slices.DeleteFunc(f.changes, func(c change) bool {
		if !which(&c) {
			return false
		}
		c.apply()
		return true
	})
}

// syncFile makes a file's contents and attributes durable, and its name.
func (f *FS) syncFile(n *inode) {
	f.settle(func(c *change) bool {
		return f.model == Journaled || c.node == n && (c.do == changed || c.do == added || c.do == renamed)
	})
	f.flush(n)
}

// syncDir makes the names in a directory durable.
func (f *FS) syncDir(dir *inode) {
	if f.model == Journaled {
		f.settle(func(*change) bool { return true })
		return
	}
	// A rename brings the other directory along, as far as the rename depends on it.
	dirs := map[*inode]bool{dir: true}
	wanted := make(map[int]bool)
	for i := len(f.changes) - 1; i >= 0; i-- {
		c := &f.changes[i]
		if c.do != changed && (dirs[c.dir] || dirs[c.toDir]) {
			wanted[i] = true
			dirs[c.dir] = true
			if c.toDir != nil {
				dirs[c.toDir] = true
			}
		}
	}
	at := -1
	f.settle(func(c *change) bool {
		at++
		return wanted[at] || c.do == changed && c.node == dir
	})
}

func (f *FS) syncAll() {
	f.settle(func(*change) bool { return true })
	for n := range f.dirty {
		f.flush(n)
	}
}

// put gives an inode a name.
func (f *FS) put(dir *inode, name string, n *inode) {
	dir.names[name] = n
	n.nlink++
	n.up, n.name = dir, name
	f.changes = append(f.changes, change{do: added, node: n, dir: dir, name: name})
	f.touch(dir)
}

// drop takes a name away.
func (f *FS) drop(dir *inode, name string) {
	n := dir.names[name]
	delete(dir.names, name)
	n.nlink--
	f.changes = append(f.changes, change{do: removed, node: n, dir: dir, name: name})
	f.touch(dir)
	f.reap(n)
}

// setAttr changes attributes.
func (f *FS) setAttr(n *inode, a attr) {
	a.ctime = time.Now().UnixNano()
	n.attr = a
	f.changes = append(f.changes, change{do: changed, node: n, attr: a})
}

// touch updates the times of something whose contents have changed. They go to the disk
// with the next explicit change only: nobody relies on more.
func (f *FS) touch(n *inode) {
	n.attr.mtime = time.Now().UnixNano()
	n.attr.ctime = n.attr.mtime
}

// reap forgets an inode that nobody can reach any more. What is on disk refers to it by
// itself.
func (f *FS) reap(n *inode) {
	if n.nlink <= 0 && n.lookups == 0 && n.opens == 0 && n != f.root {
		delete(f.nodes, n.id)
	}
}
