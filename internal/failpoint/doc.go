// Package failpoint names the moments at which tests let the daemon die, fail or wait.
//
// The code calls [Hit], or [Err] where a failure makes sense, at each [Point]. In a
// normal build both are empty and compile to nothing; TestShippedBinary looks into
// the binary. With the build tag condafs_faults a point does what it was armed with:
//
//   - by the environment, for a whole process:
//     CONDAFS_FAILPOINTS='seal.moved=kill@3 commit.sync=delay:20ms blob.ready=ENOSPC@5+'
//   - by [Set], for one store within a process that has several.
//
// CONDAFS_FAILPOINTS_LOG names a file to which each point is appended, with a line of
// its own, when it is passed for the first time: so tests know what they have reached.
//
// Failures of single system calls need no points: package lossyfs gives them.
package failpoint
