// Package lossyfs is a file system for tests that loses what was not synced.
//
// It lives in memory and is mounted by FUSE, so that any program can use it, memory maps
// included. What a disk would hold is kept apart from what programs see: contents,
// attributes and names get there by fsync, of the file for its contents and attributes,
// of the directory for all names in it. [FS.AfterPowerLoss] is the file system that a power
// failure at this moment would leave. Of what was not synced, chance decides by a seed
// what is there, in any combination that a [Model] allows: a name without contents, a
// size without bytes, the last of three writes without the others, a page torn between
// two sectors.
//
// The kernel does not tell a FUSE server of syncfs(2). Fsync of the root directory
// stands for it here: tests do that at the right moment.
//
// [FS.Inject] decides about each operation before it is done: an errno, a short write, or
// that the power fails right now.
package lossyfs
