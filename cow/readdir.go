package cow

import (
	"golang.org/x/sys/unix"

	"condafs/conda"
)

// OpenDir is called when a client opens a directory to list it, before it does. It may
// wait, until cancel is closed, for what others are about to publish. It reports true
// if names have come to be there that the client may not know of.
func (v *View) OpenDir(dir *Node, cancel <-chan struct{}) bool {
	if v.onListing == nil {
		return false
	}
	v.mu.RLock()
	path, ok := dir.path()
	v.mu.RUnlock()
	return ok && v.onListing(path, cancel)
}

// namesPerFile is how many names of a listing, which is kept while its directory is
// open, count like one open file.
const namesPerFile = 256

// KeepListing counts an open directory of which that many names are kept, in the place
// of before; -1 stands for one that is not open. To let go always works.
func (v *View) KeepListing(before, names int) error {
	count := func(names int) int64 {
		if names < 0 {
			return 0
		}
		return 1 + int64(names)/namesPerFile
	}
	switch more := count(names) - count(before); {
	case more > 0:
		return v.account.opened(more)
	case more < 0:
		v.account.closed(-more)
	}
	return nil
}

// Approach is called before a client makes a file, and may wait like OpenDir.
func (v *View) Approach(dir *Node, name string, cancel <-chan struct{}) {
	if v.onLocking == nil || name != conda.RattlerCacheLock {
		return
	}
	v.mu.RLock()
	path, ok := dir.path()
	v.mu.RUnlock()
	if ok {
		v.onLocking(join(path, name), cancel)
	}
}

// has reports whether the overlay has a name in a directory.
func (v *View) has(dir, name string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	n, err := v.walk(dir)
	if err != nil {
		return false
	}
	defer v.tidy(n)
	if !n.upper || n.names == nil && v.loadNames(n) != nil {
		return false
	}
	u, ok := n.names[name]
	return ok && !u.whiteout
}

// ReadDir lists a directory, without "." and "..", in no particular order.
func (v *View) ReadDir(dir *Node) ([]Dirent, error) {
	list, err := v.readDirShared(dir)
	if err != errExclusive {
		return list, err
	}
	if err := v.ensureNames(dir); err != nil {
		return nil, err
	}
	return v.ReadDir(dir)
}

// ensureNames reads what the overlay has in a directory, unless that has been done, or the directory is gone, by now.
func (v *View) ensureNames(dir *Node) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.checkDir(dir); err != nil || !dir.upper || dir.names != nil {
		return nil // ReadDir tells
	}
	return v.loadNames(dir)
}

func (v *View) readDirShared(dir *Node) ([]Dirent, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	err := v.checkDir(dir)
	switch {
	case err == unix.ENOENT:
		return nil, nil // removed, and somebody is still in it
	case err != nil:
		return nil, err
	case dir.upper && dir.names == nil:
		return nil, errExclusive
	}
	return v.list(dir)
}

// list merges what the overlay has with what is below. v.mu is held, and the
// names of the directory are loaded.
func (v *View) list(dir *Node) ([]Dirent, error) {
	list := make([]Dirent, 0, len(dir.names))
	add := func(name string, ino uint64, typ uint32) {
		if c := dir.children[name]; c != nil {
			ino = c.ino
		}
		list = append(list, Dirent{Name: name, Ino: ino, Type: typ})
	}
	for name, e := range dir.names {
		if !e.whiteout {
			add(name, e.ino, e.typ)
		}
	}
	err := v.eachUnder(dir, func(o *object) bool {
		if _, hidden := dir.names[o.Name]; !hidden {
			add(o.Name, o.ino, o.typ())
		}
		return true
	})
	return list, err
}
