// Package doctor looks for what keeps condafs from working well on a machine, and says it in
// plain words, with the command that mends it. It changes nothing.
package doctor

import (
	"errors"

	"condafs/control"
	"condafs/fault"
)

// State is how bad a finding is.
type State string

// States.
const (
	Fine    State = "ok"
	Warning State = "warning" // it works, but not as well as it could
	Wrong   State = "wrong"
)

// Finding is what one look has found.
type Finding struct {
	Check string `json:"check"`
	State State  `json:"state"`
	What  string `json:"what"`
	Mend  string `json:"mend,omitempty"` // what to do, a command as a rule
	// Stale is a mount whose daemon has died, which can be taken away.
	Stale string `json:"-"`
}

// Patient is who asks, and for which mount.
type Patient struct {
	UID        int
	Getenv     func(string) string
	MountPoint string // the configured one
	Store      string
	AllowOther bool
	Version    string // of this program
	// Root is where /etc and /proc are looked for: "/", or a directory of a test's.
	Root   string
	Mounts func() ([]control.Mount, error)
	Info   func(point string) (control.Info, error)
	// System says what is wrong with the system's FUSE, or with mounting at the mount point.
	System func(allowOther bool) error
	Place  func(point string, allowOther bool) error
}

// Examine looks at everything.
func (p *Patient) Examine() []Finding {
	l := p.system()
	mounts, mounted, seen := p.mounts()
	l = append(l, mounts...)
	l = append(l, p.places(mounted, seen)...)
	l = append(l, p.space(mounted)...)
	l = append(l, p.clients(mounted)...)
	return l
}

// Worst is the worst of the states.
func Worst(l []Finding) State {
	worst := Fine
	for _, f := range l {
		if f.State == Wrong || worst == Fine {
			worst = f.State
		}
	}
	return worst
}

// complaint makes a finding of an error, whose hint is what to do.
func complaint(check string, err error) Finding {
	f := Finding{Check: check, State: Wrong, What: err.Error()}
	if e, ok := errors.AsType[*fault.Error](err); ok {
		f.Mend = e.Hint
		f.What = e.WithHint("").Error()
	}
	return f
}
