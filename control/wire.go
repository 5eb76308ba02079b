package control

import (
	"errors"
	"net/http"

	"condafs/fault"
)

// wireError is an error on the socket.
type wireError struct {
	Op      string `json:"op,omitempty"`
	Name    string `json:"name,omitempty"`
	Kind    string `json:"kind"`
	Message string `json:"message,omitempty"` // the cause
	Hint    string `json:"hint,omitempty"`
}

// line is one line of a streamed answer; exactly one field is set. An answer that
// is not streamed is one line without Progress.
type line[T any] struct {
	Progress *Progress  `json:"progress,omitempty"`
	Result   *T         `json:"result,omitempty"`
	Error    *wireError `json:"error,omitempty"`
}

func toWire(err error) *wireError {
	w := &wireError{Kind: fault.KindOf(err).String()}
	if f, ok := errors.AsType[*fault.Error](err); ok && error(f) == err {
		w.Op, w.Name, w.Hint = f.Op, f.Name, f.Hint
		if f.Err != nil {
			w.Message = f.Err.Error()
		}
		return w
	}
	w.Message = err.Error()
	return w
}

func (w *wireError) fault() error {
	f := &fault.Error{Op: w.Op, Name: w.Name, Kind: parseKind(w.Kind), Hint: w.Hint}
	if w.Message != "" {
		f.Err = errors.New(w.Message)
	}
	if f.Op == "" && f.Err == nil {
		f.Err = errors.New(w.Kind)
	}
	return f
}

// parseKind is the inverse of fault.Kind's String. Kinds of a newer daemon are Other.
func parseKind(s string) fault.Kind {
	for k := fault.Other; k <= fault.TooMany; k++ {
		if k.String() == s {
			return k
		}
	}
	return fault.Other
}

// httpStatus is for people with curl; the client goes by the error's kind.
func httpStatus(err error) int {
	switch fault.KindOf(err) {
	case fault.Usage:
		return http.StatusBadRequest
	case fault.NotFound, fault.Stale:
		return http.StatusNotFound
	case fault.Permission:
		return http.StatusForbidden
	case fault.Exists, fault.Busy:
		return http.StatusConflict
	case fault.Full:
		return http.StatusInsufficientStorage
	case fault.TooMany:
		return http.StatusTooManyRequests
	case fault.Unsupported:
		return http.StatusNotImplemented
	}
	return http.StatusInternalServerError
}
