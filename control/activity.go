package control

import "time"

// Activity is what a daemon has done since its program began to serve, and what its store is made of. What is counted
// begins at 0 with each mount and each upgrade.
type Activity struct {
	Since         time.Time        `json:"since"` // when it began to count
	LatencyBounds []float64        `json:"latency_bounds_seconds"`
	Requests      []RequestCount   `json:"requests"` // of the kernel
	Errors        []ErrnoCount     `json:"errors"`   // what it was answered; ENOENT is an everyday answer
	Started       int64            `json:"sessions_started"`
	Explicit      int64            `json:"sessions_started_explicit"` // by `condafs run` or the like
	Published     []PublishedCount `json:"published"`
	// Quarantined and its bytes count what was put into quarantine.
	Quarantined      int64 `json:"quarantined"`
	QuarantinedBytes int64 `json:"quarantined_bytes"`
	// Waits count clients that waited for another's download in place of making it themselves.
	Waits      int64   `json:"waits"`
	WaitedSecs float64 `json:"waited_seconds"`
	// Known counts packages that were known to be their archive's content, Unpacked those that had to be compared with it.
	Known    int64          `json:"known"`
	Unpacked int64          `json:"unpacked"`
	Packages []PackageCount `json:"packages"` // in the newest snapshot
	Database DatabaseState  `json:"database"`
	GC       GCCount        `json:"gc"`
	// FreeBytes and SizeBytes are those of the store's file system, FreeBytes as far as the daemon may use them.
	FreeBytes int64 `json:"free_bytes"`
	SizeBytes int64 `json:"size_bytes"`
}

// RequestCount is about one operation.
type RequestCount struct {
	Op      string  `json:"op"`
	Count   uint64  `json:"count"`
	Seconds float64 `json:"seconds"` // that they took all together
	// Buckets count those that took less than the bound at the same place; the last one, those that took longer.
	Buckets []uint64 `json:"buckets"`
}

// ErrnoCount is about one error, by its name in errno.h.
type ErrnoCount struct {
	Errno string `json:"errno"`
	Count uint64 `json:"count"`
}

// PublishedCount is about units of one kind and trust that were published.
type PublishedCount struct {
	Kind  string `json:"kind"`
	Trust string `json:"trust"`
	Units int64  `json:"units"`
	Bytes int64  `json:"bytes"`
}

// PackageCount is about packages of one kind (package, archive) and trust.
type PackageCount struct {
	Kind  string `json:"kind"`
	Trust string `json:"trust"`
	Count int64  `json:"count"`
	Bytes int64  `json:"bytes"`
}

// DatabaseState tells how large the index is.
type DatabaseState struct {
	Tables     int   `json:"tables"`
	StaleBytes int64 `json:"stale_bytes"`
	FileBytes  int64 `json:"file_bytes"`
	TreesAsked int64 `json:"trees_asked"`
	TreeHits   int64 `json:"tree_hits"`
}

// GCCount is about collections.
type GCCount struct {
	Runs    int64     `json:"runs"`
	Failed  int64     `json:"failed"`
	Blobs   int64     `json:"blobs"`
	Bytes   int64     `json:"bytes"`
	Seconds float64   `json:"seconds"`
	Last    time.Time `json:"last,omitzero"` // when the last that did not fail ended
}
