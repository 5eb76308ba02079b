// Package scrub reads a whole store in the background, as the disk has it, so that what
// the disk loses in silence is found while there is another copy.
//
// A pass has [index.ScrubParts] parts. How far it has come is written into the store, and
// it goes on there when the store is opened again. It reads at a bounded rate, on a thread
// of the idle I/O class, so that it takes only what nobody else wants.
//
// What it finds damaged goes into quarantine at once, where no client reads it, and is
// mended as `condafs repair` does it: by [Options.Mend]. That takes some walks over the
// index. So that a disk that dies does not keep the daemon busy with them, it has at most
// a tenth of the time; what is found meanwhile waits and is mended together.
package scrub
