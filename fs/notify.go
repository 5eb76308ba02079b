package fs

import (
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"

	"condafs/cow"
)

// notifier tells the kernel to forget what cow has changed by itself. It is a
// cow.Invalidator: taking note never waits, because the kernel takes a directory's
// lock to drop a name, and a request that we have yet to answer may hold that.
type notifier struct {
	f *fileSystem

	mu     sync.Mutex
	wake   sync.Cond
	queue  []notice
	queued map[notice]bool
	closed bool
	done   chan struct{}
}

// notice names an entry of a directory or, with an empty name, a node.
type notice struct {
	node uint64
	name string
}

var _ cow.Invalidator = (*notifier)(nil)

func newNotifier(f *fileSystem) *notifier {
	n := &notifier{f: f, queued: make(map[notice]bool), done: make(chan struct{})}
	n.wake.L = &n.mu
	return n
}

// EntryChanged implements cow.Invalidator.
func (n *notifier) EntryChanged(dir *cow.Node, name string) {
	n.add(notice{n.id(dir), name})
}

// NodeChanged implements cow.Invalidator.
func (n *notifier) NodeChanged(node *cow.Node) {
	n.add(notice{n.id(node), ""})
}

// SessionEnded implements cow.Invalidator.
func (n *notifier) SessionEnded(id string) {
	n.add(notice{idSessions, id})
}

func (n *notifier) id(node *cow.Node) uint64 {
	if node == n.f.head.tree {
		return idHead
	}
	return node.ID() + idOffset
}

func (n *notifier) add(x notice) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed || n.queued[x] {
		return
	}
	n.queued[x] = true
	n.queue = append(n.queue, x)
	n.wake.Signal()
}

// run sends notices until stop. It starts when the mount is served.
func (n *notifier) run() {
	defer close(n.done)
	for {
		n.mu.Lock()
		for len(n.queue) == 0 && !n.closed {
			n.wake.Wait()
		}
		batch, closed := n.queue, n.closed
		n.queue = nil
		// From here on a notice of the same thing must be sent again.
		clear(n.queued)
		n.mu.Unlock()
		if closed {
			return
		}
		for _, x := range batch {
			n.send(x)
		}
	}
}

// send tells the kernel.
func (n *notifier) send(x notice) {
	// Dropping a name waits for lookups and listings of the directory that are
	// under way, so none of them can bring the old state back afterwards. A name
	// that the kernel doesn't know leaves its listing as it is: drop that, too.
	if x.name != "" {
		n.check(x, n.f.server.EntryNotify(x.node, x.name))
	}
	n.check(x, n.f.server.InodeNotify(x.node, 0, 0)) // attributes and all cached pages
}

// check logs what is wrong. ENOENT only means that the kernel doesn't have the
// node or the name, EBADF and ENODEV that the mount is going away.
func (n *notifier) check(x notice, st fuse.Status) {
	switch st {
	case fuse.OK, fuse.ENOENT, fuse.EBADF, fuse.ENODEV:
		return
	}
	n.f.log.Warn("the kernel did not take an invalidation", "node", x.node, "name", x.name, "error", st)
}

// stop ends run. What is queued is of no interest to a kernel that has unmounted.
func (n *notifier) stop() {
	n.mu.Lock()
	n.closed = true
	n.wake.Signal()
	n.mu.Unlock()
}
