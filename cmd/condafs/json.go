package main

import "github.com/spf13/cobra"

// jsonTopic documents the shapes that --json prints. The types are those of the
// package control; this is what a script's author reads.
func jsonTopic() *cobra.Command {
	return &cobra.Command{
		Use:   "json",
		Short: "The shapes that --json prints",
		Long: `With --json a command prints one JSON value on standard output. Fields are only
ever added. Times are RFC 3339, sizes bytes, lists never null; fields marked ?
may be missing. Errors stay on standard error, and exit statuses are the same.

mount     {mount_point, store, socket, log?, pid, version}
umount    {pid, mount_point}
upgrade   {id?, state: rehearsed|done, from, to, pid, mount_point, time, pause_ms, sessions, files}
config    {file, read, settings: [{key, value, from: default|file|environment|command line,
            where?}]}
doctor    {findings: [{check, state: ok|warning|wrong, what, mend?}], fixed: [mount point]}
setup     {mount_point, steps: [{what, state: planned|done before|done|undone}],
            imported: [{directory, things, rejected}]}
sessions  [{id, uid, label?, command?, explicit, ephemeral?, members: [pid], started,
            base, dirty, overlay_bytes, state: active|kept|waiting}]
commit    {head, committed: [{path, kind, trust, deleted?}],
           pending, dropped, quarantined: [{path, why}]}
discard   {session}
status    {version, pid, started, mount_point?, store, store_id, owner, head, packages,
           archives, blobs, stored_bytes, logical_bytes, sessions, quarantined_bytes,
           quarantine: [{id, time, path, reason, session, uid, bytes}],
           scrub: {rate, every_seconds, running, next?, error?, pass?, last?: {as of scrub}},
           upgraded?: {as of upgrade; state failed too, with why}}
           (pid is 0 without a daemon)
top       {time, status: {as of status}, sessions: [as of sessions], commits: [as of log],
           activity?: {since, latency_bounds_seconds, requests: [{op, count, seconds, buckets}],
            errors: [{errno, count}], sessions_started, sessions_started_explicit,
            published: [{kind, trust, units, bytes}], quarantined, quarantined_bytes,
            waits, waited_seconds, known, unpacked, packages: [{kind, trust, count, bytes}],
            database: {tables, stale_bytes, file_bytes, trees_asked, tree_hits},
            gc: {runs, failed, blobs, bytes, seconds, last?}, free_bytes, size_bytes}}
           (activity is the owner's)
ls        [{name, directory: pkgs|rattler/pkgs, trust: verified|consistent|opaque, shared,
            owner, extracted, size, sha256?, archive?: {file_name, size, sha256?, trust}}]
ls NAME   the same object, and entries: [{path, type: file|directory|symlink, mode, size,
            blake3?, target?}]
log       [{seq, time, uid, pid, session, label?, command?, what: [line]}]
verify    {blobs, bytes, hashed, full, problems: [{kind: missing|size|content|tree|foreign|
           index|journal|shelf, digest?, file?, detail?, quarantined?, fixed?, paths: [path]}]}
repair    the same object, and removed: [path], left
scrub     {started, finished?, blobs, bytes, total?, found, mended, lost, removed, left,
           problems?: [as of verify]}
rebuild   {store, head, entries, trees, commits, exact, aside?, damage: [line],
           lost_trees: [path], repair: {as above}}
gc        {dry_run, blobs, trees, bytes, kept_blobs, kept_bytes, removed: [{path, bytes, used}],
           removed_bytes, linked, over, no_times, awaited_bytes}
import    {imported: [{path, kind, trust}], present, rejected, skipped: [{path, why}], bytes}
export    {exported: [name], present, rejected: [{path, why}], bytes}
version   {version, go, os, arch}
bench     {machine: {cpus, memory, kernel, load}, n, rounds, link: {bytes_per_second,
           latency_seconds}, packages, files, archive_bytes,
           figures: [{client: conda|rattler, place: native|copies|each|mount|run, clients,
            warm, at_once, seconds, samples: [seconds], commit_seconds, ratio, ratio_at_once,
            served, cache_bytes, total_bytes, broken, errors: [line]}]}
bench store
          {machine, rounds, stores: [{packages, store_bytes, mount_seconds, list_seconds,
            look_seconds, commit_seconds, mounted, listed, looked: {resident, anonymous}}]}`,
	}
}
