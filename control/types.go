package control

import (
	"context"
	"time"
)

// API is all that a daemon can be asked for. Implementations are safe for
// concurrent use. Errors carry a fault.Kind that survives the socket.
type API interface {
	// Status describes the daemon and its store.
	Status(ctx context.Context) (*Status, error)
	// Activity tells what the daemon has done since it began to serve.
	Activity(ctx context.Context) (*Activity, error)
	// Sessions lists the live sessions that the caller may see.
	Sessions(ctx context.Context) ([]Session, error)
	// Start starts an explicit session whose first member is the calling process.
	Start(ctx context.Context, r StartRequest) (*Started, error)
	// End ends an explicit session after its command has exited.
	End(ctx context.Context, id string, r EndRequest) (*Report, error)
	// Commit publishes what is complete in a session, which goes on.
	Commit(ctx context.Context, id string) (*Report, error)
	// Discard ends a session and throws away what it has not committed.
	Discard(ctx context.Context, id string) error
	// Packages lists the packages of the newest snapshot that the caller may use.
	Packages(ctx context.Context) ([]Package, error)
	// Package lists one package's files.
	Package(ctx context.Context, name string) (*PackageFiles, error)
	// Log lists commits, the newest first; limit 0 means all that are kept.
	Log(ctx context.Context, limit int) ([]Commit, error)
	// Verify checks the store. Problems are in the report and no error.
	Verify(ctx context.Context, r VerifyRequest, progress ProgressFunc) (*VerifyReport, error)
	// Repair checks the store and mends what it finds damaged.
	Repair(ctx context.Context, r RepairRequest, progress ProgressFunc) (*RepairReport, error)
	// Scrub reads all of the store, as the disk has it, at full rate, and mends what it
	// finds damaged. It goes on with the scrub under way, if there is one.
	Scrub(ctx context.Context, r ScrubRequest, progress ProgressFunc) (*ScrubPass, error)
	// GC frees what nothing refers to.
	GC(ctx context.Context, r GCRequest, progress ProgressFunc) (*GCReport, error)
	// Import takes the packages of a directory into the store.
	Import(ctx context.Context, r ImportRequest, progress ProgressFunc) (*ImportReport, error)
	// Export writes packages of the newest snapshot to a plain directory.
	Export(ctx context.Context, r ExportRequest, progress ProgressFunc) (*ExportReport, error)
	// Upgrade lets another program take the daemon's place. It returns when that is about to
	// happen; Upgraded tells what has come of it.
	Upgrade(ctx context.Context, r UpgradeRequest, progress ProgressFunc) (*Upgrade, error)
	// Upgraded describes an upgrade that Upgrade has begun.
	Upgraded(ctx context.Context, id string) (*Upgrade, error)
	// Stop ends the daemon: it unmounts, ends the sessions and gives up the store.
	Stop(ctx context.Context, r StopRequest, progress ProgressFunc) (*Stopped, error)
}

// Status is the answer to `condafs status`.
type Status struct {
	Version          string       `json:"version"`
	PID              int          `json:"pid"`                   // the daemon's; 0 when the store was read without one
	Started          time.Time    `json:"started"`               // when the daemon started
	Upgraded         *Upgrade     `json:"upgraded,omitempty"`    // the last time that another program took the daemon's place, or was to
	MountPoint       string       `json:"mount_point,omitempty"` // empty without a daemon
	Store            string       `json:"store"`                 // the store's directory
	StoreID          string       `json:"store_id"`              // random, made with the store
	Owner            uint32       `json:"owner"`                 // uid that the daemon runs as
	Head             uint64       `json:"head"`                  // number of the newest snapshot
	Packages         int64        `json:"packages"`              // extracted packages in head
	Archives         int64        `json:"archives"`              // archives in head
	Blobs            int64        `json:"blobs"`                 // files in objects/
	StoredBytes      int64        `json:"stored_bytes"`          // what they take
	LogicalBytes     int64        `json:"logical_bytes"`         // what head would take without sharing of equal content
	Sessions         int          `json:"sessions"`              // live sessions, everybody's
	Shelf            *Shelf       `json:"shelf,omitempty"`       // absent without one
	Users            *Users       `json:"users,omitempty"`       // absent without a daemon, or if it lets no other users in
	Quarantine       []Quarantine `json:"quarantine"`            // the caller's, or everybody's for the owner
	QuarantinedBytes int64        `json:"quarantined_bytes"`
	Scrub            Scrub        `json:"scrub"`
	Runtime          *Runtime     `json:"runtime,omitempty"` // of the daemon, for its owner and root
}

