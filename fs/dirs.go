package fs

import (
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"condafs/cow"
)

// dir is an open directory. It lists what was there when it was read from the
// start, so that offsets (an entry's place in the list, plus one) stay good
// whatever is removed meanwhile; reading from the start again lists it anew.
type dir struct {
	nd *node  // nil for the mount's own directories
	id uint64 // node id

	mu     sync.Mutex
	listed bool
	list   []cow.Dirent
	kept   int // what cow was told of the length of list
}

func (f *fileSystem) OpenDir(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	d := &dir{id: in.NodeId, nd: f.find(in.NodeId)}
	if d.nd == nil && in.NodeId >= idOffset {
		return absent(in.NodeId)
	}
	if d.nd != nil {
		if err := d.nd.view.KeepListing(-1, 0); err != nil {
			return f.status("opendir", err)
		}
	}
	gained := d.nd != nil && d.nd.view.OpenDir(d.nd.tree, cancel)
	if d.nd != nil && d.nd.ttl() == forever && !gained {
		out.OpenFlags = fuse.FOPEN_CACHE_DIR | fuse.FOPEN_KEEP_CACHE
	}
	out.Fh = f.dirs.add(d)
	return fuse.OK
}

func (f *fileSystem) ReleaseDir(in *fuse.ReleaseIn) {
	d, ok := f.dirs.remove(in.Fh)
	if !ok || d.nd == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.nd.view.KeepListing(d.kept, -1); err != nil {
		f.log.Error("closing a directory failed", "error", err)
	}
}

func (f *fileSystem) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return f.readDir(in, func(d *dir, e fuse.DirEntry) bool { return out.AddDirEntry(e) })
}

// ReadDirPlus also looks up what it lists. A reference counts for each entry
// that has found room in the reply, and only then.
func (f *fileSystem) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return f.readDir(in, func(d *dir, e fuse.DirEntry) bool {
		entry := out.AddDirLookupEntry(e)
		if entry == nil {
			return false
		}
		if d.nd == nil || e.Name == "." || e.Name == ".." {
			return true // node id 0: a name only
		}
		n, attr, err := d.nd.view.Lookup(d.nd.tree, e.Name)
		if err != nil {
			return true // removed since it was listed
		}
		out.FixMode(attr.Mode)
		f.entry(d.nd, n, &attr, entry)
		return true
	})
}

// readDir adds entries from the wanted offset on until add finds no more room.
func (f *fileSystem) readDir(in *fuse.ReadIn, add func(*dir, fuse.DirEntry) bool) fuse.Status {
	d, ok := f.dirs.get(in.Fh)
	if !ok {
		return fuse.EBADF
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.listed || in.Offset == 0 {
		list, err := f.list(d, &in.InHeader)
		if err != nil {
			return f.status("readdir", err)
		}
		if d.nd != nil {
			if err := d.nd.view.KeepListing(d.kept, len(list)); err != nil {
				return f.status("readdir", err)
			}
			d.kept = len(list)
		}
		d.list, d.listed = list, true
	}
	for i := in.Offset; i < uint64(len(d.list)); i++ {
		e := &d.list[i]
		if !add(d, fuse.DirEntry{Name: e.Name, Ino: e.Ino, Mode: e.Type, Off: i + 1}) {
			break
		}
	}
	return fuse.OK
}

// list returns the whole listing of d, with "." and "..".
func (f *fileSystem) list(d *dir, caller *fuse.InHeader) ([]cow.Dirent, error) {
	dots := []cow.Dirent{{Name: ".", Ino: d.id, Type: unix.S_IFDIR}, {Name: "..", Type: unix.S_IFDIR}}
	if d.nd == nil {
		return append(dots, f.listFixed(d.id, caller.Uid)...), nil
	}
	attr, err := d.nd.view.Getattr(d.nd.tree, nil)
	if err != nil {
		return nil, err
	}
	dots[0].Ino = attr.Ino
	entries, err := d.nd.view.ReadDir(d.nd.tree)
	return append(dots, entries...), err
}

// listFixed lists the mount's root, or the sessions that the caller may enter.
func (f *fileSystem) listFixed(id uint64, uid uint32) []cow.Dirent {
	var list []cow.Dirent
	if id == idRoot {
		for _, x := range fixedNames {
			list = append(list, cow.Dirent{Name: x.name, Ino: x.id, Type: x.mode})
		}
		return list
	}
	var of []uint32
	if uid != 0 {
		of = append(of, uid)
	}
	for _, id := range f.engine.SessionIDs(of...) {
		list = append(list, cow.Dirent{Name: id, Type: unix.S_IFDIR})
	}
	return list
}
