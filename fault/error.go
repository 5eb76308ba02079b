package fault

import (
	"errors"
	"io/fs"
	"strings"
)

// Error is a failed operation. Its fields are fixed once it has been returned.
type Error struct {
	Op   string // what was being done, as a verb phrase: "open store"
	Name string // to what: a path, a package, an id; may be empty
	Kind Kind   // Other means: ask the cause
	Hint string // what somebody can do about it; may be empty
	Err  error  // the cause; may be nil when Kind says it all
}

// New returns an error of op on name. With k == Other the kind is that of err.
func New(op, name string, k Kind, err error) *Error {
	return &Error{Op: op, Name: name, Kind: k, Err: err}
}

// WithHint returns a copy of e that tells what to do about it.
func (e *Error) WithHint(hint string) *Error {
	c := *e
	c.Hint = hint
	return &c
}

// Error returns "op name: cause; hint" as one line.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.Name != "" {
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(e.Name)
	}
	if cause := e.cause(); cause != "" {
		if b.Len() > 0 {
			b.WriteString(": ")
		}
		b.WriteString(cause)
	}
	if e.Hint != "" {
		b.WriteString("; ")
		b.WriteString(e.Hint)
	}
	return oneLine(b.String())
}

// cause drops what a wrapped path error would only say again.
func (e *Error) cause() string {
	if e.Err == nil {
		if e.Kind == Other {
			return ""
		}
		return e.Kind.String()
	}
	var p *fs.PathError
	if errors.As(e.Err, &p) && e.Err == error(p) && p.Path == e.Name {
		return p.Op + ": " + p.Err.Error()
	}
	return e.Err.Error()
}

// oneLine keeps a cause of several lines, or a file name with a line break in
// it, from breaking up a log or a terminal.
func oneLine(s string) string {
	if !strings.ContainsAny(s, "\r\n") {
		return s
	}
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }), " | ")
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }
