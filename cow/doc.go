// Package cow gives processes private, stable views of a store of packages, and
// turns what they complete into commits. It knows nothing of FUSE: a file
// system server translates requests into calls of this package.
//
// # Words
//
// A view ([View]) is a pinned snapshot with a private overlay on top. A session
// ([Session]) is some processes that share one view. The engine ([Engine])
// decides who belongs to which session, and commits what sessions complete.
//
// # From a write to a commit
//
// A client writes into the overlay: native files below sessions/ID/upper in the
// store's directory. The view tells the engine about closed and renamed files.
// When the last file of a unit (see package conda) has been closed, the engine
//
//  1. harvests the unit, hashes its files and checks them against the evidence
//     at hand; what fails stays in the overlay, for its client may mend it;
//  2. seals it: a redo manifest is written, the files move into objects/, and the
//     view shows the very same content from there, read-only below the overlay;
//  3. publishes it: one transaction of the store merges it with what others have
//     committed since the session's snapshot, and moves the head.
//
// What has no such moment of completion (lists of addresses, repodata, plain
// files, deletions) is committed when the session ends or on request.
//
// # What always holds
//
//   - A view shows its snapshot and its own writes, and nothing that anybody else
//     does. Sealing changes where a file lies, never what it shows.
//   - A unit is published whole or not at all, and only if it has not changed
//     since it was checked: each change counts up the unit's generation, and
//     sealing fails when that has moved or a writer is there.
//   - Nothing that a client completed is lost: until the head holds a unit, it is
//     in the overlay, or it is sealed with a manifest from which the next [New]
//     makes good. An error while committing, a full disk for one, leaves it there
//     for the next try.
//   - A deletion is published only if the thing is still what the session saw.
//   - What fails its checks at the end is put into quarantine, not thrown away.
//
// # Locks of the engine
//
// Engine.mu guards the sessions and who belongs to them. A session's work lock is
// held shared by the jobs that commit single units and alone by what commits or
// ends the session; its mu guards its jobs and items. They are taken in this
// order: work, publishing, then one of Engine.mu and Session.mu, under which
// neither the store nor a changing method of the view is called. view.go says
// what holds inside of a view.
package cow
