package cow

import (
	"cmp"
	"crypto/rand"
	"encoding/base32"
	"encoding/json"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"condafs/beneath"
	"condafs/fault"
	"condafs/hashing"
	"condafs/index"
	"condafs/proc"
)

// OnFailure says what becomes of an explicit session whose command failed.
type OnFailure string

const (
	// KeepUnits commits complete units that pass their checks and drops the
	// rest: the default.
	KeepUnits OnFailure = "keep-units"
	// DiscardAll drops everything. Nothing is committed before the end.
	DiscardAll OnFailure = "discard"
	// KeepOverlay leaves the session as it is, to be looked at and then
	// committed or discarded by hand.
	KeepOverlay OnFailure = "keep"
)

// StartOptions describe an explicit session.
type StartOptions struct {
	// PID is the process whose descendants belong to the session.
	PID      int
	UID, GID uint32
	// Label and Command are for people who list sessions.
	Label, Command string
	// Ephemeral sessions commit nothing, ever.
	Ephemeral bool
	// fresh says that no client has seen the session's view yet. What an earlier daemon
	// has shown must not become something else.
	fresh bool
	// BesideShelf leaves out of the view what the processes find on the shelf.
	BesideShelf bool
	// OnFailure holds if Outcome doesn't say otherwise; empty means KeepUnits.
	OnFailure OnFailure
}

// Outcome is how the command of an explicit session ended.
type Outcome struct {
	// ExitCode is the command's exit status, 128 and the signal if it was killed.
	ExitCode int
	// OnFailure overrides that of the start; empty leaves it.
	OnFailure OnFailure
}

// SessionInfo describes a session for people.
type SessionInfo struct {
	ID        string    `json:"id"`
	UID       uint32    `json:"uid"`
	Label     string    `json:"label,omitempty"`
	Command   string    `json:"command,omitempty"`
	Explicit  bool      `json:"explicit"`
	Ephemeral bool      `json:"ephemeral,omitempty"`
	Members   []int     `json:"members"` // pids
	Started   time.Time `json:"started"`
	Base      index.Seq `json:"base"`  // the snapshot under the overlay
	Dirty     bool      `json:"dirty"` // holds changes that are not committed
	// OverlayBytes is the size of the files in the overlay.
	OverlayBytes int64 `json:"overlay_bytes"`
	// State is "active", "ending", "kept" (see KeepOverlay) or "waiting" (ended,
	// but its changes could not be committed yet).
	State string `json:"state"`
}

// state is where a session stands in its life.
type state string

const (
	stateActive  state = "active"
	stateEnding  state = "ending"  // somebody is committing it for the last time
	stateKept    state = "kept"    // failed, and left for people to look at
	stateWaiting state = "waiting" // ended, and could not be committed
	stateEnded   state = "ended"   // all is done; the kernel may still hold nodes
)

// Session is some processes and the view that they share. It is safe for
// concurrent use.
type Session struct {
	e        *Engine
	id       string
	uid, gid uint32
	start    StartOptions
	explicit bool
	foreign  bool // of callers whose processes cannot be told apart
	started  time.Time

	snap *index.Snapshot
	hold *index.Hold // on what was sealed, and is perhaps in no snapshot
	view *View
	once sync.Once // for release

	ticket, rattlerTicket ShelfTicket // nil without a shelf

	// work is held shared by jobs of single units, and alone by what goes
	// through all of the session.
	work sync.RWMutex
	// publishing is held while the session talks to the head.
	publishing sync.Mutex
	// recording orders the writes of the session's record.
	recording sync.Mutex
	suspended bool // the daemon is stopping in order; guarded by recording

	awaiting atomic.Int32 // commits that wait for files to be closed

	// guarded by e.mu
	state   state
	members map[member]func() // to cancel the watch
	lastUse time.Time
	killed  bool          // a member was killed by a signal
	outcome *Outcome      // of the command, once End has told
	report  Report        // of the last commit
	failure error         // what keeps it waiting
	changed chan struct{} // closed when a member or, for who waits for that, a handle is gone

	mu       sync.Mutex
	jobs     map[string]*job                // by the unit's root
	items    map[string]*item               // what was sealed, by path
	stalled  map[string]*part               // what was sealed by half, by path
	held     map[string]bool                // groups that are sealed in part, by key
	trees    map[hashing.Digest]*index.Tree // of what was sealed
	removed  map[string]bool                // deletions that were published, by path
	archives map[string]*archiveSums        // by path
	hashing  map[string]bool                // archives that are to be hashed: see hashArchive
	pins     []*index.Snapshot              // of what the view has gained from others
	recorded bool                           // the store has a record of the session
	gone     bool                           // and must not get one any more

	laneWatch bool          // somebody is about to look at lanes
	laneWait  time.Duration // before they are looked at again
	laneSum   uint64        // what was in lanes at laneSeen
	laneSeen  time.Time
}

// ID returns the session's name: short, random, never used again.
func (s *Session) ID() string { return s.id }

