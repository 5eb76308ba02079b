package cow

import (
	"time"

	"condafs/index"
)

// OnFailure says what becomes of an explicit session whose command failed.
type OnFailure string

const (
	// KeepUnits commits complete, verified units and drops the rest: the default.
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
	// State is "active", "kept" (see KeepOverlay) or "waiting" (ended, but its
	// changes could not be committed yet).
	State string `json:"state"`
}

// Session is some processes and the view that they share. It is safe for
// concurrent use.
type Session struct{}

// ID returns the session's name: short, random, never used again.
func (s *Session) ID() string { panic("TODO") }

// UID returns the user whom the session belongs to.
func (s *Session) UID() uint32 { panic("TODO") }

// GID returns the group that its files show.
func (s *Session) GID() uint32 { panic("TODO") }

// View returns the session's tree.
func (s *Session) View() *View { panic("TODO") }
