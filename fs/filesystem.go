package fs

import (
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"condafs/cow"
)

// fileSystem answers the kernel's requests. Operations that it lacks get ENOSYS
// from the embedded default, which the kernel remembers: ACCESS (the kernel checks
// permissions by itself), FSYNCDIR (names become durable by a commit), STATX (no
// more is known than GETATTR tells), locks (kept by the kernel).
type fileSystem struct {
	fuse.RawFileSystem

	engine *cow.Engine
	log    *slog.Logger
	device *device
	born   unix.Timespec
	uid    uint32
	gid    uint32
	info   []byte // content of MOUNT/.condafs
	store  string // the store's directory

	nodes *nodeTable
	head  *node // MOUNT/.head
	files handleTable[*file]
	dirs  handleTable[*dir]

	passthrough atomic.Bool
	notify      *notifier
}

func newFileSystem(engine *cow.Engine, log *slog.Logger, info []byte, store string) *fileSystem {
	now := time.Now()
	head := engine.HeadView()
	f := &fileSystem{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		engine:        engine,
		log:           log,
		born:          unix.NsecToTimespec(now.UnixNano()),
		uid:           uint32(unix.Geteuid()),
		gid:           uint32(unix.Getegid()),
		info:          info,
		store:         store,
		nodes:         newNodeTable(),
		// It shows what is the owner's alone, too.
		head: &node{id: idHead, tree: head.Root(), view: head, over: new(atomic.Bool), valid: briefly, private: true},
	}
	f.notify = newNotifier(f)
	return f
}

// String names the file system to go-fuse.
func (f *fileSystem) String() string { return fsName }

// greeted takes note of what the kernel can do, before the first request.
func (f *fileSystem) greeted(flags uint64) {
	if flags&fuse.CAP_PASSTHROUGH == 0 && f.passthrough.CompareAndSwap(true, false) {
		f.log.Info("no passthrough in this kernel, file contents go through the daemon")
	}
}

// find returns the node of a view with this id, or nil: for the mount's own
// fixed nodes, too.
func (f *fileSystem) find(id uint64) *node {
	if id == idHead {
		f.engine.HeadView() // always the same view, but asking moves it on
		return f.head
	}
	return f.nodes.get(id)
}

// absent is what an operation on a node that find doesn't know gets: the mount's
// own nodes can't be changed, and others are gone.
func absent(id uint64) fuse.Status {
	if id < idOffset {
		return fuse.EROFS
	}
	return fuse.Status(unix.ESTALE)
}
