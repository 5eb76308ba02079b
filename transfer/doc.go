// Package transfer takes existing package directories into a store and writes the
// store's packages out as plain ones.
//
// [Import] treats a directory as it would treat what a client has left in a
// session: every package is checked by its own evidence before it is published,
// and only what has been copied is checked, so that a source that changes
// meanwhile can't slip anything by. [Export] is the way back: its result is used
// by any client and needs no condafs.
//
// Both can be stopped at any time and run again: what is done already is
// recognised by sizes and times, without reading it.
package transfer
