package fs

import (
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"condafs/cow"
)

// notifier tells the kernel to forget what cow has changed by itself. It is a
// cow.Invalidator: taking note never waits, because the kernel takes a directory's
// lock to drop a name, and a request that we have yet to answer may hold that.
type notifier struct {
	f     *fileSystem
	ended *endedSessions

	mu     sync.Mutex
	queue  []notice
	queued map[notice]bool

	sending sync.Mutex // held while notices are sent, and while none may be

	wake     chan struct{}
	quit     chan struct{}
	quitOnce sync.Once
	done     chan struct{}
}

// notice names an entry of a directory or, with an empty name, a node.
type notice struct {
	node uint64
	name string
}

var _ cow.Invalidator = (*notifier)(nil)

func newNotifier(f *fileSystem) *notifier {
	return &notifier{
		f:      f,
		ended:  newEndedSessions(f),
		queued: make(map[notice]bool),
		wake:   make(chan struct{}, 1),
		quit:   make(chan struct{}),
		done:   make(chan struct{}),
	}
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
	n.ended.add(id)
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
	if n.queued[x] {
		return
	}
	n.queued[x] = true
	n.queue = append(n.queue, x)
	select {
	case n.wake <- struct{}{}:
	default: // awake already
	}
}

// take empties the queue. From here on a notice of the same thing is sent again.
func (n *notifier) take() []notice {
	n.mu.Lock()
	defer n.mu.Unlock()
	batch := n.queue
	n.queue = nil
	clear(n.queued)
	return batch
}

// run sends notices until stop. It starts when the mount is served.
func (n *notifier) run() {
	defer close(n.done)
	again := time.NewTimer(time.Hour)
	defer again.Stop()
	for {
		select {
		case <-n.quit:
			return
		case <-n.wake:
		case <-again.C:
		}
		again.Reset(n.round())
	}
}

// round sends what there is to tell, and returns when to look again without being woken.
func (n *notifier) round() time.Duration {
	n.sending.Lock()
	defer n.sending.Unlock()
	for _, x := range n.take() {
		if x.node == idSessions {
			n.ended.retire(x.name)
		}
		n.send(x)
	}
	return n.ended.reap()
}

// pause has nothing be sent until goOn. It fails if something is being sent for longer
// than patience: the kernel may wait for an answer of ours before it takes it.
func (n *notifier) pause(patience time.Duration) bool {
	for end := time.Now().Add(patience); !n.sending.TryLock(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// goOn ends a pause.
func (n *notifier) goOn() {
	n.sending.Unlock()
	select {
	case n.wake <- struct{}{}:
	default: // awake already
	}
}

// send tells the kernel.
func (n *notifier) send(x notice) {
	// Dropping a name waits for lookups and listings of the directory that are
	// under way, so none of them can bring the old state back afterwards. A name
	// that the kernel doesn't know leaves its listing as it is: drop that, too.
	if x.name != "" {
		n.check(x, n.f.device.forgetEntry(x.node, x.name))
	}
	n.check(x, n.f.device.forgetNode(x.node)) // attributes and all cached pages
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
func (n *notifier) stop() { n.quitOnce.Do(func() { close(n.quit) }) }
