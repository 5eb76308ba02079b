// # Inside of a view
//
// A view has three layers: the overlay, that is native files below its upper
// directory; what it has gained since its snapshot; and the snapshot, a union of
// spaces of the index. Each hides the next. The files of the implementation are
// named after what they hold; resolve.go, which looks a name up in the layers, is
// the place to begin.
//
// The overlay has the format of the kernel's overlayfs with its user xattrs
// (whiteouts are character devices 0:0, user.overlay.opaque hides what is below a
// directory), and two xattrs of ours, see mark.go: user.condafs.attr, and
// user.condafs.origin on directories that came from below and were renamed.
// It survives the process: a new view of it shows the same. Nothing but views and,
// by Seal, the engine touches it.
//
// What always holds:
//
//   - A name is a live node or none: whoever looks up a name while its node lives
//     gets that node, and all names of one native file are one node. Ids are never
//     used again.
//   - A node is in the overlay (upper) or shows something below (lower);
//     directories may be both, and are merged. Where a node is in the overlay so
//     are all its parents, and the names that the overlay has in these are known.
//   - The directory that a native directory is merged with depends on its place,
//     unless xattrs say otherwise. Before it is moved, or something is made
//     where a whiteout was, the xattr is written.
//   - A whiteout stands where, and only where, clients have removed what is below
//     or what others know to have been there (gained.has).
//   - While the kernel itself reads a native file of a node (passthrough), the node
//     gets no other: the name is given to a new node, and Open answers ESTALE,
//     upon which the kernel looks up again.
//   - What is open stays readable, whatever becomes of its name: handles have
//     native descriptors. A writable handle is always of a file in the overlay.
//   - Each change counts up a generation before the lock is released, and a
//     writable handle when it is opened and when it is released. So if neither
//     moved since a harvest and no writer is there, what was read then is what is
//     there now: Seal relies on it.
//   - What a client unpacks in a lane (lane.go) is not in the overlay: a link to it is. It comes into
//     the overlay whole, as files that nobody can write to past the view.
//   - What a view does of its own accord (copying up, sealing) changes no time,
//     mode, inode number or content that a client sees.
//
// Locks are taken in this order: lane.taking, Node.copying, View.mu, dirCache.mu, View.hmu,
// queue.mu. View.mu is held for writing by whatever changes names or nodes, and by
// all opening for writing, so that Seal excludes it; for reading by the rest. Contents
// are copied up without View.mu: the copy is made in the work directory and
// installed under the lock if the node still shows what was copied. Reading and
// writing of open files takes no lock. Events and invalidations are queued under
// the lock and delivered without it.
//
// Native operations are one *at call on a descriptor of the directory: a path is
// never resolved as a whole, so it can't lead out of the overlay or be too long.
package cow

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"condafs/beneath"
	"condafs/fault"
	"condafs/index"
)

// View is a pinned snapshot with a private overlay on top: the file system that
// one session sees. It is safe for concurrent use.
//
// Errors are a unix.Errno, or wrap what fault.Errno turns into one.
type View struct {
	upperDir  string // "" for a read-only view
	rootfd    int    // of upperDir
	workfd    int    // of the directory beside it where things are prepared
	uid, gid  uint32
	root      *Node
	retired   atomic.Bool
	refs      atomic.Int64  // handed out and not given back
	tmp       atomic.Uint64 // numbers names in the work directory
	dirs      dirCache
	lanes     lanes
	copies    sync.WaitGroup // copies being made without the lock
	queue     queue
	pathBytes int64 // of a list of paths, at most; tests have less
	invalid   func(dir *Node, name string)
	// onListing is called before a directory is listed; see OpenDir.
	onListing func(path string, cancel <-chan struct{}) bool
	// onLocking is called before a lock file is made; see Approach.
	onLocking func(path string, cancel <-chan struct{})
	// onReading is called before a package's list of files is opened; see Reading.
	onReading func(pkg string, pid int, cancel <-chan struct{}) bool

	mu     sync.RWMutex
	lower  lower
	gained gained
	linked map[uint64]*Node    // live nodes that have several names, by native inode number
	lent   map[uint64]struct{} // see lendIno
	gens   generations
	// markedUnseen says that a file got a mark by one of several names, and that
	// not all directories with one of the others know.
	markedUnseen bool
	closed       bool
	removing     bool // what is made now is made to remove something, which always works

	// hmu guards the open handles and orphans. It is taken last.
	hmu     sync.Mutex
	handles map[*Handle]struct{}
	orphans map[int]struct{} // descriptors kept for nodes without a name

	account *account // what its user has; set before the view is used
}

