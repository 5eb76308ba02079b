package conda

import (
	"fmt"

	"condafs/fault"
)

// corrupt makes the error for something that must not be published.
func corrupt(op, name, format string, args ...any) error {
	return fault.New(op, name, fault.Corrupt, fmt.Errorf(format, args...))
}

// readFailure is the error for a read that failed. What the operating system
// or a cancelled context report says nothing about the bytes; anything else
// came from a decoder that refused them.
func readFailure(op, name string, err error) error {
	kind := fault.KindOf(err)
	if kind == fault.Other {
		kind = fault.Corrupt
	}
	return fault.New(op, name, kind, err)
}
