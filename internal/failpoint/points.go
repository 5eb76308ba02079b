package failpoint

// Point is a moment in the daemon's work. Its name is for the environment and for
// people.
type Point string

// Blobs, on their way into objects/.
const (
	BlobStaged    Point = "blob.staged"    // written in staging/
	BlobCopied    Point = "blob.copied"    // copied there, since the file has other names
	BlobReady     Point = "blob.ready"     // has its final mode and time, and not its name
	BlobRenamed   Point = "blob.renamed"   // has its name
	BlobDuplicate Point = "blob.duplicate" // was there already, the new one is removed
)

// Commits of the index.
const (
	CommitBegin   Point = "commit.begin"   // a group of updates is to be written
	CommitSync    Point = "commit.sync"    // there is room, syncfs comes next
	CommitSynced  Point = "commit.synced"  // the Badger transaction comes next
	CommitTrees   Point = "commit.trees"   // trees were written by themselves
	CommitWritten Point = "commit.written" // head has moved on disk
	CommitShown   Point = "commit.shown"   // readers see it, who waits does not know yet
	RedoStored    Point = "redo.stored"    // the parts of a large group are there
	RedoDecided   Point = "redo.decided"   // and its head
	RedoApplied   Point = "redo.applied"   // a part was applied
	RedoLast      Point = "redo.last"      // all were, but head has not moved
	RedoRepeat    Point = "redo.repeat"    // found by the next daemon
)

// The journal beside the database.
const (
	JournalWrite      Point = "journal.write"      // a group's trees are beside it, its record is not in it
	JournalBegun      Point = "journal.begun"      // a new segment is there, empty
	CheckpointBegun   Point = "checkpoint.begun"   // what is committed from now on is not in it
	CheckpointWritten Point = "checkpoint.written" // durable under a temporary name
	CheckpointRenamed Point = "checkpoint.renamed" // it counts, and what it replaces is there still
)

// Repairs.
const (
	AsideRecorded Point = "aside.recorded" // what is damaged has its record in quarantine, and lies where it was
	AsideMoved    Point = "aside.moved"    // it has moved
	RepairBrought Point = "repair.brought" // what could be found is there again
	RepairRemoved Point = "repair.removed" // what could not has left head
	ScrubMended   Point = "scrub.mended"   // what the scrub has found is mended, and not written down
	ScrubSaved    Point = "scrub.saved"    // it is
)

// Packages that clients unpack past the mount.
const (
	LaneMade      Point = "lane.made"      // a link to the lane is in the overlay
	LaneBegun     Point = "lane.begun"     // no path leads to the lane any more, nothing has moved
	LaneFile      Point = "lane.file"      // the next name is to move
	LaneMoved     Point = "lane.moved"     // all has moved, beside the overlay
	LaneInstalled Point = "lane.installed" // it is in the overlay
)

// Making the database anew from the journal.
const (
	RebuildBegun   Point = "rebuild.begun"   // a new database is there, empty, beside the old one
	RebuildWritten Point = "rebuild.written" // it is whole and durable
	RebuildAside   Point = "rebuild.aside"   // the old one is out of the way, the new one has not its place
	RebuildPlaced  Point = "rebuild.placed"  // it has
)

// Opening and closing a store.
const (
	IdentityWritten Point = "identity.written" // of a new store, under a temporary name
	IdentityRenamed Point = "identity.renamed" // under its final name, not synced
	OpenDirs        Point = "open.dirs"        // the directories are there, staging is empty
	OpenDatabase    Point = "open.database"    // Badger is open
	OpenRecovered   Point = "open.recovered"   // what it says is taken up
	BootAsk         Point = "boot.ask"         // a failure makes it another run of the machine each time
	OpenMarked      Point = "open.marked"      // the store is marked as open
	CloseDrained    Point = "close.drained"    // no update waits any more
	CloseSynced     Point = "close.synced"     // all blobs are durable
	CloseMarked     Point = "close.marked"     // the store is marked as closed
)

