package cow

import (
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// nodeIDs counts the nodes of all views: an id is never used again.
var nodeIDs atomic.Uint64

// Node is one object in one view, for as long as somebody refers to it: the
// references that Lookup and its like hand out, handles, and nodes below it.
// Several names of one file are one node. It keeps its id when it is renamed,
// copied up or sealed.
type Node struct {
	id   uint64
	view *View
	typ  uint32 // type bits of the mode; never changes
	ino  uint64 // as shown
	refs atomic.Int64

	// copying is held while the content is copied up; see the package comment.
	copying sync.Mutex

	// What follows is guarded by view.mu.

	links    []link           // where the node is known to be; none: the root, or it has been removed
	children map[string]*Node // live nodes in a directory, by name
	lower    *object          // what is below; of anything but a directory nil once it is in the overlay
	upper    bool             // is in the overlay
	names    map[string]upperName
	mark     mark
	linked   uint64 // the key in view.linked, or 0
	split    bool   // was one file with names that are files of their own now: may not be changed any more
	away     bool   // a package directory in whose place the view shows a link; see shelve
	lane     *lane  // it is the link to, or was made as the directory; see Volatile
	pins     int
	dropped  bool

	// What remains of it when it has no name: a native descriptor or -1, and
	// what to tell when there is none; nil as long as it has a name.
	orphan int
	last   *remains

	// handles is guarded by view.hmu.
	handles []*Handle
}

// remains are what can be told of a node of which nothing native is left.
type remains struct {
	Attr
	target string // of a symbolic link
}

type link struct {
	dir  *Node
	name string
}

// upperName is one name in a directory of the overlay.
type upperName struct {
	typ      uint32 // type bits of the mode
	whiteout bool
	marked   bool   // has a mark, which must be read
	ino      uint64 // as shown
}

func (v *View) newNode(typ uint32, ino uint64) *Node {
	return &Node{id: nodeIDs.Add(1), view: v, typ: typ, ino: ino, orphan: -1}
}

// ID returns a number that no other node of this process has or will have. The
// first is 1.
func (n *Node) ID() uint64 { return n.id }

// View returns the view that the node belongs to.
func (n *Node) View() *View { return n.view }

func (n *Node) isDir() bool { return n.typ == unix.S_IFDIR }

func (n *Node) isFile() bool { return n.typ == unix.S_IFREG }

// alive reports whether names can be looked up in a directory. v.mu is held.
func (n *Node) alive() bool { return n == n.view.root || len(n.links) > 0 || n.away }

func (n *Node) attach(dir *Node, name string) {
	n.links = append(n.links, link{dir, name})
	if dir.children == nil {
		dir.children = make(map[string]*Node)
	}
	dir.children[name] = n
}

func (n *Node) detach(dir *Node, name string) {
	for i, l := range n.links {
		if l.dir == dir && l.name == name {
			n.links = append(n.links[:i:i], n.links[i+1:]...)
			break
		}
	}
	if dir.children[name] == n {
		delete(dir.children, name)
	}
}

// path returns where the node is, or false if it has no name. v.mu is held.
func (n *Node) path() (string, bool) {
	var parts [32]string
	names := parts[:0]
	for at := n; at != at.view.root; at = at.links[0].dir {
		if len(at.links) == 0 {
			return "", false
		}
		names = append(names, at.links[0].name)
	}
	size := max(len(names)-1, 0)
	for _, name := range names {
		size += len(name)
	}
	var b strings.Builder
	b.Grow(size)
	for i := len(names) - 1; i >= 0; i-- {
		b.WriteString(names[i])
		if i > 0 {
			b.WriteByte('/')
		}
	}
	return b.String(), true
}

// at returns the path of a name in a directory that is alive.
func (n *Node) at(name string) string {
	dir, _ := n.path()
	return join(dir, name)
}

// below reports whether the node is in dir, at any depth, or is dir.
func (n *Node) below(dir *Node) bool {
	for {
		if n == dir {
			return true
		}
		if n == n.view.root || len(n.links) == 0 {
			return false
		}
		n = n.links[0].dir
	}
}

// Forget gives references back. It reports true when none is left: the caller
// should forget the node, too. While it is open or has live nodes in it, it may
// yet be handed out again.
func (v *View) Forget(n *Node, count uint64) bool {
	if n == v.root {
		return false
	}
	v.refs.Add(-int64(count))
	if n.refs.Add(-int64(count)) > 0 {
		return false
	}
	defer v.queue.flush()
	v.mu.Lock()
	defer v.mu.Unlock()
	if n.refs.Load() > 0 {
		return false // somebody has looked it up again meanwhile
	}
	v.tidy(n)
	if v.References() == 0 {
		v.queue.emit(Event{Op: Idle})
	}
	return true
}

// take takes a reference for a caller of the view. v.mu is held.
func (v *View) take(n *Node) {
	n.refs.Add(1)
	v.refs.Add(1)
}

// pin keeps a node while the caller has v.mu for writing, though its children come and go. It is no reference: whoever gives the last
// one back meanwhile is to hear that it was that.
func (n *Node) pin() (unpin func()) {
	n.pins++
	return func() { n.pins-- }
}

// References counts the references that were handed out and not given back.
func (v *View) References() int { return int(v.refs.Load()) }

// tidy lets go of a node, and then of its parents, if nobody refers to them. v.mu is held for writing.
func (v *View) tidy(n *Node) {
	for n != v.root && !n.dropped && n.refs.Load() <= 0 && n.pins == 0 && len(n.children) == 0 && n.liveLane() == nil && !n.isOpen() {
		n.dropped = true
		links := n.links
		for _, l := range links {
			if l.dir.children[l.name] == n {
				delete(l.dir.children, l.name)
			}
		}
		v.unlinkNative(n)
		if n.orphan >= 0 {
			v.closeOrphan(n)
		}
		v.dirs.drop(n)
		for _, l := range links[min(1, len(links)):] {
			v.tidy(l.dir)
		}
		if len(links) == 0 {
			return
		}
		n = links[0].dir
	}
}

// unlinkNative takes a node out of the table of files with several names.
func (v *View) unlinkNative(n *Node) {
	if n.linked != 0 {
		delete(v.linked, n.linked)
		n.linked = 0
	}
}

func (n *Node) isOpen() bool {
	n.view.hmu.Lock()
	defer n.view.hmu.Unlock()
	return len(n.handles) > 0
}
