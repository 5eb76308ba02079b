package lossyfs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

func (f *FS) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	n := f.find(in.NodeId)
	if _, s := f.begin(Open, n, ""); !s.Ok() {
		return s
	}
	defer f.mu.Unlock()
	n.opens++
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	return fuse.OK
}

func (f *FS) Release(cancel <-chan struct{}, in *fuse.ReleaseIn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := f.nodes[in.NodeId]; n != nil {
		n.opens--
		f.reap(n)
	}
}

func (f *FS) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	n := f.find(in.NodeId)
	if _, s := f.begin(Read, n, ""); !s.Ok() {
		return nil, s
	}
	defer f.mu.Unlock()
	buf = buf[:min(len(buf), int(in.Size))]
	return fuse.ReadResultData(buf[:n.data.read(buf, int64(in.Offset))]), fuse.OK
}

func (f *FS) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	n := f.find(in.NodeId)
	short, s := f.begin(Write, n, "")
	if !s.Ok() {
		return 0, s
	}
	defer f.mu.Unlock()
	if short >= 0 {
		data = data[:min(short, len(data))]
	}
	f.write(n, data, int64(in.Offset))
	f.touch(n)
	return uint32(len(data)), fuse.OK
}

// Flush would come with each close.
func (f *FS) Flush(cancel <-chan struct{}, in *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }

func (f *FS) Fsync(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	n := f.find(in.NodeId)
	if _, s := f.begin(Sync, n, ""); !s.Ok() {
		return s
	}
	defer f.mu.Unlock()
	f.syncFile(n)
	return fuse.OK
}

func (f *FS) Fallocate(cancel <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	n := f.find(in.NodeId)
	if _, s := f.begin(Allocate, n, ""); !s.Ok() {
		return s
	}
	defer f.mu.Unlock()
	from, to := int64(in.Offset), int64(in.Offset+in.Length)
	switch in.Mode {
	case unix.FALLOC_FL_KEEP_SIZE: // there is always room
	case 0:
		f.resize(n, max(n.data.size, to))
	case unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE:
		f.zero(n, from, to)
		f.touch(n)
	default:
		return fuse.Status(unix.EOPNOTSUPP)
	}
	return fuse.OK
}

func (f *FS) Readlink(cancel <-chan struct{}, header *fuse.InHeader) ([]byte, fuse.Status) {
	n := f.find(header.NodeId)
	if _, s := f.begin(Read, n, ""); !s.Ok() {
		return nil, s
	}
	defer f.mu.Unlock()
	return []byte(n.attr.link), fuse.OK
}

func (f *FS) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	n := f.find(in.NodeId)
	if _, s := f.begin(Lookup, n, ""); !s.Ok() {
		return s
	}
	defer f.mu.Unlock()
	out.SetTimeout(forever)
	n.fill(&out.Attr)
	return fuse.OK
}

func (f *FS) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	n := f.find(in.NodeId)
	kind := SetAttr
	if in.Valid&fuse.FATTR_SIZE != 0 {
		kind = Truncate
	}
	if _, s := f.begin(kind, n, ""); !s.Ok() {
		return s
	}
	defer f.mu.Unlock()
	if size, ok := in.GetSize(); ok {
		f.truncate(n, int64(size))
		f.touch(n)
	}
	a, set := n.attr, false
	if mode, ok := in.GetMode(); ok {
		a.mode, set = a.mode&unix.S_IFMT|mode&0o7777, true
	}
	if uid, ok := in.GetUID(); ok {
		a.uid, set = uid, true
	}
	if gid, ok := in.GetGID(); ok {
		a.gid, set = gid, true
	}
	if t, ok := in.GetATime(); ok {
		a.atime, set = t.UnixNano(), true
	}
	if t, ok := in.GetMTime(); ok {
		a.mtime, set = t.UnixNano(), true
	}
	if set {
		f.setAttr(n, a)
	}
	out.SetTimeout(forever)
	n.fill(&out.Attr)
	return fuse.OK
}

func (f *FS) GetXAttr(cancel <-chan struct{}, header *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	n := f.find(header.NodeId)
	if _, s := f.begin(Lookup, n, ""); !s.Ok() {
		return 0, s
	}
	defer f.mu.Unlock()
	v, ok := n.attr.xattrs[name]
	switch {
	case !ok:
		return 0, fuse.ENODATA
	case len(dest) < len(v):
		return uint32(len(v)), fuse.ERANGE
	}
	return uint32(copy(dest, v)), fuse.OK
}

func (f *FS) ListXAttr(cancel <-chan struct{}, header *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	n := f.find(header.NodeId)
	if _, s := f.begin(Lookup, n, ""); !s.Ok() {
		return 0, s
	}
	defer f.mu.Unlock()
	var all []byte
	for name := range n.attr.xattrs {
		all = append(append(all, name...), 0)
	}
	if len(dest) < len(all) {
		return uint32(len(all)), fuse.ERANGE
	}
	return uint32(copy(dest, all)), fuse.OK
}

func (f *FS) SetXAttr(cancel <-chan struct{}, in *fuse.SetXAttrIn, name string, data []byte) fuse.Status {
	n := f.find(in.NodeId)
	if _, s := f.begin(SetXattr, n, ""); !s.Ok() {
		return s
	}
	defer f.mu.Unlock()
	_, there := n.attr.xattrs[name]
	switch {
	case in.Flags&unix.XATTR_CREATE != 0 && there:
		return fuse.Status(unix.EEXIST)
	case in.Flags&unix.XATTR_REPLACE != 0 && !there:
		return fuse.ENODATA
	}
	f.setAttr(n, n.attr.withXattr(name, data, false))
	return fuse.OK
}

func (f *FS) RemoveXAttr(cancel <-chan struct{}, header *fuse.InHeader, name string) fuse.Status {
	n := f.find(header.NodeId)
	if _, s := f.begin(SetXattr, n, ""); !s.Ok() {
		return s
	}
	defer f.mu.Unlock()
	if _, there := n.attr.xattrs[name]; !there {
		return fuse.ENODATA
	}
	f.setAttr(n, n.attr.withXattr(name, nil, true))
	return fuse.OK
}

func (f *FS) Access(cancel <-chan struct{}, in *fuse.AccessIn) fuse.Status { return fuse.OK }

func (f *FS) StatFs(cancel <-chan struct{}, header *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	const blocks = 1 << 22 // 16 GiB
	out.Bsize, out.Frsize, out.NameLen = pageSize, pageSize, 255
	out.Blocks, out.Bfree, out.Bavail = blocks, blocks, blocks
	out.Files, out.Ffree = blocks, blocks
	return fuse.OK
}
