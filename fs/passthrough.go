package fs

import (
	"os"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"condafs/cow"
	"condafs/internal/failpoint"
)

// openState is how a node's contents are reached while it is open. The kernel
// has rules for this, and answers an open that breaks them with EIO:
//
//   - While any handle of a node is passthrough, all new ones must be, and to the
//     same backing file.
//   - While a handle uses the page cache, no new one may be passthrough.
//
// So the first open of a node chooses and the later ones follow, until all are
// released. The kernel lets go of a handle before it sends RELEASE, so counting
// here can only be on the safe side.
//
// The page cache has a rule of the same kind: it is one for all handles of a node,
// so pages that one of them has read must be good for the others. Hence each
// handle tells cow that the kernel depends on its native file. If the node is to
// get another one by then (a blob is opened for writing), cow gives the name to a
// new node and answers ESTALE, upon which the kernel looks the name up again.
type openState struct {
	mu       sync.Mutex // held across cow's Open and Release, too: see openFile
	handles  int
	backing  *backing // nil: page cache
	bypassed bool     // the page cache may hold what the native file does not
	cached   identity // the native file that the page cache was filled from, if any
}

// backing is a native file that the kernel reads and writes in our stead.
type backing struct {
	id   int32
	file identity // a node whose file has changed must not use it
}

// identity tells a native file from every other, also from one that gets its inode
// number later.
type identity struct {
	major, minor uint32
	ino          uint64
	born         unix.StatxTimestamp // zero where the file system doesn't know
}

// attach chooses how the kernel reaches the contents of h, a new handle of nd,
// and says so in out. nd.open.mu is held. An error means that the caller has to
// release h: ESTALE makes the kernel look the name up again and find another node.
func (f *fileSystem) attach(nd *node, h *cow.Handle, out *fuse.OpenOut) error {
	st := &nd.open
	switch {
	case st.handles == 0:
		st.backing = f.register(h)
	case st.backing != nil && !st.backing.is(h.File()):
		return syscall.ESTALE
	}
	st.handles++
	h.SetPassthrough(true)
	if st.backing != nil {
		st.bypassed = st.bypassed || h.Writable()
		out.OpenFlags |= fuse.FOPEN_PASSTHROUGH
		out.BackingID = st.backing.id
		return nil
	}
	// A blob that was damaged and has been mended is another file: what the kernel
	// read of the damaged one must not be read again.
	file, err := identify(h.File())
	if err != nil {
		st.bypassed = true
	}
	if !st.bypassed && (st.cached == identity{} || st.cached == file) {
		out.OpenFlags |= fuse.FOPEN_KEEP_CACHE
	}
	st.cached = file
	return nil
}

// detach undoes attach. nd.open.mu is held.
func (f *fileSystem) detach(nd *node) {
	st := &nd.open
	st.handles--
	if st.handles > 0 || st.backing == nil {
		return
	}
	if err := f.device.closeBacking(st.backing.id); err != nil {
		f.log.Warn("cannot unregister a backing file", "error", err)
	}
	st.backing = nil
}

// register makes h's native file a backing file, or returns nil for the page cache.
func (f *fileSystem) register(h *cow.Handle) *backing {
	if !f.passthrough.Load() || !h.Passthrough() {
		return nil
	}
	file, err := identify(h.File())
	if err != nil || failpoint.Err(failpoint.PassthroughAsk, "") != nil {
		return nil
	}
	id, err := f.device.openBacking(int(h.File().Fd()))
	switch err {
	case nil:
		return &backing{id: id, file: file}
	case unix.ENOMEM, unix.EMFILE, unix.ENFILE, unix.EINTR:
		return nil // this one only
	}
	if f.passthrough.CompareAndSwap(true, false) {
		f.log.Info("no passthrough, file contents go through the daemon", "error", err, "needs", "CAP_SYS_ADMIN and Linux 6.9")
	}
	return nil
}

func (b *backing) is(file *os.File) bool {
	id, err := identify(file)
	return err == nil && id == b.file
}

func identify(file *os.File) (identity, error) {
	var st unix.Statx_t
	if err := unix.Statx(int(file.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_INO|unix.STATX_BTIME, &st); err != nil {
		return identity{}, err
	}
	id := identity{major: st.Dev_major, minor: st.Dev_minor, ino: st.Ino}
	if st.Mask&unix.STATX_BTIME != 0 {
		id.born = st.Btime
	}
	return id, nil
}
