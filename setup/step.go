package setup

// Step is one change.
type Step interface {
	// String says what is changed, for people.
	String() string
	// Done reports whether there is nothing to do.
	Done() (bool, error)
	Do() error
	// Undo takes back what Do has done, and nothing else. It is no error if that is not there.
	Undo() error
}
