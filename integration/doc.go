// Package integration tests the built condafs binary from outside: real mounts, real clients, real deaths.
//
// It holds tests, and the demonstration of the problem and its cure with real clients, for people and for the tests:
//
//	python3 integration/demonstration -n 8
//
// Each test mounts a store of its own below its temporary directory and unmounts it again, also
// when it fails. The clients are Python programs in clients/ (their README is their module docstrings):
//
//	prepare.py         makes the virtual environment and the channel, once
//	channel.py         makes a channel of generated packages, and truth.json, which says what is right
//	serve.py           serves it over HTTP, counts what it sends, and breaks off when told to
//	conda_shaped       does to a package cache what conda does, in conda's order, with conda's races
//	rattler_client.py  installs with py-rattler
//	cph_client.py      extracts with conda-package-handling or conda-package-streaming
//	check.py           judges environments and caches by their bytes; nobody's exit status is believed
//
// The tests make what they need by themselves, a binary with the race detector too. Environment variables:
//
//	CONDAFS_TEST_CACHE   where the virtual environment and the channel are kept (default: the user's cache directory, for root /var/cache)
//	CONDAFS_TEST_BINARY  a binary to test instead of building one
//	CONDAFS_TEST_CHANNEL tiny, quick or full: the sizes of the two large packages (default: tiny, with CONDAFS_LONG quick)
//	CONDAFS_LONG         set: the longest cases too, in all packages (internal/longrun)
//	CONDAFS_TEST_LOAD    full: 10,000 sessions one after the other, 200 Python clients at once
//	CONDAFS_TEST_SOAK    how long the soak goes on, as in 30m; CONDAFS_TEST_SOAK_CSV names a file for its samples
//	CONDAFS_TEST_KEEP    set: leave the temporary directories of failed tests, for a look at the daemon's log
package integration
