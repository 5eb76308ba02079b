package lossyfs

import (
	"maps"
	"slices"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

func (f *FS) OpenDir(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	dir := f.find(in.NodeId)
	if _, s := f.begin(List, dir, ""); !s.Ok() {
		return s
	}
	defer f.mu.Unlock()
	list := []fuse.DirEntry{
		{Name: ".", Ino: dir.id, Mode: unix.S_IFDIR},
		{Name: "..", Ino: dir.up.id, Mode: unix.S_IFDIR},
	}
	for _, name := range slices.Sorted(maps.Keys(dir.names)) {
		n := dir.names[name]
		list = append(list, fuse.DirEntry{Name: name, Ino: n.id, Mode: n.attr.mode})
	}
	f.lastDir++
	f.handles[f.lastDir] = list
	out.Fh = f.lastDir
	return fuse.OK
}

func (f *FS) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	if _, s := f.begin(List, f.find(in.NodeId), ""); !s.Ok() {
		return s
	}
	defer f.mu.Unlock()
	list := f.handles[in.Fh]
	for at := int(in.Offset); at < len(list); at++ {
		if e := list[at]; !out.AddDirEntry(fuse.DirEntry{Name: e.Name, Ino: e.Ino, Mode: e.Mode, Off: uint64(at + 1)}) {
			break
		}
	}
	return fuse.OK
}

// ReadDirPlus is not needed: the kernel falls back.
func (f *FS) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return fuse.ENOSYS
}

func (f *FS) ReleaseDir(in *fuse.ReleaseIn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.handles, in.Fh)
}

// FsyncDir makes a directory's names durable; the root's stands for syncfs.
func (f *FS) FsyncDir(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	dir := f.find(in.NodeId)
	if _, s := f.begin(Sync, dir, ""); !s.Ok() {
		return s
	}
	defer f.mu.Unlock()
	if dir == f.root {
		f.syncAll()
	} else {
		f.syncDir(dir)
	}
	return fuse.OK
}
