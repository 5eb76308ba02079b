package lossyfs

import (
	"maps"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// inode is a file, directory, link or special file.
type inode struct {
	id    uint64
	attr  attr
	data  content
	names map[string]*inode // of a directory

	nlink   int
	lookups uint64
	opens   int
	up      *inode // with name: where it was last, for messages and for ".."
	name    string

	disk  image
	fresh history // contents that are not on disk
}

// attr is what is known of an inode beside its contents. Its xattrs are never changed in
// place.
type attr struct {
	mode, uid, gid, rdev uint32
	atime, mtime, ctime  int64 // ns
	link                 string
	xattrs               map[string]string
}

// image is what the disk holds of an inode.
type image struct {
	attr  attr
	data  content
	names map[string]*inode
}

func (n *inode) isDir() bool { return n.attr.mode&unix.S_IFMT == unix.S_IFDIR }

// path is the inode's path, or that of a name in it.
func (n *inode) path(name string) string {
	if n == nil {
		return name
	}
	for ; n.up != n && n.up != nil; n = n.up {
		if name == "" {
			name = n.name
		} else {
			name = n.name + "/" + name
		}
	}
	return name
}

// withXattr returns the attributes with one xattr set, or removed.
func (a attr) withXattr(name string, value []byte, remove bool) attr {
	a.xattrs = maps.Clone(a.xattrs)
	if a.xattrs == nil {
		a.xattrs = make(map[string]string)
	}
	if remove {
		delete(a.xattrs, name)
	} else {
		a.xattrs[name] = string(value)
	}
	return a
}

func (n *inode) fill(out *fuse.Attr) {
	a := &n.attr
	out.Ino = n.id
	out.Mode, out.Uid, out.Gid, out.Rdev = a.mode, a.uid, a.gid, a.rdev
	out.Size = uint64(n.data.size)
	out.Blocks = uint64(len(n.data.pages)) * (pageSize / 512)
	out.Blksize = pageSize
	out.Nlink = uint32(n.nlink)
	if n.isDir() {
		out.Nlink = 1 // not counted
	}
	if a.link != "" {
		out.Size = uint64(len(a.link))
	}
	at, mt, ct := time.Unix(0, a.atime), time.Unix(0, a.mtime), time.Unix(0, a.ctime)
	out.SetTimes(&at, &mt, &ct)
}
