package fs

import (
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// foreign names attributes that no view has. ls, cp and the kernel ask for them
// all the time, so they are answered without looking.
func foreign(attr string) bool { return !strings.HasPrefix(attr, "user.") }

func (f *fileSystem) GetXAttr(cancel <-chan struct{}, in *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	nd := f.find(in.NodeId)
	if nd == nil || foreign(attr) {
		return 0, fuse.ENODATA
	}
	v, err := nd.view.Getxattr(nd.tree, attr)
	if err != nil {
		return 0, f.status("getxattr", err)
	}
	return answer(dest, v)
}

func (f *fileSystem) ListXAttr(cancel <-chan struct{}, in *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	nd := f.find(in.NodeId)
	if nd == nil {
		return 0, fuse.OK
	}
	names, err := nd.view.Listxattr(nd.tree)
	if err != nil {
		return 0, f.status("listxattr", err)
	}
	var list []byte
	for _, n := range names {
		list = append(append(list, n...), 0)
	}
	return answer(dest, list)
}

// answer copies a value out, or says how much room it needs.
func answer(dest, v []byte) (uint32, fuse.Status) {
	if len(dest) < len(v) {
		return uint32(len(v)), fuse.ERANGE
	}
	return uint32(copy(dest, v)), fuse.OK
}

func (f *fileSystem) SetXAttr(cancel <-chan struct{}, in *fuse.SetXAttrIn, attr string, data []byte) fuse.Status {
	if foreign(attr) {
		return fuse.ENOTSUP
	}
	nd := f.find(in.NodeId)
	if nd == nil {
		return absent(in.NodeId)
	}
	return f.status("setxattr", nd.view.Setxattr(nd.tree, attr, data, int(in.Flags)))
}

func (f *fileSystem) RemoveXAttr(cancel <-chan struct{}, in *fuse.InHeader, attr string) fuse.Status {
	if foreign(attr) {
		return fuse.ENOTSUP
	}
	nd := f.find(in.NodeId)
	if nd == nil {
		return absent(in.NodeId)
	}
	return f.status("removexattr", nd.view.Removexattr(nd.tree, attr))
}
