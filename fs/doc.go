// Package fs puts cow's views before the kernel: it is the FUSE server.
//
// It translates and decides nothing. What a name means, what a write does and
// when a package is published is cow's business; this package turns FUSE's
// requests into calls of cow.View, and cow's answers into FUSE's replies.
//
// # The tree
//
//	MOUNT/pkgs, MOUNT/rattler  magic symlinks, answered for each caller
//	MOUNT/unshelved            the same as pkgs, without what is on the shelf
//	MOUNT/.sessions/ID         one session's tree (a cow.View)
//	MOUNT/.head                the newest snapshot, read-only, as the owner sees it (a cow.View)
//	MOUNT/.condafs             how to reach the daemon, as JSON
//
// The kernel asks for everything below .sessions/ID by node id, and a node id
// belongs to one session for good. So nothing but the two symlinks depends on
// who calls, and the kernel may keep names, attributes, listings and contents
// of a session's tree for an hour: they change by requests that pass through
// this very mount, of which the kernel knows, or by cow's own doing (a package
// that a view gains, say), of which cow tells it through an Invalidator.
//
// # Contents
//
// Where the kernel and our privileges allow it, the kernel reads and writes a
// file's native file itself (passthrough); see passthrough.go for the rules.
// Elsewhere contents go through READ and WRITE and the kernel's page cache.
//
// # Never ask yourself
//
// A process that waits for its own mount's answer can neither be answered nor end once
// it is killed: the thread that waits keeps the connection open. So nothing here, and
// nothing in the daemon, makes a request of the mount; other processes do that for it.
// The one exception is device.wake, for a moment, in an upgrade. The daemon's witness
// ends the connection should that come to pass.
//
// # Locks
//
// Byte-range locks and flocks are the kernel's own: a node has one inode in the
// kernel, whatever its contents are backed by, so processes of one session
// exclude each other as on a local disk.
package fs
