package control

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"unicode/utf8"
)

// What happens to a session's uncommitted changes when its command fails.
const (
	KeepUnits = "keep-units" // commit complete verified units, drop the rest
	DropAll   = "discard"    // commit nothing
	KeepAll   = "keep"       // leave the session as it is, to be committed or discarded by hand
)

// OnFailures are the values of --on-failure, the default first.
var OnFailures = []string{KeepUnits, DropAll, KeepAll}

// Bounds of what a request may hold.
const (
	maxBody    = 1 << 20 // bytes of one request
	maxLabel   = 200
	maxCommand = 4096
	maxPath    = 4096
	maxNames   = 10000
)

// StartRequest asks for an explicit session.
type StartRequest struct {
	Label     string `json:"label,omitempty"`
	Command   string `json:"command,omitempty"` // for the log
	Ephemeral bool   `json:"ephemeral,omitempty"`
	// BesideShelf leaves what is on the shelf out of the session's view.
	BesideShelf bool   `json:"beside_shelf,omitempty"`
	OnFailure   string `json:"on_failure,omitempty"` // one of OnFailures; empty means the first
}

// EndRequest ends an explicit session.
type EndRequest struct {
	ExitCode int `json:"exit_code"` // as a shell counts: 128 + the signal that killed the command
}

// VerifyRequest asks for a check of the store.
type VerifyRequest struct {
	Full bool `json:"full,omitempty"` // read and hash every blob
}

// RepairRequest asks for a check of the store, and that what it finds be mended.
type RepairRequest struct {
	Full bool `json:"full,omitempty"` // read and hash every blob
}

// ScrubRequest asks for a scrub at full rate.
type ScrubRequest struct{}

// GCRequest asks for a collection.
type GCRequest struct {
	DryRun bool `json:"dry_run,omitempty"`
	// Packages that were not used for longest leave the newest snapshot until the store is no larger than MaxSize and
	// MinFree bytes are free, and those that were not used for MaxAge seconds. 0: no limit.
	MaxSize int64 `json:"max_size,omitempty"`
	MinFree int64 `json:"min_free,omitempty"`
	MaxAge  int64 `json:"max_age,omitempty"`
}

// ImportRequest names the directory to import.
type ImportRequest struct {
	Dir string `json:"dir"` // absolute
}

// ExportRequest names the directory to write to.
type ExportRequest struct {
	Dir   string   `json:"dir"`             // absolute
	Names []string `json:"names,omitempty"` // packages; empty means all
}

// UpgradeRequest names the program that is to take over.
type UpgradeRequest struct {
	Binary string `json:"binary"` // absolute
	DryRun bool   `json:"dry_run,omitempty"`
}

// StopRequest asks the daemon to go.
type StopRequest struct {
	Lazy bool `json:"lazy,omitempty"` // do not wait for those who use the mount
}

// empty is the body of requests that say everything by their path.
type empty struct{}

func (empty) check() error           { return nil }
func (r VerifyRequest) check() error { return nil }
func (r RepairRequest) check() error { return nil }
func (r ScrubRequest) check() error  { return nil }
func (r GCRequest) check() error {
	if r.MaxSize < 0 || r.MinFree < 0 || r.MaxAge < 0 {
		return errors.New("a limit is less than 0")
	}
	return nil
}
func (r StopRequest) check() error   { return nil }
func (r ImportRequest) check() error { return checkDir(r.Dir) }

func (r UpgradeRequest) check() error {
	if err := checkDir(r.Binary); err != nil {
		return fmt.Errorf("binary: %w", err)
	}
	return nil
}

func (r StartRequest) check() error {
	if err := checkText("label", r.Label, maxLabel); err != nil {
		return err
	}
	if err := checkText("command", r.Command, maxCommand); err != nil {
		return err
	}
	return CheckOnFailure(r.OnFailure)
}

func (r EndRequest) check() error {
	if r.ExitCode < 0 || r.ExitCode > 255 {
		return fmt.Errorf("exit_code %d is not in 0…255", r.ExitCode)
	}
	return nil
}

func (r ExportRequest) check() error {
	if len(r.Names) > maxNames {
		return fmt.Errorf("more than %d names", maxNames)
	}
	for _, n := range r.Names {
		if err := CheckPackageName(n); err != nil {
			return err
		}
	}
	return checkDir(r.Dir)
}

// CheckOnFailure reports whether s is one of [OnFailures] or empty.
func CheckOnFailure(s string) error {
	if s == "" {
		return nil
	}
	for _, v := range OnFailures {
		if s == v {
			return nil
		}
	}
	return fmt.Errorf("%q is none of %s", s, strings.Join(OnFailures, ", "))
}

// CheckPackageName rejects what cannot be the name of a package: it becomes part
// of a path.
func CheckPackageName(s string) error {
	switch {
	case s == "", s == ".", s == "..", len(s) > 255, strings.ContainsAny(s, "/\x00"):
		return fmt.Errorf("%q is no package name", s)
	}
	return nil
}

// checkID accepts the ids that the daemon gives to sessions and quarantined things.
func checkID(s string) error {
	if s == "" || len(s) > 64 {
		return fmt.Errorf("%q is no id", s)
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' && c != '_' {
			return fmt.Errorf("%q is no id", s)
		}
	}
	return nil
}

// checkText bounds what is shown to people: no control characters that would play
// tricks on a terminal or break up a log.
func checkText(what, s string, most int) error {
	if len(s) > most {
		return fmt.Errorf("%s is longer than %d bytes", what, most)
	}
	if !utf8.ValidString(s) {
		return fmt.Errorf("%s is not UTF-8", what)
	}
	for _, c := range s {
		if c < ' ' || c == 0x7f {
			return fmt.Errorf("%s holds a control character", what)
		}
	}
	return nil
}

func checkDir(s string) error {
	switch {
	case len(s) > maxPath:
		return fmt.Errorf("dir is longer than %d bytes", maxPath)
	case !path.IsAbs(s) || path.Clean(s) != s || strings.ContainsRune(s, 0):
		return fmt.Errorf("dir %q is not a clean absolute path", s)
	}
	return nil
}
