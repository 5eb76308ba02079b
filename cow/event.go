package cow

// EventOp says what happened in a view.
type EventOp uint8

const (
	// Created: a name came into being (a file, directory, link or special file).
	Created EventOp = iota + 1
	// Closed: the last writable handle of a file was released.
	Closed
	// Renamed: what was at OldPath is at Path. An exchange gives two events.
	Renamed
	// Removed: the name is gone.
	Removed
	// Idle: no handle is open any more, or the last reference to a node was given
	// back. It has no path, and comes again and again.
	Idle
)

// Event tells the owner of a view what a client has done. Events are delivered
// after the operation, without any lock of the view, one at a time and in the
// order in which they happened; the receiver may call the view.
type Event struct {
	Op      EventOp
	Path    string // relative to the view's root
	OldPath string // Renamed: the former path
	IsDir   bool
}