// UID returns the user whom the session belongs to.
func (s *Session) UID() uint32 { return s.uid }

// GID returns the group that its files show.
func (s *Session) GID() uint32 { return s.gid }

// View returns the session's tree.
func (s *Session) View() *View { return s.view }

// SharedSpace is the part of the index that all users see.
const SharedSpace = "shared"

// PrivateSpace is the part of the index that only this user sees. What lies there
// hides what has the same path in SharedSpace.
func PrivateSpace(uid uint32) string { return "u" + strconv.FormatUint(uint64(uid), 10) }

// spaces returns the spaces that a user sees, the first one first.
func spaces(uid uint32) []string { return []string{PrivateSpace(uid), SharedSpace} }

// idEncoding has neither upper case nor anything a shell or a path could mind.
const idAlphabet = "abcdefghijklmnopqrstuvwxyz234567"

var idEncoding = base32.NewEncoding(idAlphabet).WithPadding(base32.NoPadding)

// newID returns 50 random bits: enough to never come again in a store.
func newID() string {
	const length = 10
	var b [7]byte
	rand.Read(b[:]) // never fails
	return idEncoding.EncodeToString(b[:])[:length]
}

// newSession makes a session without members on the present head.
func (e *Engine) newSession(o StartOptions, explicit bool) (*Session, error) {
	o.fresh = true
	if err := e.account(o.UID).enter(); err != nil {
		return nil, fault.New("start session", "", fault.TooMany, err).
			WithHint("end some of yours, or have `condafs mount --limit sessions=NUMBER` allow more")
	}
	s, err := e.openSession(newID(), o, explicit, e.store.PinHead())
	if err != nil {
		e.account(o.UID).exit()
		return nil, err
	}
	e.counts.start(explicit)
	return s, nil
}

// openSession makes a session over what is on disk under this id, if anything.
// It takes snap over.
func (e *Engine) openSession(id string, o StartOptions, explicit bool, snap *index.Snapshot) (*Session, error) {
	s := e.blankSession(id, o, explicit, snap)
	src := s.enterShelves(pinned{snap, e.store}, nil, nil)
	fail := func(err error) (*Session, error) {
		s.leaveShelves()
		s.snap.Release()
		s.hold.Release()
		return nil, fault.New("start session", "", fault.Other, err)
	}
	sealed, err := s.readManifests()
	if err != nil {
		return fail(err)
	}
	view, err := openView(sealedSource{src, s}, s.upper(), spaces(o.UID), o.UID, o.GID, s.event)
	if err != nil {
		return fail(err)
	}
	s.adoptView(view)
	s.holdGained()
	s.redo(sealed)
	return s, nil
}

// blankSession makes a session that has no view yet.
func (e *Engine) blankSession(id string, o StartOptions, explicit bool, snap *index.Snapshot) *Session {
	now := e.o.Now()
	return &Session{
		e: e, id: id, uid: o.UID, gid: o.GID, start: o, explicit: explicit, started: now,
		snap: snap, hold: e.store.NewHold(),
		state: stateActive, members: make(map[member]func()), lastUse: now, changed: make(chan struct{}),
		jobs: make(map[string]*job), items: make(map[string]*item), stalled: make(map[string]*part), held: make(map[string]bool), trees: make(map[hashing.Digest]*index.Tree), removed: make(map[string]bool),
		archives: make(map[string]*archiveSums), hashing: make(map[string]bool),
	}
}

// adoptView makes a view, which nobody uses yet, the session's.
func (s *Session) adoptView(v *View) {
	s.view = v
	v.account = s.e.account(s.uid)
	v.gained.account = v.account
	v.account.follow(s)
	v.onListing, v.onLocking, v.onReading = s.listing, s.locking, s.reading
	v.lanes.target = s.e.o.MountPoint
	if s.e.o.Lanes {
		v.lanes.wanted, v.lanes.made = s.unpacking, s.watchLanes
	}
	v.lanes.trouble = func(err error) {
		s.e.log.Warn("what a client has unpacked cannot be used", "session", s.id, "error", err)
	}
	v.onInvalid(s.e.entryChanged)
}

// dir is where the session keeps everything on disk.
func (s *Session) dir() string   { return s.e.store.SessionDir(s.id) }
func (s *Session) upper() string { return filepath.Join(s.dir(), "upper") }

// release lets go of all that the session holds in memory.
func (s *Session) release() (err error) {
	s.once.Do(func() {
		err = s.view.Close()
		s.view.account.leave(s)
		s.e.flights.end(s)
		s.leaveShelves()
		s.snap.Release()
		s.hold.Release()
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, p := range s.pins {
			p.Release()
		}
	})
	return err
}

// dirty reports whether the session holds anything that is not committed.
func (s *Session) dirty() bool { return !s.view.Clean() || s.unsettled() }

// hasWritten reports whether the session has ever changed anything.
func (s *Session) hasWritten() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.recorded
}

