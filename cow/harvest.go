package cow

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"condafs/beneath"
	"condafs/fault"
	"condafs/index"
)

// HarvestEntry is one object of a unit, as its view shows it.
type HarvestEntry struct {
	Path            string // relative to what was harvested; "" is that itself
	index.TreeEntry        // Name is empty; Kind is 0 for a special file; Digest is known only with Lower
	Lower           bool   // comes from below, unchanged
	// Open opens the content of a regular file.
	Open func() (*os.File, error)
}

// Harvest is the content of a path at one moment: a directory before what is in
// it, names in order.
type Harvest struct {
	Gen     uint64 // the generation at that moment
	Entries []HarvestEntry
}

// Harvest lists what the view shows at a path. No lock is held afterwards: what
// is read of it counts only if Seal, or Generation and Writers, find that
// nothing has changed meanwhile.
func (v *View) Harvest(path string) (*Harvest, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	n, err := v.walk(path)
	if err != nil {
		return nil, fault.New("harvest", path, fault.Other, err)
	}
	h := &Harvest{Gen: v.gens.get(path)}
	room := room{most: v.pathBytes}
	err = v.visit(n, "", func(rel string, n *Node) error {
		if err := room.take(rel); err != nil {
			return err
		}
		e, err := v.harvestNode(path, rel, n)
		e.Path = rel
		h.Entries = append(h.Entries, e)
		return err
	})
	v.tidy(n)
	if err != nil {
		return nil, fault.New("harvest", path, fault.Other, err)
	}
	return h, nil
}

// room bounds the memory that a list of paths takes: in a session, a client can make
// more, longer and deeper ones than any package has.
type room struct {
	paths, bytes int64
	most         int64 // bytes
}

const (
	maxPaths     = 2 << 20
	maxPathBytes = 256 << 20
)

// errTooMuch says that there is no room for that many paths. No package has them.
var errTooMuch = fault.New("", "", fault.Corrupt, fmt.Errorf("more than %d paths or %d MiB of them", maxPaths, maxPathBytes>>20))

func (r *room) take(path string) error {
	r.paths++
	r.bytes += int64(len(path))
	if r.paths > maxPaths || r.bytes > r.most {
		return errTooMuch
	}
	return nil
}

// visit calls f for a node and everything below it. v.mu is held for writing.
func (v *View) visit(n *Node, rel string, f func(rel string, n *Node) error) error {
	if err := f(rel, n); err != nil || !n.isDir() {
		return err
	}
	if n.upper && n.names == nil {
		if err := v.loadNames(n); err != nil {
			return err
		}
	}
	list, err := v.list(n)
	if err != nil {
		return err
	}
	slices.SortFunc(list, func(a, b Dirent) int { return strings.Compare(a.Name, b.Name) })
	defer n.pin()()
	for _, e := range list {
		c, err := v.child(n, e.Name)
		if err != nil {
			return err
		}
		err = v.visit(c, join(rel, e.Name), f)
		v.tidy(c)
		if err != nil {
			return err
		}
	}
	return nil
}

func (v *View) harvestNode(path, rel string, n *Node) (HarvestEntry, error) {
	if n.liveLane() != nil {
		return HarvestEntry{}, fault.New("", "", fault.Busy, errUnpacking)
	}
	a, err := v.attr(n)
	if err != nil {
		return HarvestEntry{}, err
	}
	e := HarvestEntry{
		TreeEntry: index.TreeEntry{Mode: a.Mode & modeBits, Mtime: unix.TimespecToNsec(a.Mtime)},
		Lower:     !n.upper,
	}
	switch n.typ {
	case unix.S_IFDIR:
		e.Kind = index.KindDir
	case unix.S_IFLNK:
		e.Kind = index.KindSymlink
		if e.Link, err = v.readlink(n); err != nil {
			return e, err
		}
	case unix.S_IFREG:
		e.Kind, e.Size = index.KindFile, a.Size
		if n.upper {
			e.Open = func() (*os.File, error) { return v.openByPath(join(path, rel)) }
			break
		}
		obj := n.lower
		e.Digest = obj.Digest
		e.Open = func() (*os.File, error) { return v.lower.open(obj) }
	}
	return e, nil
}

// openByPath opens a file of the overlay. Clients can change the overlay at any
// time, so no link is followed, which could lead anywhere.
func (v *View) openByPath(path string) (*os.File, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if v.closed {
		return nil, unix.ESTALE
	}
	f, err := beneath.OpenFile(v.rootfd, path)
	if errors.Is(err, beneath.ErrNotRegular) {
		err = unix.ESTALE // replaced by something else
	}
	if err != nil {
		return nil, fault.New("open", path, fault.Other, err)
	}
	return f, nil
}
