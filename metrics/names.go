package metrics

import "github.com/prometheus/client_golang/prometheus"

// descriptions are those of all of condafs's own metrics, in the order in which they are made here.
var descriptions []*prometheus.Desc

func describe(name, help string, labels ...string) *prometheus.Desc {
	d := prometheus.NewDesc("condafs_"+name, help, labels, nil)
	descriptions = append(descriptions, d)
	return d
}

var (
	info    = describe("info", "The daemon's version and its store.", "version", "store")
	started = describe("start_time_seconds", "When the mount began; an upgrade does not change it.")
	head    = describe("head", "Number of the newest snapshot.")

	requestSeconds = describe("request_duration_seconds", "Requests of the kernel, from arrival to reply. What the kernel does by itself (passthrough, its caches) is not in it.", "op")
	requestErrors  = describe("request_errors_total", "Requests that were answered with an error. ENOENT is an everyday answer.", "errno")
	kernelNodes    = describe("kernel_nodes", "Files and directories that the kernel knows.")
	openFiles      = describe("open_files", "Files and directories that clients have open.")

	sessionsStarted = describe("sessions_started_total", "Sessions that began: explicit (condafs run), or of a process that came by itself.", "kind")
	sessions        = describe("sessions", "Live sessions.", "kind", "state")
	overlayBytes    = describe("overlay_bytes", "What sessions have written and not committed.")
	views           = describe("views", "Sessions, and those that are over and that the kernel still knows.")

	publishedUnits   = describe("published_units_total", "What sessions published: packages, archives, files.", "kind", "trust")
	publishedBytes   = describe("published_bytes_total", "Theirs, before sharing of equal content.", "kind", "trust")
	quarantined      = describe("quarantined_total", "What failed its checks and was put aside.")
	quarantinedBytes = describe("quarantined_bytes_total", "Theirs.")

	waits       = describe("download_waits_total", "Clients that waited for another's download in place of making it themselves.")
	waitSeconds = describe("download_wait_seconds_total", "How long they waited.")
	evidence    = describe("evidence_total", "Packages that were checked against their archive: known to be its content, or unpacked to tell.", "result")
	treeCache   = describe("tree_cache_requests_total", "Lists of packages' files that were asked for.", "result")

	packages          = describe("packages", "Packages and archives in the newest snapshot.", "kind", "trust")
	packageBytes      = describe("package_bytes", "Theirs, before sharing of equal content.", "kind", "trust")
	shelfPackages     = describe("shelf_packages", "Packages on the shelf.")
	storeBlobs        = describe("store_blobs", "Files in the store.")
	storeBytes        = describe("store_bytes", "What they take.")
	storeLogicalBytes = describe("store_logical_bytes", "What the newest snapshot would take without sharing of equal content.")
	quarantineEntries = describe("quarantine_entries", "What is in quarantine now.")
	quarantineBytes   = describe("quarantine_bytes", "What it takes.")
	fsFree            = describe("filesystem_free_bytes", "Free space of the store's file system.")
	fsSize            = describe("filesystem_size_bytes", "Size of the store's file system.")

	databaseTables = describe("database_tables", "Tables of the database (Badger).")
	databaseBytes  = describe("database_bytes", "What the database takes on the disk.")
	databaseStale  = describe("database_stale_bytes", "What of it a compaction would drop.")

	gcRuns    = describe("gc_runs_total", "Collections.", "result")
	gcBytes   = describe("gc_freed_bytes_total", "What they freed.")
	gcBlobs   = describe("gc_freed_blobs_total", "Files that they removed.")
	gcSeconds = describe("gc_seconds_total", "How long they took.")
	gcLast    = describe("gc_last_success_timestamp_seconds", "When the last one ended that did not fail.")

	scrubRunning   = describe("scrub_running", "1 while the scrub reads the store.")
	scrubRate      = describe("scrub_rate_bytes", "Bytes a second that the scrub reads at most; 0: it does not by itself.")
	scrubPassBytes = describe("scrub_pass_bytes", "What the pass under way has read; 0 if there is none.")
	scrubPassTotal = describe("scrub_pass_total_bytes", "What it has to read, about.")
	scrubFinished  = describe("scrub_last_finished_timestamp_seconds", "When the last whole pass ended.")
	scrubProblems  = describe("scrub_last_problems", "What the last whole pass found, mended, found lost, and left.", "outcome")
)
