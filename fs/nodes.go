package fs

import (
	"sync"
	"sync/atomic"
	"time"

	"condafs/cow"
)

// Node ids of the mount's own, fixed nodes. Nodes of views follow after them:
// idOffset is added to cow's id, which starts at 1 and is never used twice.
const (
	idRoot      = 1 // FUSE's own choice
	idPkgs      = 2
	idRattler   = 3
	idSessions  = 4
	idHead      = 5
	idInfo      = 6
	idUnshelved = 7
	idOffset    = 1024
)

// node is a node of a view that the kernel knows, or the root of a view.
type node struct {
	id   uint64
	tree *cow.Node
	view *cow.View
	// over says that the session has ended. All nodes of a view share it.
	over *atomic.Bool
	// valid is how long its attributes and the names in it hold good, until then.
	valid time.Duration

	// refs counts the kernel's references to the root of a session, which cow
	// does not count. Guarded by its shard of the table.
	refs uint64
	// private hides the root of a session, or the head, from other users.
	private bool

	open openState
}

// ttl is how long the kernel may believe what it is told of the node now.
func (nd *node) ttl() time.Duration {
	if nd.over.Load() {
		return 0
	}
	return nd.valid
}

// nodeTable finds nodes by id. It holds no counts of its own but those of
// session roots: cow counts the references that its answers hand to the kernel.
type nodeTable struct {
	shards [32]nodeShard
}

type nodeShard struct {
	mu sync.RWMutex
	m  map[uint64]*node
}

func newNodeTable() *nodeTable {
	t := &nodeTable{}
	for i := range t.shards {
		t.shards[i].m = make(map[uint64]*node)
	}
	return t
}

func (t *nodeTable) shard(id uint64) *nodeShard { return &t.shards[id%uint64(len(t.shards))] }

// get returns the node with this id, or nil.
func (t *nodeTable) get(id uint64) *node {
	s := t.shard(id)
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.m[id]
}

// add returns the node of a tree node that cow has just handed out, with a
// reference that now is the kernel's. It inherits the timeout of its directory.
func (t *nodeTable) add(n *cow.Node, dir *node) *node {
	id := n.ID() + idOffset
	s := t.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	nd := s.m[id]
	if nd == nil {
		nd = &node{id: id, tree: n, view: dir.view, over: dir.over, valid: dir.valid}
		s.m[id] = nd
	}
	return nd
}

// addRoot returns the node of a session's root, with one more reference.
func (t *nodeTable) addRoot(v *cow.View) *node {
	n := v.Root()
	id := n.ID() + idOffset
	s := t.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	nd := s.m[id]
	if nd == nil {
		nd = &node{id: id, tree: n, view: v, over: new(atomic.Bool), valid: forever, private: true}
		s.m[id] = nd
	}
	nd.refs++
	return nd
}

// forget drops references of the kernel. The shard stays locked meanwhile: an
// answer that hands out the node again either has its reference already, which
// cow then counts, or adds the node anew afterwards.
func (t *nodeTable) forget(id, refs uint64) {
	s := t.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	nd := s.m[id]
	if nd == nil {
		return
	}
	var gone bool
	if nd.private {
		nd.refs -= min(refs, nd.refs)
		gone = nd.refs == 0
	} else {
		gone = nd.view.Forget(nd.tree, refs)
	}
	if gone {
		delete(s.m, id)
		if len(s.m) == 0 {
			s.m = make(map[uint64]*node) // a map keeps the room that it once needed
		}
	}
}

// of returns the nodes of a view.
func (t *nodeTable) of(v *cow.View) []*node {
	var list []*node
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.RLock()
		for _, nd := range s.m {
			if nd.view == v {
				list = append(list, nd)
			}
		}
		s.mu.RUnlock()
	}
	return list
}

// len counts the nodes.
func (t *nodeTable) len() int {
	n := 0
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.RLock()
		n += len(s.m)
		s.mu.RUnlock()
	}
	return n
}
