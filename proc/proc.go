// Package proc tells processes apart, finds their parents and notices when
// they end. It knows nothing of sessions.
//
// A process is named by an [ID]: its pid and the time it started, so that a
// pid that was given away again is another process. Threads are not told
// apart: the pid is that of the thread group.
//
// What the kernel is asked is chosen so that asking never blocks on the
// process in question: pidfds and /proc/PID/stat, but neither environ nor
// cmdline, whose readers take the memory lock of the process. A process that
// waits for our own answer while it holds that lock would never get it.
package proc

import "fmt"

// ID names one process for as long as the machine runs. The zero ID names none.
type ID struct {
	// PID is the id of the thread group, as this process's pid namespace shows it.
	PID int `json:"pid"`
	// Start is when it started, in clock ticks since boot.
	Start uint64 `json:"start"`
}

// String returns the pid and the start time, as in "4711@8912345".
func (id ID) String() string { return fmt.Sprintf("%d@%d", id.PID, id.Start) }

// Info is what the kernel says about a process at one moment.
type Info struct {
	ID
	// PPID is the parent's pid: 0 when it is outside of this pid namespace.
	PPID int
	// UID and GID are the effective ones.
	UID, GID uint32
}

// Exit is how a process ended.
type Exit struct {
	// Known is false when the kernel did not tell, and the rest is zero.
	Known bool
	// Code is the exit status, if Signal is 0.
	Code int
	// Signal is what killed the process.
	Signal int
}

// ByItself reports whether the process ended by exiting, as far as is known.
func (e Exit) ByItself() bool { return e.Signal == 0 }

// Table answers questions about processes. It is safe for concurrent use.
type Table interface {
	// Identify returns the process that the thread tid belongs to. The error is
	// of kind fault.NotFound when there is no such thread any more.
	Identify(tid int) (Info, error)
	// Alive reports whether the process still runs. A process that has exited
	// and waits for its parent to notice does not.
	Alive(id ID) bool
	// Watch calls exited, once and from another goroutine, when the process has
	// exited; at once if it has already, and then the exit may be unknown. After cancel has returned, exited will
	// not be started any more, but a call of it may still be running.
	Watch(id ID, exited func(Exit)) (cancel func(), err error)
}
