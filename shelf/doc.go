// Package shelf keeps a plain directory of whole, verified packages beside the mount,
// from which clients link natively.
//
// conda and mamba search several package directories and write to the first that
// they can write to. So CONDA_PKGS_DIRS=MOUNT/unshelved,SHELF gives a client its private
// view for what it downloads, and a native, read-only directory for all that was
// verified before: no FUSE request per file is left on the way into an environment.
//
//	shelf/pkgs/NAME/   a package, whole: it appears and vanishes by one rename
//	shelf/pkgs/urls.txt  leads to what nobody can write, by which clients see that
//	                   they can't write here
//	shelf/trees/NAME   a symbolic link to the digest of the tree that is on the shelf,
//	                   which also says whether it leaves
//	shelf/new/         packages in the making
//	shelf/grave/       what is being removed
//
// # What a client sees, and when
//
// A view that is used beside the shelf hides the packages that were on the shelf when
// its session began: conda links from a directory that it can write to before any
// other, and would take them through FUSE. What is hidden must stay on the shelf as
// long as that session. So every session holds a Ticket, and a package leaves in two
// steps: first it loses its record, without which new clients don't take it; when all
// tickets from before that are back, it goes. See leave.go.
//
// rattler's clients know one package directory only, and follow links. So they have a
// shelf of their own, of their user's packages, and a view shows a link to it in the
// place of each package that is there.
//
// # Bytes
//
// A file on the shelf shares its bytes with the store's blob by a reflink where the
// file system can. Elsewhere it is another name of the blob (index.Link), or a copy. A
// client that edits a linked file in place changes what is on the shelf, as it changes
// conda's own cache today; Check finds that by the file's size and time, and mends it.
package shelf
