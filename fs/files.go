package fs

import (
	"errors"
	"io"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"condafs/cow"
)

// file is an open file.
type file struct {
	nd *node
	h  *cow.Handle
}

func (f *fileSystem) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if in.NodeId == idInfo {
		if in.Flags&(unix.O_ACCMODE|unix.O_TRUNC) != unix.O_RDONLY {
			return fuse.EROFS
		}
		out.OpenFlags = fuse.FOPEN_KEEP_CACHE
		return fuse.OK
	}
	nd := f.find(in.NodeId)
	if nd == nil {
		return absent(in.NodeId)
	}
	if in.Flags&(unix.O_ACCMODE|unix.O_TRUNC) == unix.O_RDONLY && nd.view.Reading(nd.tree, int(in.Pid), cancel) {
		return fuse.Status(unix.ESTALE)
	}
	return f.status("open", f.openFile(nd, int(in.Flags), out))
}

// openFile opens nd. Its lock keeps other opens of the node away until cow knows
// whether this one is passthrough: an open for writing that came between could
// put another native file under a node id whose contents the kernel reads itself.
func (f *fileSystem) openFile(nd *node, flags int, out *fuse.OpenOut) error {
	nd.open.mu.Lock()
	defer nd.open.mu.Unlock()
	h, err := nd.view.Open(nd.tree, flags)
	if err != nil {
		return err
	}
	return f.adopt(nd, h, out)
}

// adopt gives the kernel a number for a handle that cow has opened. nd.open.mu is held.
func (f *fileSystem) adopt(nd *node, h *cow.Handle, out *fuse.OpenOut) error {
	if err := f.attach(nd, h, out); err != nil {
		return errors.Join(err, h.Release())
	}
	out.Fh = f.files.add(&file{nd, h})
	return nil
}

func (f *fileSystem) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	dir := f.find(in.NodeId)
	if dir == nil {
		return absent(in.NodeId)
	}
	dir.view.Approach(dir.tree, name, cancel)
	n, attr, h, err := dir.view.Create(dir.tree, name, int(in.Flags), in.Mode)
	if err != nil {
		return f.status("create", err)
	}
	return f.created(dir, n, &attr, h, out)
}

func (f *fileSystem) Tmpfile(cancel <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	dir := f.find(in.NodeId)
	if dir == nil {
		return absent(in.NodeId)
	}
	n, attr, h, err := dir.view.Tmpfile(dir.tree, int(in.Flags), in.Mode)
	if err != nil {
		return f.status("tmpfile", err)
	}
	return f.created(dir, n, &attr, h, out)
}

func (f *fileSystem) created(dir *node, n *cow.Node, attr *cow.Attr, h *cow.Handle, out *fuse.CreateOut) fuse.Status {
	nd := f.nodes.add(n, dir)
	nd.open.mu.Lock()
	defer nd.open.mu.Unlock()
	if err := f.adopt(nd, h, &out.OpenOut); err != nil {
		f.nodes.forget(nd.id, 1)
		return f.status("create", err)
	}
	setEntry(&out.EntryOut, nd.id, attr, nd.ttl())
	return fuse.OK
}

func (f *fileSystem) Release(cancel <-chan struct{}, in *fuse.ReleaseIn) {
	fl, ok := f.files.remove(in.Fh)
	if !ok {
		return
	}
	fl.nd.open.mu.Lock()
	defer fl.nd.open.mu.Unlock()
	f.detach(fl.nd)
	if err := fl.h.Release(); err != nil {
		// The client has its answer to close already.
		f.log.Error("closing a file failed", "error", err)
	}
}

// Flush would be sent on each close. There is nothing to do then: what was
// written is in the native file, and the kernel remembers not to ask again.
func (f *fileSystem) Flush(cancel <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	return fuse.ENOSYS
}

func (f *fileSystem) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	buf = buf[:min(len(buf), int(in.Size))]
	if in.NodeId == idInfo {
		n := 0
		if in.Offset < uint64(len(f.info)) {
			n = copy(buf, f.info[in.Offset:])
		}
		return fuse.ReadResultData(buf[:n]), fuse.OK
	}
	fl, ok := f.files.get(in.Fh)
	if !ok {
		return nil, fuse.EBADF
	}
	n, err := fl.h.ReadAt(buf, int64(in.Offset))
	if err != nil && err != io.EOF {
		return nil, f.status("read", err)
	}
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

func (f *fileSystem) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	fl, ok := f.files.get(in.Fh)
	if !ok {
		return 0, fuse.EBADF
	}
	n, err := fl.h.WriteAt(data, int64(in.Offset))
	if n == 0 && err != nil {
		return 0, f.status("write", err)
	}
	return uint32(n), fuse.OK // a short write makes the client meet the error at its next one
}

func (f *fileSystem) Fsync(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	fl, ok := f.files.get(in.Fh)
	if !ok {
		return fuse.EBADF
	}
	return f.status("fsync", fl.h.Sync())
}

func (f *fileSystem) Fallocate(cancel <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	fl, ok := f.files.get(in.Fh)
	if !ok {
		return fuse.EBADF
	}
	return f.status("fallocate", fl.h.Allocate(in.Mode, int64(in.Offset), int64(in.Length)))
}

func (f *fileSystem) Lseek(cancel <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	fl, ok := f.files.get(in.Fh)
	if !ok {
		return fuse.EBADF
	}
	off, err := fl.h.Seek(int64(in.Offset), int(in.Whence))
	if err != nil {
		return f.status("lseek", err)
	}
	out.Offset = uint64(off)
	return fuse.OK
}
