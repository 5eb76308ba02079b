// Package demo shows, on the machine it runs on, what concurrent clients do to a package cache and that condafs
// cures it: N processes share a plain directory, then N share a mount, and the bytes of every environment and of the
// caches are judged afterwards.
//
// The clients are real processes (this very binary, started again), because the races are between processes. Each
// does what conda does to a package cache, in conda's order: it touches urls.txt to see whether it may write, keeps
// repodata under a byte lock, downloads into NAME.partial and renames, extracts beside the archive, writes
// repodata_record.json last, links into an environment, and checks no more than conda checks. There is no sleep in it
// but conda's own (a second between tries for a lock) and no check left out to make the plain directory look bad:
// integration/clients/conda_shaped is the same client in Python, and the numbers agree with those of the real conda.
//
// The channel is made in memory and served from this process, so the demonstration needs no network.
//
// Files: channel.go makes packages, server.go serves them, client*.go is the client, judge.go looks at the results,
// run.go is the demonstration, report.go prints it. lab.go lends all that to package bench.
package demo
