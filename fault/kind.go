package fault

import "fmt"

// Kind classifies an error by what the caller can do about it.
type Kind uint8

const (
	Other       Kind = iota // nothing better is known
	Usage                   // the request itself is wrong: a flag, an argument, a name
	NotFound                // there is no such thing
	Exists                  // the thing is there already
	Corrupt                 // content does not match what it should be
	Busy                    // somebody else holds or uses it; later may work
	Permission              // not allowed for this user
	Full                    // no space or quota is left
	ReadOnly                // the file system or the store takes no writes
	Version                 // a format of another version
	NotMounted              // no mount, or no daemon behind it
	Unsupported             // this kernel, file system or condafs cannot do it
	Canceled                // the caller gave up
	IO                      // the device or the connection failed
	Stale                   // the thing was there and is gone for good
	TooMany                 // a limit was reached: open files, bytes, members
)

var kindNames = [...]string{
	Other:       "other",
	Usage:       "usage",
	NotFound:    "not found",
	Exists:      "exists",
	Corrupt:     "corrupt",
	Busy:        "busy",
	Permission:  "permission",
	Full:        "full",
	ReadOnly:    "read-only",
	Version:     "version",
	NotMounted:  "not mounted",
	Unsupported: "unsupported",
	Canceled:    "canceled",
	IO:          "input/output",
	Stale:       "stale",
	TooMany:     "too many",
}

// String names the kind in lower case, as it stands in logs and JSON.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}
