package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"condafs/cow"
)

func (f *fileSystem) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	if attr, ok := f.fixedAttr(in.NodeId); ok {
		out.SetTimeout(forever)
		setAttr(&out.Attr, &attr)
		return fuse.OK
	}
	nd := f.find(in.NodeId)
	if nd == nil {
		return absent(in.NodeId)
	}
	var h *cow.Handle
	if in.Flags()&fuse.FUSE_GETATTR_FH != 0 {
		h = f.handle(in.Fh())
	}
	attr, err := f.attr(nd, h)
	if err != nil {
		return f.status("getattr", err)
	}
	out.SetTimeout(nd.ttl())
	setAttr(&out.Attr, &attr)
	return fuse.OK
}

func (f *fileSystem) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	nd := f.find(in.NodeId)
	if nd == nil {
		return absent(in.NodeId)
	}
	var h *cow.Handle
	if fh, ok := in.GetFh(); ok {
		h = f.handle(fh)
	}
	attr, err := f.setAttrs(nd, h, changes(in))
	if err != nil {
		return f.status("setattr", err)
	}
	out.SetTimeout(nd.ttl())
	setAttr(&out.Attr, nd.shown(&attr))
	return fuse.OK
}

// setAttrs keeps opens of nd away meanwhile, for the reason that openFile gives:
// a change may put another native file under the node.
func (f *fileSystem) setAttrs(nd *node, h *cow.Handle, s cow.SetAttr) (cow.Attr, error) {
	nd.open.mu.Lock()
	defer nd.open.mu.Unlock()
	return nd.view.Setattr(nd.tree, h, s)
}

// attr returns what the kernel shall see of nd.
func (f *fileSystem) attr(nd *node, h *cow.Handle) (cow.Attr, error) {
	attr, err := nd.view.Getattr(nd.tree, h)
	if err != nil {
		return attr, err
	}
	return *nd.shown(&attr), nil
}

// shown takes other users' permissions off the root of a session and of the head.
func (nd *node) shown(a *cow.Attr) *cow.Attr {
	if nd.private {
		a.Mode &^= 0077
	}
	return a
}

// handle returns cow's handle of an open file, or nil.
func (f *fileSystem) handle(fh uint64) *cow.Handle {
	if fl, ok := f.files.get(fh); ok {
		return fl.h
	}
	return nil
}

// StatFs tells how much room the store has: there is no other limit to a view.
func (f *fileSystem) StatFs(cancel <-chan struct{}, in *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	var st unix.Statfs_t
	if err := unix.Statfs(f.store, &st); err != nil {
		return f.status("statfs", err)
	}
	out.Blocks, out.Bfree, out.Bavail = st.Blocks, st.Bfree, st.Bavail
	out.Files, out.Ffree = st.Files, st.Ffree
	out.Bsize, out.Frsize = uint32(st.Bsize), uint32(st.Frsize)
	out.NameLen = uint32(st.Namelen)
	return fuse.OK
}
