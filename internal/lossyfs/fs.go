package lossyfs

import (
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Model says what a file system promises beyond POSIX.
type Model int

const (
	// Strict promises little more: fsync of a file makes its own name durable, as on every
	// file system of Linux, and Badger relies on it. Other names are durable only after
	// fsync of their directory, and changes that were not synced survive in any
	// combination. A rename happens whole or not at all.
	Strict Model = iota
	// Journaled keeps the order of all changes of names and attributes, and fsync of
	// anything makes all earlier ones durable, as ext4 and XFS do. A file does not grow
	// without its bytes.
	Journaled
)

// FS is the file system. It is safe for concurrent use.
type FS struct {
	fuse.RawFileSystem // answers ENOSYS to what is not here
	model              Model

	mu      sync.Mutex
	off     bool // the power has failed
	root    *inode
	nodes   map[uint64]*inode
	last    uint64              // inode number
	changes []change            // of names and attributes, not on disk yet
	dirty   map[*inode]struct{} // contents that are not
	inject  func(Op) Verdict
	ops     int

	handles map[uint64][]fuse.DirEntry // of open directories
	lastDir uint64
}

// New returns an empty file system.
func New(m Model) *FS {
	f := empty(m)
	f.root = f.newInode(attr{mode: unix.S_IFDIR | 0o755, uid: uint32(unix.Geteuid()), gid: uint32(unix.Getegid())})
	f.root.up = f.root
	return f
}

func empty(m Model) *FS {
	return &FS{
		RawFileSystem: fuse.NewDefaultRawFileSystem(), model: m,
		nodes: make(map[uint64]*inode), dirty: make(map[*inode]struct{}), handles: make(map[uint64][]fuse.DirEntry),
	}
}

// PowerOff makes every operation fail from now on: what is on disk stays as it is.
func (f *FS) PowerOff() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.off = true
}

// Off reports whether the power has failed.
func (f *FS) Off() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.off
}

// Sync makes everything durable.
func (f *FS) Sync() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.syncAll()
}

func (f *FS) newInode(a attr) *inode {
	f.last++
	now := time.Now().UnixNano()
	a.atime, a.mtime, a.ctime = now, now, now
	n := &inode{id: f.last, attr: a}
	n.data.pages = make(map[int64]*page)
	n.disk.data.pages = make(map[int64]*page)
	if n.isDir() {
		n.names = make(map[string]*inode)
		n.disk.names = make(map[string]*inode)
	}
	// Whatever makes its name durable makes it what it was at first.
	n.disk.attr = n.attr
	f.nodes[n.id] = n
	return n
}

// begin is the start of every operation: it locks, unless the power is off or somebody
// wants the operation to fail. A short write is bytes long.
func (f *FS) begin(kind Kind, n *inode, name string) (bytes int, status fuse.Status) {
	f.mu.Lock()
	if f.off {
		f.mu.Unlock()
		return 0, fuse.EIO
	}
	f.ops++
	if f.inject == nil {
		return -1, fuse.OK
	}
	v := f.inject(Op{N: f.ops, Kind: kind, Path: n.path(name)})
	if v.PowerOff {
		f.off = true
		v.Errno = unix.EIO
	}
	if v.Errno != 0 {
		f.mu.Unlock()
		return 0, fuse.Status(v.Errno)
	}
	if v.Short > 0 {
		return v.Short, fuse.OK
	}
	return -1, fuse.OK
}

// find returns the inode that a request is about. The kernel names none that it was not
// given.
func (f *FS) find(id uint64) *inode {
	f.mu.Lock()
	defer f.mu.Unlock()
	if id == fuse.FUSE_ROOT_ID {
		return f.root
	}
	return f.nodes[id]
}
