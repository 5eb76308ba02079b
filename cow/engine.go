package cow

import (
	"context"
	"log/slog"
	"time"

	"condafs/conda"
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
	// Limits bound what is unpacked to check an archive.
	Limits conda.Limits
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

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

// New returns an engine over the store, which it does not close. It takes up
// the sessions that the store has recorded: what dead ones had completed is
// committed, and living processes find their overlay again.
func New(store *index.Store, o Options) (*Engine, error) { panic("TODO") }

// Engine holds the sessions of one store. It is safe for concurrent use.
type Engine struct{}

// SetInvalidator tells the engine whom to tell about changes. Call it before
// the first session starts.
func (e *Engine) SetInvalidator(i Invalidator) {}

// SessionFor returns the session of the process that the thread tid belongs to,
// and starts one if it has none. A tid of 0, or one that cannot be identified,
// shares a session with its uid's other such callers.
func (e *Engine) SessionFor(tid int, uid, gid uint32) (*Session, error) { panic("TODO") }

// StartSession starts an explicit session of the process o.PID and its descendants.
func (e *Engine) StartSession(o StartOptions) (*Session, error) { panic("TODO") }

// Session finds a session, also one that has ended while the kernel still holds
// nodes of its tree.
func (e *Engine) Session(id string) (*Session, bool) { panic("TODO") }

// Sessions lists the sessions that have not ended, oldest first.
func (e *Engine) Sessions() []SessionInfo { panic("TODO") }

// Commit publishes what a session has completed. The session goes on.
func (e *Engine) Commit(ctx context.Context, id string) (Report, error) { panic("TODO") }

// Discard ends a session and throws away what it has not committed.
func (e *Engine) Discard(ctx context.Context, id string) error { panic("TODO") }

// End ends an explicit session whose command has exited.
func (e *Engine) End(ctx context.Context, id string, o Outcome) (Report, error) { panic("TODO") }

// HeadView returns the read-only view that follows the head.
func (e *Engine) HeadView() *View { panic("TODO") }

// Close commits what is complete and lets go of the sessions. Their overlays
// stay on disk for the next New.
func (e *Engine) Close(ctx context.Context) error { panic("TODO") }
