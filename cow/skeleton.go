package cow

// The signatures of the view, so that neighbours compile. Real bodies replace
// them file by file.

import (
	"os"

	"golang.org/x/sys/unix"

	"condafs/index"
)

// Node is one object in one view, as long as somebody refers to it.
type Node struct{}

// ID returns a number that no other node of this process has or will have. It starts at 1.
func (n *Node) ID() uint64 { panic("TODO") }

// View returns the view that the node belongs to.
func (n *Node) View() *View { panic("TODO") }

// View is a pinned snapshot with a private overlay on top.
type View struct{}

// newView: upperDir "" makes a read-only view (writes get EROFS). A missing upperDir is made;
// one that exists is taken up as it is (recovery). Next to it, `work` and `gained` are the view's too.
func newView(store *index.Store, snap *index.Snapshot, upperDir string, spaces []string, uid, gid uint32, events func(Event)) (*View, error) {
	panic("TODO")
}

// onInvalid sets who hears that a name in a directory appeared, vanished or became another node
// without an operation of a client. Called without locks. Set it before the view is used.
func (v *View) onInvalid(f func(dir *Node, name string)) {}

// Root returns the root. It needs no reference and is never forgotten.
func (v *View) Root() *Node { panic("TODO") }

// Lookup finds name in dir. Like every method that hands out a node, it takes one reference for the caller.
func (v *View) Lookup(dir *Node, name string) (*Node, Attr, error) { panic("TODO") }

// Forget gives count references back. True: nobody holds the node any more; it will never be handed out again.
func (v *View) Forget(n *Node, count uint64) (gone bool) { panic("TODO") }

func (v *View) Getattr(n *Node, h *Handle) (Attr, error)            { panic("TODO") }
func (v *View) Setattr(n *Node, h *Handle, s SetAttr) (Attr, error) { panic("TODO") }
func (v *View) Readlink(n *Node) (string, error)                    { panic("TODO") }

// Open: ESTALE means: look the name up again, it is another node now.
func (v *View) Open(n *Node, flags int) (*Handle, error) { panic("TODO") }
func (v *View) Create(dir *Node, name string, flags int, mode uint32) (*Node, Attr, *Handle, error) {
	panic("TODO")
}
func (v *View) Tmpfile(dir *Node, flags int, mode uint32) (*Node, Attr, *Handle, error) {
	panic("TODO")
}
func (v *View) Mkdir(dir *Node, name string, mode uint32) (*Node, Attr, error) { panic("TODO") }
func (v *View) Mknod(dir *Node, name string, mode, rdev uint32) (*Node, Attr, error) {
	panic("TODO")
}
func (v *View) Symlink(dir *Node, name, target string) (*Node, Attr, error) { panic("TODO") }

// Link takes a reference of n, as Lookup does.
func (v *View) Link(n, dir *Node, name string) (Attr, error) { panic("TODO") }
func (v *View) Unlink(dir *Node, name string) error          { panic("TODO") }
func (v *View) Rmdir(dir *Node, name string) error           { panic("TODO") }
func (v *View) Rename(olddir *Node, oldname string, newdir *Node, newname string, flags uint32) error {
	panic("TODO")
}
func (v *View) ReadDir(dir *Node) ([]Dirent, error)                          { panic("TODO") }
func (v *View) Getxattr(n *Node, name string) ([]byte, error)                { panic("TODO") }
func (v *View) Setxattr(n *Node, name string, value []byte, flags int) error { panic("TODO") }
func (v *View) Listxattr(n *Node) ([]string, error)                          { panic("TODO") }
func (v *View) Removexattr(n *Node, name string) error                       { panic("TODO") }
func (v *View) Statfs() (unix.Statfs_t, error)                               { panic("TODO") }

// Handle is an open file.
type Handle struct{}

func (h *Handle) File() *os.File  { panic("TODO") }
func (h *Handle) Writable() bool  { panic("TODO") }
func (h *Handle) Immutable() bool { panic("TODO") }

// Passthrough reports whether the kernel may read and write the native file itself.
func (h *Handle) Passthrough() bool { panic("TODO") }

// SetPassthrough notes that it does, until Release.
func (h *Handle) SetPassthrough(on bool)                        { panic("TODO") }
func (h *Handle) ReadAt(p []byte, off int64) (int, error)       { panic("TODO") }
func (h *Handle) WriteAt(p []byte, off int64) (int, error)      { panic("TODO") }
func (h *Handle) Sync() error                                   { panic("TODO") }
func (h *Handle) Allocate(mode uint32, off, length int64) error { panic("TODO") }
func (h *Handle) Seek(off int64, whence int) (int64, error)     { panic("TODO") }
func (h *Handle) Release() error                                { panic("TODO") }

// HarvestEntry is one object of a unit, as its view shows it.
type HarvestEntry struct {
	Path            string // relative to the harvested path; "" is itself
	index.TreeEntry        // Name is empty; Digest only with Lower; Kind 0: a special file (FIFO, socket)
	Lower           bool   // comes from below unchanged
	// Open opens the content of a regular file.
	Open func() (*os.File, error)
}

// Harvest is the merged content of a path at one moment, parents before children, sorted.
type Harvest struct {
	Gen     uint64
	Entries []HarvestEntry
}

// ChangeOp says what a view did to a path.
type ChangeOp uint8

const (
	Added ChangeOp = iota + 1
	Changed
	Deleted
)

// Change is one difference between the overlay and what is below it.
type Change struct {
	Path  string
	Op    ChangeOp
	IsDir bool
}

func (v *View) Generation(path string) uint64         { panic("TODO") }
func (v *View) Writers(path string) int               { panic("TODO") }
func (v *View) Harvest(path string) (*Harvest, error) { panic("TODO") }
func (v *View) Seal(path string, gen uint64, entry index.Entry, tree *index.Tree, move func(rel, upperPath string) error) error {
	panic("TODO")
}
func (v *View) Gain(path string, entry index.Entry) (bool, error) { panic("TODO") }
func (v *View) Dropped(path string) error                         { panic("TODO") }
func (v *View) Changes() ([]Change, error)                        { panic("TODO") }
func (v *View) Rebase(snap *index.Snapshot) error                 { panic("TODO") }
func (v *View) Clean() bool                                       { panic("TODO") }
func (v *View) OpenHandles() int                                  { panic("TODO") }
func (v *View) Retire()                                           { panic("TODO") }
func (v *View) Close() error                                      { panic("TODO") }

var _ = newView