// Runtime is what the daemon's process holds at the moment.
type Runtime struct {
	Goroutines    int   `json:"goroutines"`
	Descriptors   int   `json:"descriptors"`    // open in the daemon
	HeapBytes     int64 `json:"heap_bytes"`     // of objects, those that wait to be collected too
	ResidentBytes int64 `json:"resident_bytes"` // of the process; pages of mapped files count
	Views         int   `json:"views"`          // sessions, and those that are over and that the kernel still knows
	Nodes         int   `json:"nodes"`          // that the kernel knows
	Files         int   `json:"files"`          // files and directories that clients have open
}

// Quarantine is something that a client made and that failed its evidence.
type Quarantine struct {
	ID      string    `json:"id"`
	Time    time.Time `json:"time"`
	Path    string    `json:"path"`   // its name on the mount
	Reason  string    `json:"reason"` // why it was not published
	Session string    `json:"session"`
	UID     uint32    `json:"uid"`
	Bytes   int64     `json:"bytes"`
}

// Users is what holds between users of a mount.
type Users struct {
	Sharing string   `json:"sharing"`           // whose verified packages all get: trusted, all or none
	Trusted []uint32 `json:"trusted,omitempty"` // beside root and the owner
	Limits  Amounts  `json:"limits"`            // for each but root and the owner; 0: no limit
	Usage   []Usage  `json:"usage"`             // the caller's, or everybody's for the owner
}

// Amounts are numbers of what is bounded.
type Amounts struct {
	Sessions int64 `json:"sessions"`
	Open     int64 `json:"open"`  // files and directories
	Bytes    int64 `json:"bytes"` // in overlays, and of what is only this user's in the store
	Files    int64 `json:"files"` // in overlays
}

// Usage is what a user with limits has. Bytes and files are no less than that.
type Usage struct {
	UID uint32 `json:"uid"`
	Amounts
}

// Shelf is the directory from which clients take verified packages natively.
type Shelf struct {
	Path     string `json:"path"`
	Sharing  string `json:"sharing"` // how its files get their bytes: link, reflink or copy
	Packages int    `json:"packages"`
}

// Started is a new explicit session.
type Started struct {
	ID    string `json:"id"`
	Shelf string `json:"shelf,omitempty"` // a second directory of packages; see StartRequest.BesideShelf
}

// Session is a live session.
type Session struct {
	ID           string    `json:"id"`
	UID          uint32    `json:"uid"`
	Label        string    `json:"label,omitempty"`
	Command      string    `json:"command,omitempty"`
	Explicit     bool      `json:"explicit"`            // started by `condafs run`
	Ephemeral    bool      `json:"ephemeral,omitempty"` // never commits anything
	Members      []int     `json:"members"`             // pids
	Started      time.Time `json:"started"`
	Base         uint64    `json:"base"`          // number of the snapshot that it sees
	Dirty        bool      `json:"dirty"`         // it has uncommitted changes
	OverlayBytes int64     `json:"overlay_bytes"` // what they take
	State        string    `json:"state"`         // active, kept (its command failed; --on-failure keep) or waiting (ended, not committed yet)
}

// Report says what a commit did.
type Report struct {
	Head        uint64      `json:"head"` // the newest snapshot afterwards
	Committed   []Committed `json:"committed"`
	Pending     []Dropped   `json:"pending"` // stays in the overlay, and why it could not be committed
	Dropped     []Dropped   `json:"dropped"` // thrown away, and why
	Quarantined []Dropped   `json:"quarantined"`
}

// Committed is a unit that was published.
type Committed struct {
	Path  string `json:"path"`
	Kind  string `json:"kind"`
	Trust string `json:"trust"` // verified, consistent or opaque
	// Deleted means that the session removed it.
	Deleted bool `json:"deleted,omitempty"`
}

// Dropped is a unit that was not.
type Dropped struct {
	Path string `json:"path"`
	Why  string `json:"why"`
}

