package cow

import (
	"io"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"condafs/internal/failpoint"
)

// Handle is an open file. Its contents don't change places: a file that is
// copied up or removed stays what it was for handles from before. It is safe for
// concurrent use.
type Handle struct {
	n        *Node
	f        *os.File
	writable bool
	lower    *object // what it shows, if that comes from below; guarded by view.mu

	passthrough atomic.Bool
	released    atomic.Bool
}

// File returns the native file: a blob, or a file of the overlay. It is open
// until Release.
func (h *Handle) File() *os.File { return h.f }

// Writable reports whether it was opened for writing.
func (h *Handle) Writable() bool { return h.writable }

// Immutable reports whether the native file is a blob: its contents never change.
func (h *Handle) Immutable() bool {
	h.n.view.mu.RLock()
	defer h.n.view.mu.RUnlock()
	return h.lower != nil
}

// Passthrough reports whether the kernel may read and write the native file
// itself. When a node is about to get another native file while such a handle is
// open, Open answers ESTALE and gives the name to a new node. What the kernel writes
// nobody counts, so where a user's bytes are bounded it may read blobs only.
func (h *Handle) Passthrough() bool { return !h.n.view.account.counts() || h.Immutable() }

// SetPassthrough notes that the kernel reads and writes the native file itself,
// or no longer does. It must be called before the node is opened again.
func (h *Handle) SetPassthrough(on bool) { h.passthrough.Store(on) }

// ReadAt reads as io.ReaderAt does.
func (h *Handle) ReadAt(p []byte, off int64) (int, error) { return h.f.ReadAt(p, off) }

// WriteAt writes as io.WriterAt does. O_APPEND means nothing here: the kernel says
// by the offset where an append goes, and what a mapping of the same descriptor has
// written goes elsewhere.
func (h *Handle) WriteAt(p []byte, off int64) (int, error) {
	if err := h.changeable(); err != nil {
		return 0, err
	}
	failpoint.Hit(failpoint.FileWrite, h.n.view.upperDir)
	size, err := h.growth(off, int64(len(p)))
	if err != nil {
		return 0, err
	}
	if err := h.n.view.account.take(size, 0); err != nil {
		return 0, err
	}
	defer h.n.view.account.made(size, 0)
	return h.f.WriteAt(p, off)
}

// growth returns by how much writing makes the file longer, where somebody counts.
func (h *Handle) growth(off, length int64) (int64, error) {
	if !h.n.view.account.counts() {
		return 0, nil
	}
	var st unix.Stat_t
	err := unix.Fstat(int(h.f.Fd()), &st)
	return max(0, off+length-st.Size), err
}

func (h *Handle) changeable() error {
	switch {
	case !h.writable:
		return unix.EBADF
	case h.n.view.retired.Load():
		return unix.ESTALE
	}
	return nil
}

// Sync makes the contents durable.
func (h *Handle) Sync() error { return h.f.Sync() }

// Allocate is fallocate(2).
func (h *Handle) Allocate(mode uint32, off, length int64) error {
	if err := h.changeable(); err != nil {
		return err
	}
	size, err := h.growth(off, length)
	if err != nil {
		return err
	}
	if err := h.n.view.account.take(size, 0); err != nil {
		return err
	}
	defer h.n.view.account.made(size, 0)
	for {
		err := unix.Fallocate(int(h.f.Fd()), mode, off, length)
		if err != unix.EINTR {
			return err
		}
	}
}

// Seek finds data or holes: whence is unix.SEEK_DATA or unix.SEEK_HOLE. The
// handle has no position of its own.
func (h *Handle) Seek(off int64, whence int) (int64, error) {
	if whence != unix.SEEK_DATA && whence != unix.SEEK_HOLE {
		return 0, unix.EINVAL
	}
	return unix.Seek(int(h.f.Fd()), off, whence)
}

// Release closes the handle. Later calls do nothing.
func (h *Handle) Release() error {
	if h.released.Swap(true) {
		return nil
	}
	v := h.n.view
	failpoint.Hit(failpoint.FileClose, v.upperDir)
	defer v.queue.flush()
	v.unregister(h)
	err := h.f.Close()
	failpoint.Hit(failpoint.FileClosed, v.upperDir)
	return err
}

var (
	_ io.ReaderAt = (*Handle)(nil)
	_ io.WriterAt = (*Handle)(nil)
)

// register makes an open native file a handle of n. v.mu is held.
func (v *View) register(n *Node, f *os.File, flags int, obj *object) *Handle {
	h := &Handle{
		n:        n,
		f:        f,
		writable: flags&unix.O_ACCMODE != unix.O_RDONLY,
		lower:    obj,
	}
	v.hmu.Lock()
	defer v.hmu.Unlock()
	n.handles = append(n.handles, h)
	v.handles[h] = struct{}{}
	return h
}

func (v *View) unregister(h *Handle) {
	v.mu.Lock()
	defer v.mu.Unlock()
	n := h.n
	writers := 0
	v.hmu.Lock()
	delete(v.handles, h)
	for i, o := range n.handles {
		if o == h {
			last := len(n.handles) - 1
			n.handles[i] = n.handles[last]
			n.handles[last] = nil
			n.handles = n.handles[:last]
			break
		}
	}
	for _, o := range n.handles {
		if o.writable {
			writers++
		}
	}
	v.hmu.Unlock()
	if len(n.links) == 0 && h.lower == nil {
		v.outlive(n, h)
	}
	v.account.closed(1)
	if h.writable {
		v.touched(n)
		if path, ok := n.path(); ok && writers == 0 {
			v.queue.emit(Event{Op: Closed, Path: path})
		}
	}
	if v.OpenHandles() == 0 {
		v.queue.emit(Event{Op: Idle})
	}
	v.tidy(n)
}

// OpenHandles counts the handles that have not been released.
func (v *View) OpenHandles() int {
	v.hmu.Lock()
	defer v.hmu.Unlock()
	return len(v.handles)
}

// Writers counts the writable handles at a path and below. A file that has names
// which nobody has looked up counts everywhere.
func (v *View) Writers(path string) int {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.writers(path)
}

func (v *View) writers(path string) int {
	var nodes []*Node
	v.hmu.Lock()
	for h := range v.handles {
		if h.writable {
			nodes = append(nodes, h.n)
		}
	}
	v.hmu.Unlock()
	count := 0
	for _, n := range nodes {
		if n.reachable(path) || v.hasOtherNames(n) {
			count++
		}
	}
	return count
}

// reachable reports whether one of the names of a node is at a path or below.
func (n *Node) reachable(path string) bool {
	for _, l := range n.links {
		dir, ok := l.dir.path()
		if ok && within(join(dir, l.name), path) {
			return true
		}
	}
	return false
}

// hasOtherNames reports whether a file has more names than the view has met. v.mu
// is held.
func (v *View) hasOtherNames(n *Node) bool {
	if n.linked == 0 {
		return false
	}
	var st unix.Stat_t
	if err := v.stat(n, &st); err != nil {
		return err != errNameless
	}
	return int(st.Nlink) > len(n.links)
}

// within reports whether a path is top or below it; everything is below "".
func within(path, top string) bool {
	return top == "" || path == top || len(path) > len(top) && path[len(top)] == '/' && path[:len(top)] == top
}
