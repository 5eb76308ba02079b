package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"condafs/fault"
)

// request is a body that can tell whether its values make sense.
type request interface{ check() error }

// decode reads one JSON object, and nothing after it, into a T. An empty body is
// the zero T. Unknown fields are errors: a misspelt "dry_run" must not collect.
func decode[T request](r io.Reader) (T, error) {
	var v T
	limited := &io.LimitedReader{R: r, N: maxBody + 1}
	d := json.NewDecoder(limited)
	d.DisallowUnknownFields()
	switch err := d.Decode(&v); {
	case errors.Is(err, io.EOF) && d.InputOffset() == 0: // nothing but white space
	case err != nil:
		return v, badRequest(err)
	default:
		if _, err := d.Token(); !errors.Is(err, io.EOF) {
			return v, badRequest(errors.New("more than one JSON value"))
		}
	}
	if limited.N == 0 {
		return v, badRequest(fmt.Errorf("larger than %d bytes", maxBody))
	}
	if err := v.check(); err != nil {
		return v, badRequest(err)
	}
	return v, nil
}

func badRequest(err error) error { return fault.New("read request", "", fault.Usage, err) }
