// Package bench measures condafs and what people do instead of it, side by side, on the machine it runs on.
//
// The work is that of package demo: real client processes that do what conda does, a channel that is served from this
// process, environments on the native disk. Each way of sharing a cache ([Place]) does it with an empty cache and with
// a full one, with one client and with many. Every environment is compared with the truth byte by byte; a run that
// left a broken one counts as broken, and its time is not used.
//
// Machines drift: they warm up, others use them. So the places take turns, every second round in the opposite order,
// and what is reported is the median and the ratio to the native directory in the same report, never a time alone.
// Clients here do nothing but work on files, while real ones also start an interpreter, solve and compile. So these
// ratios are larger than what users see.
//
// [Compare] compares places. [RunFiles] compares single operations on files. [RunStores] shows what the size of the store costs.
//
// Files: plan.go says what is measured, run.go does it, place.go prepares caches, mount.go mounts, figure.go makes
// figures of runs, report.go prints them; files.go and worker.go measure operations on files, stores.go and fill.go stores of several sizes.
package bench
