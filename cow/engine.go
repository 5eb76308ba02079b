package cow

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"time"

	"condafs/conda"
	"condafs/fault"
	"condafs/index"
	"condafs/proc"
)

// Options are what an Engine needs beside its store.
type Options struct {
	// Procs tells processes apart. It is required.
	Procs proc.Table
	// Logger takes warnings and what is done in the background; nil discards.
	Logger *slog.Logger
	// MountPoint is the absolute path under which clients see the sessions. It
	// is taken out of what they recorded; empty leaves their files as they are.
	MountPoint string
	// RepinAfter is how long a clean implicit session must have been idle before
	// its processes get a fresh view of the head; 0 means 10 minutes.
	RepinAfter time.Duration
	// Shelf is where verified packages are published natively; nil if nowhere.
	Shelf Shelf
	// RattlerShelf is the same for the rattler packages of the daemon's user.
	RattlerShelf Shelf
	// Sharing says whose verified packages all users are given; empty means the
	// default. Trusted are users for ShareTrusted, beside root and the daemon's own.
	Sharing Sharing
	Trusted []uint32
	// Quota bounds what each user may have.
	Quota Quota
	// Lanes lets clients of the store's owner unpack packages natively, past the mount: see lane.
	Lanes    bool
	laneTick time.Duration // see defaultLaneTick; 0 means that
	// Limits bound what is unpacked to check an archive.
	Limits conda.Limits
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

const defaultRepinAfter = 10 * time.Minute

// Invalidator hears what the kernel may have cached and must forget. Its
// methods only take note: they return at once and may be called with locks held.
type Invalidator interface {
	// EntryChanged says that name in dir appeared, vanished or became another
	// node without an operation of the mount.
	EntryChanged(dir *Node, name string)
	// NodeChanged says that attributes of n changed without an operation of the mount.
	NodeChanged(n *Node)
	// SessionEnded says that the session takes no writes any more and its tree
	// should be let go of.
	SessionEnded(id string)
}

// Engine holds the sessions of one store. It is safe for concurrent use.
type Engine struct {
	store *index.Store
	o     Options
	log   *slog.Logger
	owner uint32 // who runs the daemon, and so owns the store
	gid   uint32
	inv   Invalidator
	head  *headView

	flights *flights
	slots   chan struct{} // one for each unit that is checked at the same time
	counts  counts
	leases  func() bool // see canLease

	accounting sync.Mutex // taken last; guards accounts
	accounts   map[uint32]*account

	mu       sync.Mutex
	ctx      context.Context // of work in the background; ends with Close
	stop     context.CancelFunc
	waits    context.Context // of waiting for others; ends when the engine is paused, too
	unwait   context.CancelFunc
	closed   bool
	paused   bool      // nothing begins, until Continue
	running  int       // goroutines in the background
	idle     sync.Cond // there are none
	sessions map[string]*Session
	members  map[member]*Session
	foreign  map[uint32]*Session // of callers without a pid, by uid
}

// New returns an engine over the store, which it does not close. It takes up
// the sessions that the store has recorded: what dead ones had completed is
// committed in the background, and living processes find their overlay again.
func New(store *index.Store, o Options) (*Engine, error) {
	e, err := newEngine(store, o)
	if err != nil {
		return nil, err
	}
	if err := e.start(); err != nil {
		return nil, errors.Join(err, e.Close(context.Background()))
	}
	return e, nil
}

func newEngine(store *index.Store, o Options) (*Engine, error) {
	if o.Procs == nil {
		return nil, fault.New("start engine", "", fault.Usage, errors.New("no process table"))
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.RepinAfter == 0 {
		o.RepinAfter = defaultRepinAfter
	}
	if o.Sharing == "" {
		o.Sharing = ShareTrusted
	}
	if o.laneTick == 0 {
		o.laneTick = defaultLaneTick
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	e := &Engine{
		store: store, o: o, log: o.Logger, owner: uint32(os.Geteuid()), gid: uint32(os.Getegid()),
		flights:  newFlights(),
		slots:    make(chan struct{}, runtime.GOMAXPROCS(0)),
		accounts: make(map[uint32]*account),
		sessions: make(map[string]*Session),
		members:  make(map[member]*Session),
		foreign:  make(map[uint32]*Session),
	}
	e.idle.L = &e.mu
	e.leases = sync.OnceValue(e.canLease)
	e.ctx, e.stop = context.WithCancel(context.Background())
	e.waits, e.unwait = context.WithCancel(e.ctx)
	return e, nil
}

// start makes the directories that every store has and takes up old sessions.
func (e *Engine) start() error {
	if err := e.makeRoots(); err != nil {
		return err
	}
	if err := e.withdraw(); err != nil {
		return err
	}
	var err error
	if e.head, err = newHeadView(e); err != nil {
		return err
	}
	return e.recover()
}

// SetInvalidator tells the engine whom to tell about changes. Call it before
// the first session starts.
func (e *Engine) SetInvalidator(i Invalidator) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.inv = i
}

func (e *Engine) invalidator() Invalidator {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.inv
}

// entryChanged tells the invalidator, if there is one by now.
func (e *Engine) entryChanged(dir *Node, name string) {
	if inv := e.invalidator(); inv != nil {
		inv.EntryChanged(dir, name)
	}
}

// Session finds a session, also one that has ended while the kernel still holds
// nodes of its tree.
func (e *Engine) Session(id string) (*Session, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s, ok := e.sessions[id]
	return s, ok
}

// Views counts the sessions, and those that have ended while the kernel still holds
// nodes of their trees.
func (e *Engine) Views() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.sessions)
}

// HeadView returns the read-only view that follows the head: always the same,
// moved to what the head is now. Imports move the head past the engine, so ask
// each time.
func (e *Engine) HeadView() *View {
	e.head.follow()
	return e.head.view
}

// EndAll ends every session by its own rules, whether it has members or not:
// what is complete is committed and the rest is dropped. The error is about
// what could not be committed and waits for the next New.
func (e *Engine) EndAll(ctx context.Context) error {
	var errs []error
	for _, s := range e.all() {
		if e.claim(s, stateActive, stateKept, stateWaiting) {
			_, err := e.finish(ctx, s, s.policy())
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Close commits what is complete and lets go of the sessions. Their overlays
// stay on disk for the next New.
func (e *Engine) Close(ctx context.Context) error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil
	}
	e.closed = true
	e.mu.Unlock()

	var errs []error
	for _, s := range e.all() {
		errs = append(errs, e.suspend(ctx, s))
	}
	e.mu.Lock()
	e.stop()
	e.mu.Unlock()
	e.await()
	for _, s := range e.all() {
		errs = append(errs, s.release())
	}
	if e.head != nil {
		errs = append(errs, e.head.close())
	}
	return errors.Join(errs...)
}

// background runs f in a goroutine that Close waits for, unless Close has begun.
func (e *Engine) background(f func()) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.backgroundLocked(f)
}

func (e *Engine) backgroundLocked(f func()) bool {
	if e.closed {
		return false
	}
	e.running++
	go func() {
		f()
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.running--; e.running == 0 {
			e.idle.Broadcast()
		}
	}()
	return true
}

// await waits until nothing runs in the background.
func (e *Engine) await() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for e.running > 0 {
		e.idle.Wait()
	}
}

// all returns the sessions, oldest first.
func (e *Engine) all() []*Session {
	e.mu.Lock()
	defer e.mu.Unlock()
	return sortedSessions(e.sessions)
}

var errEngineClosed = fault.New("find session", "", fault.NotMounted, errors.New("the daemon is stopping"))
