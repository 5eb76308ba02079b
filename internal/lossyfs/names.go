package lossyfs

import (
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// forever is how long the kernel may remember: nothing changes but by its requests.
const forever = time.Hour

func (f *FS) String() string { return "lossyfs" }

// entry answers with an inode, which the kernel knows from then on. f.mu is held.
func (f *FS) entry(n *inode, out *fuse.EntryOut) {
	n.lookups++
	out.NodeId, out.Generation = n.id, 1
	if n == f.root {
		out.NodeId = fuse.FUSE_ROOT_ID
	}
	out.SetEntryTimeout(forever)
	out.SetAttrTimeout(forever)
	n.fill(&out.Attr)
}

func (f *FS) Lookup(cancel <-chan struct{}, header *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	dir := f.find(header.NodeId)
	if _, s := f.begin(Lookup, dir, name); !s.Ok() {
		return s
	}
	defer f.mu.Unlock()
	n := dir.names[name]
	if name == ".." {
		n = dir.up
	}
	if n == nil {
		return fuse.ENOENT
	}
	f.entry(n, out)
	return fuse.OK
}

func (f *FS) Forget(id, nlookup uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := f.nodes[id]; n != nil && n != f.root {
		n.lookups -= min(n.lookups, nlookup)
		f.reap(n)
	}
}

// make makes something new, with a name unless that is empty. f.mu is held.
func (f *FS) make(dir *inode, name string, owner fuse.Owner, a attr) (*inode, fuse.Status) {
	if name != "" && dir.names[name] != nil {
		return nil, fuse.Status(unix.EEXIST)
	}
	if len(name) > 255 {
		return nil, fuse.Status(unix.ENAMETOOLONG)
	}
	a.uid, a.gid = owner.Uid, owner.Gid
	n := f.newInode(a)
	if name != "" {
		f.put(dir, name, n)
	}
	return n, fuse.OK
}

func (f *FS) makeEntry(header *fuse.InHeader, name string, a attr, out *fuse.EntryOut) fuse.Status {
	dir := f.find(header.NodeId)
	if _, s := f.begin(Create, dir, name); !s.Ok() {
		return s
	}
	defer f.mu.Unlock()
	n, s := f.make(dir, name, header.Owner, a)
	if s.Ok() {
		f.entry(n, out)
	}
	return s
}

func (f *FS) Mknod(cancel <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	return f.makeEntry(&in.InHeader, name, attr{mode: in.Mode, rdev: in.Rdev}, out)
}

func (f *FS) Mkdir(cancel <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return f.makeEntry(&in.InHeader, name, attr{mode: in.Mode&0o7777 | unix.S_IFDIR}, out)
}

func (f *FS) Symlink(cancel <-chan struct{}, header *fuse.InHeader, to, name string, out *fuse.EntryOut) fuse.Status {
	return f.makeEntry(header, name, attr{mode: unix.S_IFLNK | 0o777, link: to}, out)
}

func (f *FS) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	return f.create(in, name, out)
}

func (f *FS) Tmpfile(cancel <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	return f.create(in, "", out)
}

func (f *FS) create(in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	dir := f.find(in.NodeId)
	if _, s := f.begin(Create, dir, name); !s.Ok() {
		return s
	}
	defer f.mu.Unlock()
	n := dir.names[name]
	if name == "" || n == nil {
		var s fuse.Status
		if n, s = f.make(dir, name, in.Owner, attr{mode: in.Mode&0o7777 | unix.S_IFREG}); !s.Ok() {
			return s
		}
	} else if in.Flags&unix.O_EXCL != 0 {
		return fuse.Status(unix.EEXIST)
	}
	n.opens++
	f.entry(n, &out.EntryOut)
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	return fuse.OK
}

func (f *FS) Link(cancel <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	dir, n := f.find(in.NodeId), f.find(in.Oldnodeid)
	if _, s := f.begin(Link, dir, name); !s.Ok() {
		return s
	}
	defer f.mu.Unlock()
	switch {
	case dir.names[name] != nil:
		return fuse.Status(unix.EEXIST)
	case n.isDir():
		return fuse.EPERM
	}
	f.put(dir, name, n)
	n.attr.ctime = time.Now().UnixNano()
	f.entry(n, out)
	return fuse.OK
}

func (f *FS) Unlink(cancel <-chan struct{}, header *fuse.InHeader, name string) fuse.Status {
	return f.remove(header, name, false)
}

func (f *FS) Rmdir(cancel <-chan struct{}, header *fuse.InHeader, name string) fuse.Status {
	return f.remove(header, name, true)
}

func (f *FS) remove(header *fuse.InHeader, name string, isDir bool) fuse.Status {
	dir := f.find(header.NodeId)
	if _, s := f.begin(Remove, dir, name); !s.Ok() {
		return s
	}
	defer f.mu.Unlock()
	n := dir.names[name]
	switch {
	case n == nil:
		return fuse.ENOENT
	case isDir && !n.isDir():
		return fuse.ENOTDIR
	case !isDir && n.isDir():
		return fuse.Status(unix.EISDIR)
	case len(n.names) > 0:
		return fuse.Status(unix.ENOTEMPTY)
	}
	n.attr.ctime = time.Now().UnixNano()
	f.drop(dir, name)
	return fuse.OK
}

func (f *FS) Rename(cancel <-chan struct{}, in *fuse.RenameIn, name, toName string) fuse.Status {
	dir, toDir := f.find(in.NodeId), f.find(in.Newdir)
	if _, s := f.begin(Rename, dir, name); !s.Ok() {
		return s
	}
	defer f.mu.Unlock()
	n, there := dir.names[name], toDir.names[toName]
	c := change{do: renamed, node: n, dir: dir, name: name, toDir: toDir, toName: toName, other: there}
	switch {
	case n == nil:
		return fuse.ENOENT
	case in.Flags&unix.RENAME_NOREPLACE != 0 && there != nil:
		return fuse.Status(unix.EEXIST)
	case in.Flags&unix.RENAME_EXCHANGE != 0:
		if there == nil {
			return fuse.ENOENT
		}
		c.do = exchanged
		dir.names[name], toDir.names[toName] = there, n
		there.up, there.name = dir, name
	case there == n:
		return fuse.OK
	case there != nil && there.isDir() && !n.isDir():
		return fuse.Status(unix.EISDIR)
	case there != nil && !there.isDir() && n.isDir():
		return fuse.ENOTDIR
	case there != nil && len(there.names) > 0:
		return fuse.Status(unix.ENOTEMPTY)
	default:
		delete(dir.names, name)
		toDir.names[toName] = n
		if there != nil {
			there.nlink--
			there.attr.ctime = time.Now().UnixNano()
			f.reap(there)
		}
	}
	n.up, n.name = toDir, toName
	n.attr.ctime = time.Now().UnixNano()
	f.changes = append(f.changes, c)
	f.touch(dir)
	f.touch(toDir)
	return fuse.OK
}
