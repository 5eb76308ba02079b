// Package index is the store: what condafs knows and keeps.
//
// A store is a directory:
//
//	condafs-store.json  format version and identity; written first, atomically
//	lock                one daemon holds it by flock; its pid is inside
//	objects/ab/cdef…    blobs: a file's bytes, mode 0444, named by their BLAKE3-256
//	staging/            files on their way to objects/; emptied when a store is opened
//	sessions/ID/        overlays; package cow fills and empties them
//	quarantine/ID/      what was refused, kept for people to look at
//	journal/, trees/    what db/ can be made of again (journal.go)
//	db/                 Badger: entries, trees, commits, sessions, quarantine, head
//	reserve             a few MiB to close and reopen with when the disk is full
//
// # Snapshots
//
// Badger is used in managed mode, where every key has versions and the writer picks
// the version number. A commit writes its changed entries at a new number, its Seq,
// and moves head to it. A snapshot is no more than a Seq: reading at it gives what
// was committed up to then. So a commit costs what it changes, a snapshot costs
// nothing, and opening a store does not depend on how much is in it.
//
// A Seq that somebody pins (a Snapshot, or a session's record on disk) stays
// readable: Badger may drop only versions that every pinned Seq and head have left
// behind (SetDiscardTs).
//
// # Crashes
//
// A commit happens in this order: blobs are written and renamed into objects/; one
// syncfs makes them and their directories durable; one synchronous Badger
// transaction writes trees, entries, the commit record and head. A crash leaves the
// old head or the new one, and every blob that it refers to. Blobs that nothing
// refers to yet are garbage. Updates that wait for each other share the syncfs and
// the transaction. What is too large for a Badger transaction goes through a redo
// record (redo.go).
//
// # Garbage
//
// GC marks what head and the pinned snapshots reach and removes the rest, while
// commits go on. Between adopting a blob and the commit that refers to it, a Hold
// protects it (hold.go tells how this excludes every race).
package index