// Another program takes the daemon's place.
const (
	UpgradePaused  Point = "upgrade.paused"  // nothing goes on any more
	UpgradeDrawn   Point = "upgrade.drawn"   // the image is written
	UpgradeClosed  Point = "upgrade.closed"  // the store is closed, the new program comes next
	UpgradeStarted Point = "upgrade.started" // the new program runs, and takes no signals
	UpgradeBegun   Point = "upgrade.begun"   // it has read the image, and has opened nothing
	UpgradeOpened  Point = "upgrade.opened"  // it has the store
	UpgradeResumed Point = "upgrade.resumed" // it has everything, and does not answer yet
	UpgradeBack    Point = "upgrade.back"    // it gives up, the old program comes next
)

// Records that sessions and quarantine have in the index.
const (
	SessionRecorded    Point = "session.recorded"
	SessionUnrecorded  Point = "session.unrecorded"
	QuarantineRecorded Point = "quarantine.recorded" // its content comes next
	QuarantineDone     Point = "quarantine.done"
)

// Garbage collection.
const (
	GCMarked Point = "gc.marked"
	GCRemove Point = "gc.remove" // a blob is about to go
	GCSwept  Point = "gc.swept"  // the blobs have gone, the trees have not
	GCForget Point = "gc.forget" // the trees have gone
	GCForgot Point = "gc.forgot"
)

// Files of the overlay.
const (
	PassthroughAsk Point = "passthrough.ask" // a failure sends contents through the daemon
	FileMade       Point = "file.made"
	FileWrite      Point = "file.write" // contents come, not by passthrough
	FileClose      Point = "file.close"
	FileClosed     Point = "file.closed" // its unit does not know yet
	CopyMade       Point = "copy.made"   // a copy from below, in the work directory
	CopyMoved      Point = "copy.moved"  // where it belongs
)

// Units, from their completion to the head.
const (
	UnitChecked     Point = "unit.checked"     // hashed, and its evidence holds
	ManifestWritten Point = "manifest.written" // under a temporary name
	ManifestRenamed Point = "manifest.renamed" // the view is locked; a crash from here on is redone
	SealMoved       Point = "seal.moved"       // one file is in objects/
	SealRestore     Point = "seal.restore"     // one is about to go back, after an error
	SealGained      Point = "seal.gained"      // the view notes it as gained, the overlay has it still
	SealPurged      Point = "seal.purged"      // the overlay has not
	SealMarked      Point = "seal.marked"      // its manifest says that nothing is to be redone
	SealForget      Point = "seal.forget"      // nothing has moved, after an error, and its manifest is about to go
	SealDone        Point = "seal.done"
	PublishBegin    Point = "publish.begin"
	PublishMerged   Point = "publish.merged" // within the update
	PublishDone     Point = "publish.done"   // head has it, the session does not know yet
	SettleDone      Point = "settle.done"    // its manifest says so
)

// The end of sessions and of the daemon, and what the next one does.
const (
	EndRetired      Point = "end.retired"   // the view takes no more writes
	EndCommitted    Point = "end.committed" // the session's record is there still
	EndUnrecorded   Point = "end.unrecorded"
	EndBury         Point = "end.bury" // its files go next
	EndBuried       Point = "end.buried"
	SessionSuspend  Point = "session.suspend" // the daemon stops, the session will be taken up
	RecoverSession  Point = "recover.session"
	RecoverFile     Point = "recover.file"     // one file of a manifest is in objects/
	RecoverResealed Point = "recover.resealed" // what one manifest is about
	RecoverSwept    Point = "recover.swept"    // files of a session without a record are gone
	RecoverDone     Point = "recover.done"
)

// Imports.
const (
	ImportPut       Point = "import.put"       // an archive is in objects/
	ImportBatch     Point = "import.batch"     // units are ready to be committed
	ImportCommitted Point = "import.committed" // the report does not know yet
	ImportLists     Point = "import.lists"     // the lists of addresses come last
)

// The shelf.
const (
	ShelfMade      Point = "shelf.made"      // a package is written, and nobody sees it
	ShelfNoted     Point = "shelf.noted"     // its tree is written down
	ShelfShown     Point = "shelf.shown"     // it is where clients look
	ShelfDismissed Point = "shelf.dismissed" // new clients do not take it any more
	ShelfBuried    Point = "shelf.buried"    // it is gone, its note is not
)
