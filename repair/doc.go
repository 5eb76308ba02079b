// Package repair mends a store: what [index.Store.Verify] has found damaged is put
// aside, and its content is looked for where it may be had again.
//
//   - A file of a package is taken out of the package's archive, if the store has it.
//   - Any content is taken from where the same bytes lie: the overlay of a session,
//     the shelf, or quarantine.
//   - A package's list of files that the database has lost lies beside the journal.
//
// Nothing is believed but digests, so it does not matter who could have written there.
// What cannot be had again leaves head, so that clients fetch it: the package, if a
// file of it is lost, and only the archive, if it is that which is lost. Sessions that
// have it in their view keep it, and get EIO for the lost file alone.
package repair
