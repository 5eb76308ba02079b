package lossyfs

const (
	pageSize   = 4096
	sectorSize = 512
)

// page is a part of a file. It is never changed once it is in a content.
type page [pageSize]byte

var zeros page

// content is the bytes of a file.
type content struct {
	size  int64
	pages map[int64]*page // where there is none, are zeros
}

func (c *content) page(i int64) *page {
	if p := c.pages[i]; p != nil {
		return p
	}
	return &zeros
}

func (c *content) put(i int64, p *page) {
	if p == nil {
		delete(c.pages, i)
		return
	}
	c.pages[i] = p
}

func (c *content) read(b []byte, off int64) int {
	if off >= c.size {
		return 0
	}
	b = b[:min(int64(len(b)), c.size-off)]
	for done := 0; done < len(b); {
		at := off + int64(done)
		done += copy(b[done:], c.page(at / pageSize)[at%pageSize:])
	}
	return len(b)
}

// history is what a file's contents were since the last sync: any of it may be what a
// disk holds.
type history struct {
	pages map[int64][]*page // the last few of each; nil for none
	sizes []int64
}

// remembered is how many versions of a page there can be.
const remembered = 4

// set changes a page.
func (f *FS) set(n *inode, i int64, p *page) {
	n.data.put(i, p)
	if n.fresh.pages == nil {
		n.fresh.pages = make(map[int64][]*page)
	}
	v := append(n.fresh.pages[i], p)
	n.fresh.pages[i] = v[max(0, len(v)-remembered):]
	f.dirty[n] = struct{}{}
}

func (f *FS) resize(n *inode, size int64) {
	if size != n.data.size {
		n.data.size = size
		n.fresh.sizes = append(n.fresh.sizes, size)
		f.dirty[n] = struct{}{}
	}
}

func (f *FS) write(n *inode, b []byte, off int64) {
	for done := 0; done < len(b); {
		at := off + int64(done)
		p := *n.data.page(at / pageSize)
		done += copy(p[at%pageSize:], b[done:])
		f.set(n, at/pageSize, &p)
	}
	f.resize(n, max(n.data.size, off+int64(len(b))))
}

// zero makes zeros of a range, and gives its whole pages back.
func (f *FS) zero(n *inode, from, to int64) {
	for i := range n.data.pages {
		start, end := max(from, i*pageSize), min(to, (i+1)*pageSize)
		switch {
		case start >= end:
		case end-start == pageSize:
			f.set(n, i, nil)
		default:
			p := *n.data.page(i)
			clear(p[start-i*pageSize : end-i*pageSize])
			f.set(n, i, &p)
		}
	}
}

func (f *FS) truncate(n *inode, size int64) {
	if size < n.data.size {
		f.zero(n, size, n.data.size)
	}
	f.resize(n, size)
}

// flush brings a file's contents to the disk.
func (f *FS) flush(n *inode) {
	for i := range n.fresh.pages {
		n.disk.data.put(i, n.data.pages[i])
	}
	n.disk.data.size = n.data.size
	n.disk.attr.mtime, n.disk.attr.ctime = n.attr.mtime, n.attr.ctime
	n.fresh = history{}
	delete(f.dirty, n)
}
