package cow

import "golang.org/x/sys/unix"

// Attr is what a client sees of a node with stat.
type Attr struct {
	// Ino is unique among the live objects of a view and stays the same for
	// an object, also when it is copied up.
	Ino   uint64
	Mode  uint32 // type (unix.S_IFMT) and permission bits; never set-user-id or set-group-id
	Nlink uint32 // 1 for directories that show something from below, 0 for what has been removed
	UID   uint32
	GID   uint32
	Rdev  uint32
	Size  int64 // bytes
	// Blocks counts units of 512 bytes.
	Blocks int64
	Atime  unix.Timespec
	Mtime  unix.Timespec
	Ctime  unix.Timespec
}

// IsDir reports whether the node is a directory.
func (a *Attr) IsDir() bool { return a.Mode&unix.S_IFMT == unix.S_IFDIR }

// Valid bits of SetAttr.
const (
	SetMode uint32 = 1 << iota
	SetUID
	SetGID
	SetSize
	SetAtime
	SetMtime
	SetAtimeNow // with SetAtime: to the present, not to Atime
	SetMtimeNow // with SetMtime: to the present, not to Mtime
)

// SetAttr is a change of attributes. Only the fields whose bit is in Valid count.
type SetAttr struct {
	Valid uint32
	Mode  uint32 // permission bits; set-user-id and set-group-id are dropped silently
	UID   uint32
	GID   uint32
	Size  int64
	Atime unix.Timespec
	Mtime unix.Timespec
}

// Dirent is one name in a directory.
type Dirent struct {
	Name string
	Ino  uint64
	Type uint32 // the type bits of a mode, unix.S_IFDIR and so on
}