func (s *Session) unsettled() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, it := range s.items {
		if !it.settled {
			return true
		}
	}
	return len(s.stalled) > 0
}

// deferred reports whether nothing may be committed before the end.
func (s *Session) deferred() bool {
	return s.start.Ephemeral || s.start.OnFailure == DiscardAll
}

// sessionState is what a record keeps beside its fixed fields.
type sessionState struct {
	Members []member `json:"members,omitempty"`
	Foreign bool     `json:"foreign,omitempty"`
	Killed  bool     `json:"killed,omitempty"`
	Kept    bool     `json:"kept,omitempty"`
	// Closed says that the daemon stopped in an orderly way, so that no write of
	// a client was cut short.
	Closed  bool     `json:"closed,omitempty"`
	Outcome *Outcome `json:"outcome,omitempty"`
}

// record writes the session down, so that the next New finds it. It is done at
// the first write: a session that never wrote leaves nothing to find.
func (s *Session) record(closed bool) error {
	s.recording.Lock()
	defer s.recording.Unlock()
	s.mu.Lock()
	gone := s.gone
	s.mu.Unlock()
	if gone {
		return nil
	}
	s.suspended = s.suspended || closed
	st := sessionState{Foreign: s.foreign, Closed: s.suspended}
	s.e.mu.Lock()
	st.Members = slices.SortedFunc(maps.Keys(s.members), member.compare)
	st.Kept, st.Killed, st.Outcome = s.state == stateKept, s.killed, s.outcome
	s.e.mu.Unlock()
	b, err := json.Marshal(st)
	if err != nil {
		return fault.New("record session", s.id, fault.Other, err)
	}
	var leader proc.ID
	if len(st.Members) > 0 {
		leader = st.Members[0].ID
	}
	return s.e.store.PutSession(index.SessionRecord{
		ID: s.id, Seq: s.snap.Seq(), UID: s.uid, GID: s.gid, Label: s.start.Label, Command: s.start.Command,
		Ephemeral: s.start.Ephemeral, Explicit: s.explicit, OnFailure: string(s.start.OnFailure),
		Started: s.started, PID: leader.PID, Start: leader.Start, State: string(b),
	})
}

// unrecord removes the record, for good.
func (s *Session) unrecord() error {
	s.recording.Lock()
	defer s.recording.Unlock()
	s.mu.Lock()
	s.gone = true
	recorded := s.recorded
	s.mu.Unlock()
	if !recorded {
		return nil
	}
	return s.e.store.DeleteSession(s.id)
}

// removeFiles deletes all that the session has on disk.
func (s *Session) removeFiles() error {
	if err := beneath.RemoveTree(s.dir()); err != nil {
		return fault.New("remove overlay of session", s.id, fault.Other, err)
	}
	return nil
}

// Sessions lists the sessions that have not ended, oldest first. With uids, only
// those of these users: describing one means to look through its overlay.
func (e *Engine) Sessions(uids ...uint32) []SessionInfo {
	infos := []SessionInfo{}
	for _, s := range e.all() {
		if len(uids) > 0 && !slices.Contains(uids, s.uid) {
			continue
		}
		if info, ok := s.info(); ok {
			infos = append(infos, info)
		}
	}
	return infos
}

// SessionIDs lists the ids of the sessions that have not ended, oldest first, of
// these users or, without any, of all.
func (e *Engine) SessionIDs(uids ...uint32) []string {
	var ids []string
	for _, s := range e.all() {
		e.mu.Lock()
		live := s.state != stateEnded
		e.mu.Unlock()
		if live && (len(uids) == 0 || slices.Contains(uids, s.uid)) {
			ids = append(ids, s.id)
		}
	}
	return ids
}

func (s *Session) info() (SessionInfo, bool) {
	i := SessionInfo{
		ID: s.id, UID: s.uid, Label: s.start.Label, Command: s.start.Command,
		Explicit: s.explicit, Ephemeral: s.start.Ephemeral, Members: []int{}, Started: s.started, Base: s.snap.Seq(),
	}
	s.e.mu.Lock()
	i.State = string(s.state)
	for m := range s.members {
		i.Members = append(i.Members, m.PID)
	}
	s.e.mu.Unlock()
	if i.State == string(stateEnded) {
		return i, false
	}
	slices.Sort(i.Members)
	i.Dirty = s.dirty()
	i.OverlayBytes = s.overlaySize("") + s.view.laneUsage().Bytes
	return i, true
}

// overlaySize sums up what the overlay holds at a path. Files come and go while it
// looks, so it is about right and never fails.
func (s *Session) overlaySize(path string) int64 {
	u, _ := s.view.measure(path)
	return u.Bytes
}

func sortedSessions(m map[string]*Session) []*Session {
	return slices.SortedFunc(maps.Values(m), func(a, b *Session) int {
		return cmp.Or(a.started.Compare(b.started), strings.Compare(a.id, b.id))
	})
}