// Package is a package in the newest snapshot: an extracted directory, an
// archive, or both.
type Package struct {
	Name      string   `json:"name"`             // name-version-build
	Directory string   `json:"directory"`        // the directory that it is in: pkgs, rattler/pkgs, or one of a channel below pkgs
	Trust     string   `json:"trust"`            // the extracted directory's, else the archive's
	Shared    bool     `json:"shared"`           // other users of the mount see it too
	Owner     uint32   `json:"owner"`            // uid that published it
	Extracted bool     `json:"extracted"`        // false if only the archive is there
	Size      int64    `json:"size"`             // bytes of the extracted files
	SHA256    string   `json:"sha256,omitempty"` // of the archive that it comes from
	Archive   *Archive `json:"archive,omitempty"`
}

// Archive is a package's archive.
type Archive struct {
	FileName string `json:"file_name"`
	Size     int64  `json:"size"`
	SHA256   string `json:"sha256,omitempty"`
	Trust    string `json:"trust"`
}

// PackageFiles is a package with the files of its extracted directory.
type PackageFiles struct {
	Package
	Entries []File `json:"entries"`
}

// File is a file, directory or symbolic link of a package.
type File struct {
	Path   string `json:"path"`
	Type   string `json:"type"` // file, directory or symlink
	Mode   string `json:"mode"` // permission bits in octal, as in 0644
	Size   int64  `json:"size"`
	Blake3 string `json:"blake3,omitempty"`
	Target string `json:"target,omitempty"`
}

// Commit is one line of the log.
type Commit struct {
	Seq     uint64    `json:"seq"` // the snapshot that it made
	Time    time.Time `json:"time"`
	UID     uint32    `json:"uid"`
	PID     int       `json:"pid"`
	Session string    `json:"session"`
	Label   string    `json:"label,omitempty"`
	Command string    `json:"command,omitempty"`
	What    []string  `json:"what"` // one line a change
}

// VerifyReport is the answer to `condafs verify`.
type VerifyReport struct {
	Blobs    int64     `json:"blobs"`  // checked
	Bytes    int64     `json:"bytes"`  // what they take
	Hashed   int64     `json:"hashed"` // blobs whose content was read
	Full     bool      `json:"full"`   // by content and not only by size
	Problems []Problem `json:"problems"`
}

// RepairReport is the answer to `condafs repair`.
type RepairReport struct {
	VerifyReport
	Removed []string `json:"removed"` // what has left the newest snapshot, so that clients fetch it again
	Left    int      `json:"left"`    // problems that a repair can do nothing about
}

// Scrub is the reading of all of the store in the background.
type Scrub struct {
	Rate    int64      `json:"rate"`            // bytes a second; 0: nothing is read by itself
	Every   int64      `json:"every_seconds"`   // from the beginning of a pass to that of the next
	Running bool       `json:"running"`         // something is being read
	Next    time.Time  `json:"next,omitzero"`   // when something will be, unless it is
	Error   string     `json:"error,omitempty"` // why the last try ended early
	Pass    *ScrubPass `json:"pass,omitempty"`  // the one under way
	Last    *ScrubPass `json:"last,omitempty"`  // the last that has ended
}

// ScrubPass is one reading of all of the store, and the answer to `condafs scrub`.
type ScrubPass struct {
	Started  time.Time `json:"started"`
	Finished time.Time `json:"finished,omitzero"`
	Blobs    int64     `json:"blobs"`              // that were read
	Bytes    int64     `json:"bytes"`              // that were read
	Total    int64     `json:"total,omitempty"`    // bytes that there are to be read, about
	Found    int64     `json:"found"`              // problems
	Mended   int64     `json:"mended"`             // of these, without loss
	Lost     int64     `json:"lost"`               // whose content nobody has: what needs it has left head
	Removed  int64     `json:"removed"`            // names that left head, so that clients fetch them again
	Left     int64     `json:"left"`               // that a repair can do nothing about
	Problems []Problem `json:"problems,omitempty"` // the first of them, for the owner and root
}

// RebuildReport is what `condafs rebuild` prints.
type RebuildReport struct {
	Store     string        `json:"store"`
	Head      uint64        `json:"head"`    // number of the newest snapshot
	Entries   int64         `json:"entries"` // names in it
	Trees     int64         `json:"trees"`   // packages whose list of files is there
	Commits   int64         `json:"commits"` // that were made again
	Exact     bool          `json:"exact"`   // the newest snapshot is, name by name, what it was
	Aside     string        `json:"aside,omitempty"`
	Damage    []string      `json:"damage"`     // what could not be read of the journal
	LostTrees []string      `json:"lost_trees"` // packages whose list of files is lost
	Repair    *RepairReport `json:"repair"`     // of the content, which was read afterwards
}

