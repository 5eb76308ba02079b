package cow

import (
	"sync"

	"golang.org/x/sys/unix"
)

// maxDirs bounds the descriptors that a view keeps for directories of its overlay.
const maxDirs = 64

// dirCache keeps descriptors of native directories, so that an operation is one
// *at call whatever the depth, and no path is ever too long. Callers hold the
// view's lock, so that names don't move meanwhile; the cache has its own for the
// sake of readers.
type dirCache struct {
	mu    sync.Mutex
	slots map[*Node]*dirSlot
	clock uint64
}

type dirSlot struct {
	fd      int
	pins    int
	used    uint64
	dropped bool
}

// dirRef is a descriptor in use. It is closed no sooner than released.
type dirRef struct {
	fd   int
	slot *dirSlot
	c    *dirCache
}

func (r dirRef) release() {
	if r.slot == nil {
		return
	}
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	r.slot.pins--
	if r.slot.dropped && r.slot.pins == 0 {
		unix.Close(r.slot.fd)
	}
}

// dir returns the descriptor of a directory that is in the overlay. v.mu is held.
func (v *View) dir(n *Node) (dirRef, error) {
	if n == v.root {
		return dirRef{fd: v.rootfd}, nil
	}
	v.dirs.mu.Lock()
	defer v.dirs.mu.Unlock()
	return v.dirs.get(v, n)
}

func (c *dirCache) get(v *View, n *Node) (dirRef, error) {
	if n == v.root {
		return dirRef{fd: v.rootfd}, nil
	}
	c.clock++
	s := c.slots[n]
	if s == nil {
		if len(n.links) == 0 {
			return dirRef{}, unix.ENOENT
		}
		l := n.links[0]
		parent, err := c.get(v, l.dir)
		if err != nil {
			return dirRef{}, err
		}
		if parent.slot != nil {
			parent.slot.used = c.clock
			parent.slot.pins--
		}
		fd, err := openat(parent.fd, l.name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
		if err != nil {
			return dirRef{}, err
		}
		s = &dirSlot{fd: fd}
		if c.slots == nil {
			c.slots = make(map[*Node]*dirSlot)
		}
		c.evict()
		c.slots[n] = s
	}
	s.used = c.clock
	s.pins++
	return dirRef{s.fd, s, c}, nil
}

func (c *dirCache) evict() {
	for len(c.slots) >= maxDirs {
		var oldest *Node
		for n, s := range c.slots {
			if s.pins == 0 && (oldest == nil || s.used < c.slots[oldest].used) {
				oldest = n
			}
		}
		if oldest == nil {
			return // all in use; there are only so many operations at once
		}
		unix.Close(c.slots[oldest].fd)
		delete(c.slots, oldest)
	}
}

// drop forgets the descriptor of a directory that is gone.
func (c *dirCache) drop(n *Node) {
	if !n.isDir() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.slots[n]
	if s == nil {
		return
	}
	delete(c.slots, n)
	if s.pins == 0 {
		unix.Close(s.fd)
		return
	}
	s.dropped = true
}

func (c *dirCache) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n, s := range c.slots {
		delete(c.slots, n)
		if s.pins == 0 {
			unix.Close(s.fd)
		} else {
			s.dropped = true
		}
	}
}
