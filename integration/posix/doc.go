// Package posix runs others' suites for POSIX file systems on the tree of a session and, in the same run, on the native
// file system. condafs must pass every case that the native one passes, but for those that POSIX.md lists with the reason.
//
//	go test ./integration/posix                                  all suites
//	go test ./integration/posix -run 'Fsx|Stress' -long 10m      fsx and stress-ng for so long
//	go test ./integration/posix -write                           write the figures of this run into POSIX.md
//
// Each suite is run at three places at once: natively, on a mount with passthrough, and on one where the daemon itself
// reads and writes. fio, stress-ng and Python's own tests come from the system (scripts/prerequisites.sh). The suites
// that are Rust crates are built once, into the tests' cache (CONDAFS_TEST_CACHE), or found in PATH; without CONDAFS_LONG, where they
// are not there yet, they are left out, since building them takes minutes.
package posix
