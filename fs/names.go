package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"

	"condafs/cow"
)

func (f *fileSystem) Lookup(cancel <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	switch in.NodeId {
	case idRoot:
		return f.lookupFixed(name, out)
	case idSessions:
		return f.lookupSession(name, out)
	}
	dir := f.find(in.NodeId)
	if dir == nil {
		return absent(in.NodeId)
	}
	n, attr, err := dir.view.Lookup(dir.tree, name)
	if err != nil {
		st := f.status("lookup", err)
		if st != fuse.ENOENT {
			return st
		}
		setAbsent(out, dir.ttl())
		return fuse.OK
	}
	f.entry(dir, n, &attr, out)
	return fuse.OK
}

// entry answers with a node that cow has just handed out.
func (f *fileSystem) entry(dir *node, n *cow.Node, attr *cow.Attr, out *fuse.EntryOut) {
	nd := f.nodes.add(n, dir)
	setEntry(out, nd.id, attr, nd.ttl())
	if n.Volatile() {
		out.SetEntryTimeout(0)
	}
}

func (f *fileSystem) Forget(id, refs uint64) {
	f.nodes.forget(id, refs)
}

func (f *fileSystem) Mkdir(cancel <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	dir := f.find(in.NodeId)
	if dir == nil {
		return absent(in.NodeId)
	}
	n, attr, err := dir.view.Unpack(dir.tree, name, in.Mode, int(in.Pid))
	if err != nil {
		return f.status("mkdir", err)
	}
	f.entry(dir, n, &attr, out)
	return fuse.OK
}

func (f *fileSystem) Mknod(cancel <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	dir := f.find(in.NodeId)
	if dir == nil {
		return absent(in.NodeId)
	}
	n, attr, err := dir.view.Mknod(dir.tree, name, in.Mode, in.Rdev)
	if err != nil {
		return f.status("mknod", err)
	}
	f.entry(dir, n, &attr, out)
	return fuse.OK
}

func (f *fileSystem) Symlink(cancel <-chan struct{}, in *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	dir := f.find(in.NodeId)
	if dir == nil {
		return absent(in.NodeId)
	}
	n, attr, err := dir.view.Symlink(dir.tree, name, target)
	if err != nil {
		return f.status("symlink", err)
	}
	f.entry(dir, n, &attr, out)
	return fuse.OK
}

func (f *fileSystem) Link(cancel <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	dir, nd := f.find(in.NodeId), f.find(in.Oldnodeid)
	if dir == nil || nd == nil {
		return absent(in.NodeId)
	}
	if dir.view != nd.view {
		return fuse.EXDEV
	}
	attr, err := dir.view.Link(nd.tree, dir.tree, name)
	if err != nil {
		return f.status("link", err)
	}
	f.entry(dir, nd.tree, &attr, out)
	return fuse.OK
}

func (f *fileSystem) Unlink(cancel <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	dir := f.find(in.NodeId)
	if dir == nil {
		return absent(in.NodeId)
	}
	return f.status("unlink", dir.view.Unlink(dir.tree, name))
}

func (f *fileSystem) Rmdir(cancel <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	dir := f.find(in.NodeId)
	if dir == nil {
		return absent(in.NodeId)
	}
	return f.status("rmdir", dir.view.Rmdir(dir.tree, name))
}

func (f *fileSystem) Rename(cancel <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	from, to := f.find(in.NodeId), f.find(in.Newdir)
	if from == nil || to == nil {
		return absent(in.NodeId)
	}
	if from.view != to.view {
		return fuse.EXDEV
	}
	return f.status("rename", from.view.Rename(from.tree, oldName, to.tree, newName, in.Flags))
}

func (f *fileSystem) Readlink(cancel <-chan struct{}, in *fuse.InHeader) ([]byte, fuse.Status) {
	switch in.NodeId {
	case idPkgs, idUnshelved, idRattler:
		return f.readMagic(in)
	}
	nd := f.find(in.NodeId)
	if nd == nil {
		return nil, absent(in.NodeId)
	}
	target, err := nd.view.Readlink(nd.tree)
	if err != nil {
		return nil, f.status("readlink", err)
	}
	return []byte(target), fuse.OK
}
