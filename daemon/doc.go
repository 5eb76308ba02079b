// Package daemon is one running condafs: a store, an engine over it, the mount
// that shows the engine's views, and the socket that takes commands.
//
// [Run] holds them together: they are started in that order and stopped in the
// opposite one, whatever ends the daemon (a signal, `condafs umount`, somebody's
// fusermount -u). [OpenDirect] gives the same commands on a store that no daemon
// holds.
package daemon