// Problem is something damaged.
type Problem struct {
	Kind        string   `json:"kind"` // missing, size, content, tree, foreign or shelf
	Digest      string   `json:"digest,omitempty"`
	File        string   `json:"file,omitempty"` // relative to the store
	Detail      string   `json:"detail,omitempty"`
	Quarantined string   `json:"quarantined,omitempty"` // id, after a repair
	Fixed       string   `json:"fixed,omitempty"`       // what a repair did about it
	Paths       []string `json:"paths"`                 // what is affected in the newest snapshot
}

// GCReport is the answer to `condafs gc`.
type GCReport struct {
	DryRun    bool  `json:"dry_run"`
	Blobs     int64 `json:"blobs"` // freed, or that would be
	Trees     int64 `json:"trees"`
	Bytes     int64 `json:"bytes"`
	KeptBlobs int64 `json:"kept_blobs"`
	KeptBytes int64 `json:"kept_bytes"`
	// Removed are the packages that left the newest snapshot, the one that was not used for longest first, and RemovedBytes
	// theirs, before sharing of equal content. Their space is free when no session has them any more.
	Removed      []RemovedPackage `json:"removed"`
	RemovedBytes int64            `json:"removed_bytes"`
	Linked       int              `json:"linked"`        // packages that stay, as environments have links to them
	Over         int64            `json:"over"`          // bytes above the limits although nothing more can go
	NoTimes      bool             `json:"no_times"`      // the file system records no use, only publication counts
	AwaitedBytes int64            `json:"awaited_bytes"` // of packages removed before, which sessions still have
}

// RemovedPackage is a package that left the newest snapshot.
type RemovedPackage struct {
	Path  string    `json:"path"`
	Bytes int64     `json:"bytes"`
	Used  time.Time `json:"used"` // last, to a day
}

// ImportReport is the answer to `condafs import`.
type ImportReport struct {
	Imported []Committed `json:"imported"`
	Present  int         `json:"present"`  // units that the store had already
	Rejected []Dropped   `json:"rejected"` // what did not hold, and why
	Skipped  []Dropped   `json:"skipped"`  // what is no package, and why
	Bytes    int64       `json:"bytes"`    // read from the source
}

// ExportReport is the answer to `condafs export`.
type ExportReport struct {
	Exported []string  `json:"exported"`
	Present  int       `json:"present"`  // units that the directory had already
	Rejected []Dropped `json:"rejected"` // what could not be written, and why
	Bytes    int64     `json:"bytes"`
}

// States of an upgrade.
const (
	UpgradeRehearsed = "rehearsed" // the new program could take over, and was not asked to
	UpgradeBegun     = "begun"
	UpgradeDone      = "done"
	UpgradeFailed    = "failed" // the old program goes on
)

// Upgrade is the answer to `condafs upgrade`.
type Upgrade struct {
	ID         string    `json:"id,omitempty"` // empty if it was only rehearsed
	State      string    `json:"state"`        // rehearsed, begun, done or failed
	From       string    `json:"from"`         // the version that served before
	To         string    `json:"to"`           // and the new one
	PID        int       `json:"pid"`          // the daemon's, which stays
	MountPoint string    `json:"mount_point"`
	Time       time.Time `json:"time"`
	PauseMS    int64     `json:"pause_ms"`      // how long the mount did not answer
	Sessions   int       `json:"sessions"`      // that went over, or would
	Files      int       `json:"files"`         // open files and directories that did
	Why        string    `json:"why,omitempty"` // it failed
}

// Stopped is the answer to `condafs umount`.
type Stopped struct {
	PID        int    `json:"pid"` // the daemon that is about to exit
	MountPoint string `json:"mount_point"`
}

// Progress is how far a long piece of work has come.
type Progress struct {
	Phase string `json:"phase"`          // what is being done, as a short phrase
	Done  int64  `json:"done"`           // in Unit
	Total int64  `json:"total"`          // 0 while it is not known
	Unit  string `json:"unit"`           // bytes, files or packages
	Item  string `json:"item,omitempty"` // what is at work now
}

// ProgressFunc takes progress. It is called from several goroutines and must not block for
// long. A nil ProgressFunc is allowed wherever one is taken.
type ProgressFunc func(Progress)

// Report calls f unless it is nil.
func (f ProgressFunc) Report(p Progress) {
	if f != nil {
		f(p)
	}
}