// newView makes the view of a snapshot. Of the spaces of the index, an earlier
// one hides what a later one has at the same path. All files show uid and gid.
//
// upperDir holds the overlay; it is made if it is missing, and taken up as it is
// if it exists. The view also owns "work" and "gained" beside it. An empty
// upperDir makes a read-only view.
//
// events, if not nil, hears what clients do; see Event. The snapshot stays the
// caller's, who releases it after Close.
func newView(store *index.Store, snap *index.Snapshot, upperDir string, spaces []string, uid, gid uint32, events func(Event)) (*View, error) {
	return openView(pinned{snap, store}, upperDir, spaces, uid, gid, events)
}

func openView(src source, upperDir string, spaces []string, uid, gid uint32, events func(Event)) (*View, error) {
	v := &View{
		upperDir: upperDir,
		rootfd:   -1,
		workfd:   -1,
		uid:      uid,
		gid:      gid,
		lower:    lower{src: src, spaces: spaces},
		linked:   make(map[uint64]*Node),
		handles:  make(map[*Handle]struct{}),
		orphans:  make(map[int]struct{}),

		pathBytes: maxPathBytes,
	}
	v.queue.deliver = events
	obj := v.lower.root()
	v.root = v.newNode(unix.S_IFDIR, obj.ino)
	v.root.lower = obj
	if upperDir == "" {
		return v, nil
	}
	if err := v.openUpper(); err != nil {
		return nil, fault.New("open overlay", upperDir, fault.Other, errors.Join(err, v.closeNative()))
	}
	return v, nil
}

func (v *View) openUpper() error {
	beside := filepath.Dir(v.upperDir)
	work := filepath.Join(beside, "work")
	if err := beneath.RemoveTree(work); err != nil {
		return err
	}
	var err error
	if err = os.MkdirAll(work, 0o700); err != nil {
		return err
	}
	err = os.Mkdir(v.upperDir, 0o755)
	fresh := err == nil
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if v.workfd, err = openat(unix.AT_FDCWD, work, unix.O_RDONLY|unix.O_DIRECTORY, 0); err != nil {
		return err
	}
	if v.rootfd, err = openat(unix.AT_FDCWD, v.upperDir, unix.O_RDONLY|unix.O_DIRECTORY, 0); err != nil {
		return err
	}
	v.root.upper = true
	v.lanes.dir = filepath.Join(beside, "lanes")
	v.lanes.exist = isNativeDir(unix.AT_FDCWD, v.lanes.dir)
	if fresh {
		v.root.names = make(map[string]upperName)
		if err := unix.Fchmod(v.rootfd, 0o755); err != nil {
			return err
		}
	}
	if v.root.mark, err = readMark(v.rootfd, "."); err != nil {
		return err
	}
	return v.gained.open(filepath.Join(beside, "gained"))
}

// onInvalid sets who hears that a name in a directory appeared, vanished or
// became another node without an operation of a client. It is called like the
// receiver of events. Set it before the view is used.
func (v *View) onInvalid(f func(dir *Node, name string)) { v.invalid = f }

func (v *View) invalidate(dir *Node, name string) {
	if f := v.invalid; f != nil {
		v.queue.add(func() { f(dir, name) })
	}
}

