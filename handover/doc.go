// Package handover lets one program take the place of another within a running process.
//
// The process goes on: its id, its open files and the connection to the kernel stay,
// and only the program changes, by exec(2). What the program knows goes over in an
// [Image], a file in memory; open files go over under their numbers.
//
//	old program                              new program
//	-----------                              -----------
//	draws an image, and goes on
//	Rehearse ───────── a child ────────────▶ reads the image, says what it is, exits
//	stops, draws an image, Replace ────────▶ reads the image, goes on
//	                                         or, if it cannot: Replace ──▶ the old program
//
// This package knows nothing of what is in an image; each layer's part is its own.
//
// Signals that end the process in good order must not be lost on the way: see [Signals]
// and [Guard].
package handover
