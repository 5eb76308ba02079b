package fs

import (
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"condafs/cow"
)

const blockSize = 4096 // preferred size of a read or write, st_blksize

// How long the kernel may go on believing what it was told.
const (
	forever = time.Hour   // session trees, whose every change the kernel sees or is told
	briefly = time.Second // .head, which moves on whenever anybody commits
)

func setAttr(out *fuse.Attr, a *cow.Attr) {
	out.Ino = a.Ino
	out.Size = uint64(a.Size)
	out.Blocks = uint64(a.Blocks)
	out.Atime, out.Atimensec = uint64(a.Atime.Sec), uint32(a.Atime.Nsec)
	out.Mtime, out.Mtimensec = uint64(a.Mtime.Sec), uint32(a.Mtime.Nsec)
	out.Ctime, out.Ctimensec = uint64(a.Ctime.Sec), uint32(a.Ctime.Nsec)
	out.Mode = a.Mode
	out.Nlink = a.Nlink
	out.Uid, out.Gid = a.UID, a.GID
	out.Rdev = a.Rdev
	out.Blksize = blockSize
}

func setEntry(out *fuse.EntryOut, id uint64, a *cow.Attr, ttl time.Duration) {
	out.NodeId = id
	out.Generation = 1
	out.SetEntryTimeout(ttl)
	out.SetAttrTimeout(ttl)
	setAttr(&out.Attr, a)
}

// setAbsent says that there is no such name, for ttl: node id 0 is what the
// kernel takes for an ENOENT that it may remember.
func setAbsent(out *fuse.EntryOut, ttl time.Duration) {
	out.NodeId = 0
	out.SetEntryTimeout(ttl)
}

// changes translates a SETATTR request.
func changes(in *fuse.SetAttrIn) cow.SetAttr {
	var s cow.SetAttr
	if in.Valid&fuse.FATTR_MODE != 0 {
		s.Valid |= cow.SetMode
		s.Mode = in.Mode
	}
	if in.Valid&fuse.FATTR_UID != 0 {
		s.Valid |= cow.SetUID
		s.UID = in.Uid
	}
	if in.Valid&fuse.FATTR_GID != 0 {
		s.Valid |= cow.SetGID
		s.GID = in.Gid
	}
	if in.Valid&fuse.FATTR_SIZE != 0 {
		s.Valid |= cow.SetSize
		s.Size = int64(in.Size)
	}
	if in.Valid&fuse.FATTR_ATIME != 0 {
		s.Valid |= cow.SetAtime
		s.Atime = unix.Timespec{Sec: int64(in.Atime), Nsec: int64(in.Atimensec)}
		if in.Valid&fuse.FATTR_ATIME_NOW != 0 {
			s.Valid |= cow.SetAtimeNow
		}
	}
	if in.Valid&fuse.FATTR_MTIME != 0 {
		s.Valid |= cow.SetMtime
		s.Mtime = unix.Timespec{Sec: int64(in.Mtime), Nsec: int64(in.Mtimensec)}
		if in.Valid&fuse.FATTR_MTIME_NOW != 0 {
			s.Valid |= cow.SetMtimeNow
		}
	}
	return s
}