// Root returns the root directory. It needs no reference and stays as long as
// the view.
func (v *View) Root() *Node { return v.root }

// Statfs returns the figures of the file system that holds the overlay.
func (v *View) Statfs() (unix.Statfs_t, error) {
	var st unix.Statfs_t
	v.mu.RLock()
	defer v.mu.RUnlock()
	var err error
	switch {
	case v.closed:
		err = unix.ESTALE
	case v.rootfd < 0:
		st = unix.Statfs_t{Bsize: 4096, Frsize: 4096, Namelen: 255}
	default:
		err = unix.Fstatfs(v.rootfd, &st)
	}
	return st, err
}

// measure tells what the overlay has at a path.
func (v *View) measure(path string) (beneath.Usage, error) {
	fd, err := v.overlay()
	if err != nil {
		return beneath.Usage{}, err
	}
	defer unix.Close(fd) //nolint:errcheck // of O_PATH, it has nothing to tell
	if path == "" {
		return beneath.Measure(fd, ".")
	}
	dir, name, err := beneath.Parent(fd, path)
	if err != nil {
		return beneath.Usage{}, err
	}
	defer unix.Close(dir) //nolint:errcheck
	return beneath.Measure(dir, name)
}

// nativeDir lists what the overlay has in a directory.
func (v *View) nativeDir(path string) ([]os.DirEntry, error) {
	fd, err := v.overlay()
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd) //nolint:errcheck // of O_PATH, it has nothing to tell
	dir, err := beneath.Open(fd, path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(dir), path)
	list, err := f.ReadDir(-1)
	return list, errors.Join(err, f.Close())
}

// overlay returns a descriptor of the overlay, for the caller to close: the view may be
// closed meanwhile.
func (v *View) overlay() (int, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if v.closed || v.rootfd < 0 {
		return -1, unix.ESTALE
	}
	return beneath.Open(v.rootfd, ".", unix.O_PATH|unix.O_DIRECTORY)
}

// Retire makes the view refuse every further change with EROFS, and writes to
// open files with ESTALE: it has been committed, and nothing more will be.
func (v *View) Retire() { v.retired.Store(true) }

// writable tells why the view takes no changes.
func (v *View) writable() error {
	if v.upperDir == "" || v.retired.Load() {
		return unix.EROFS
	}
	if v.closed {
		return unix.ESTALE
	}
	return nil
}

// Close releases what the view holds. Its overlay stays on disk. Handles that
// are open can still be read and released; everything else fails with ESTALE or
// EROFS.
func (v *View) Close() error {
	v.retired.Store(true)
	v.mu.Lock()
	first := !v.closed
	v.closed = true
	v.mu.Unlock()
	if !first {
		return nil
	}
	v.copies.Wait() // they use the work directory
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.closeNative()
}

func (v *View) closeNative() error {
	v.dirs.close()
	err := v.gained.close()
	for _, fd := range []int{v.rootfd, v.workfd} {
		if fd >= 0 {
			err = errors.Join(err, unix.Close(fd))
		}
	}
	v.rootfd, v.workfd = -1, -1
	return err
}

// workName returns an unused name in the work directory.
func (v *View) workName() string { return "#" + strconv.FormatUint(v.tmp.Add(1), 16) }

// discard removes something from the work directory. What can't be removed now
// is removed when the overlay goes.
func (v *View) discard(name string) { _ = beneath.RemoveAll(v.workfd, name) }

// walk returns the node at a path. The caller tidies it. v.mu is held for writing.
func (v *View) walk(path string) (*Node, error) {
	n := v.root
	for path != "" {
		name, rest, _ := cutPath(path)
		next, err := v.child(n, name)
		v.tidy(n) // goes only if there was no child to hold it
		if err != nil {
			return nil, err
		}
		n, path = next, rest
	}
	return n, nil
}
