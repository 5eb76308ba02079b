package lossyfs

import (
	"maps"
	"math/rand/v2"
	"slices"
)

// AfterPowerLoss returns the file system that a power failure at this moment leaves, as
// rng decides. The power of f is off afterwards.
func (f *FS) AfterPowerLoss(rng *rand.Rand) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.off = true
	if f.model == Journaled {
		for _, c := range f.changes[:rng.IntN(len(f.changes)+1)] {
			c.apply()
		}
	} else {
		keep := []float64{0, 0.1, 0.5, 0.9, 1}[rng.IntN(5)]
		for _, c := range f.changes {
			if rng.Float64() < keep {
				c.apply()
			}
		}
	}
	f.changes = nil
	after := empty(f.model)
	s := survivors{f: f, after: after, rng: rng, met: make(map[*inode]*inode)}
	after.root = s.take(f.root)
	after.root.up = after.root
	return after
}

// survivors builds the file system of what is on disk.
type survivors struct {
	f, after *FS
	rng      *rand.Rand
	met      map[*inode]*inode
}

// take copies an inode and all that is below it.
func (s *survivors) take(old *inode) *inode {
	if n := s.met[old]; n != nil {
		return n // another name of it
	}
	s.after.last++
	n := &inode{id: s.after.last, attr: old.disk.attr, data: s.contents(old)}
	s.met[old] = n
	s.after.nodes[n.id] = n
	n.disk = image{attr: n.attr, data: content{size: n.data.size, pages: maps.Clone(n.data.pages)}}
	if !n.isDir() {
		return n
	}
	n.names = make(map[string]*inode)
	for _, name := range slices.Sorted(maps.Keys(old.disk.names)) { // in order, so that a seed means something
		below := old.disk.names[name]
		if below.isDir() && s.met[below] != nil {
			continue // it has one name: another move of it has survived
		}
		c := s.take(below)
		c.nlink++
		c.up, c.name = n, name
		n.names[name] = c
	}
	n.disk.names = maps.Clone(n.names)
	return n
}

// contents chooses what the disk holds of a file.
func (s *survivors) contents(n *inode) content {
	c := content{size: n.disk.data.size, pages: maps.Clone(n.disk.data.pages)}
	const nothing, everything = 0, 1
	mode := s.rng.IntN(4)
	if mode == nothing {
		return c
	}
	if len(n.fresh.sizes) > 0 {
		sizes := append([]int64{n.disk.data.size}, n.fresh.sizes...)
		c.size = sizes[s.rng.IntN(len(sizes))]
		if mode == everything {
			c.size = n.data.size
		}
	}
	for _, i := range slices.Sorted(maps.Keys(n.fresh.pages)) {
		versions := append([]*page{n.disk.data.pages[i]}, n.fresh.pages[i]...)
		p := versions[s.rng.IntN(len(versions))]
		grown := s.f.model == Journaled && c.size > n.disk.data.size && (i+1)*pageSize > n.disk.data.size
		if mode == everything || grown {
			p = versions[len(versions)-1]
		} else if s.rng.IntN(8) == 0 {
			p = s.torn(p, versions[s.rng.IntN(len(versions))])
		}
		c.put(i, p)
	}
	// What is behind the end is zeros, should the file grow again.
	for i, p := range c.pages {
		if end := c.size - i*pageSize; end <= 0 {
			delete(c.pages, i)
		} else if end < pageSize {
			cut := *p
			clear(cut[end:])
			c.pages[i] = &cut
		}
	}
	return c
}

// torn returns a page with sectors of both.
func (s *survivors) torn(a, b *page) *page {
	if a == nil {
		a = &zeros
	}
	if b == nil {
		b = &zeros
	}
	p := *a
	for at := 0; at < pageSize; at += sectorSize {
		if s.rng.IntN(2) == 0 {
			copy(p[at:at+sectorSize], b[at:])
		}
	}
	return &p
}
