package proc

import (
	"golang.org/x/sys/unix"

	"condafs/fault"
)

// Held is the pidfd of a watched process, which knows how it has ended even when nobody
// else does.
type Held struct {
	ID ID
	FD int
}

// Draw returns other descriptors of the pidfds, for a program that takes this one's place:
// the table closes its own when a process exits. The caller closes them.
func (t *Linux) Draw() ([]Held, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []Held
	for _, w := range t.byFD {
		fd, err := unix.FcntlInt(uintptr(w.fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			Close(list)
			return nil, fault.New("hold process", w.id.String(), fault.Other, err)
		}
		list = append(list, Held{w.id, fd})
	}
	return list, nil
}

// Close closes what Draw has returned.
func Close(list []Held) {
	for _, h := range list {
		unix.Close(h.FD) //nolint:errcheck // a pidfd has nothing to lose
	}
}

// Inherit gives the table the pidfds that another one has drawn, before anything is
// watched.
func (t *Linux) Inherit(list []Held) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.heir = make(map[ID]int, len(list))
	for _, h := range list {
		t.heir[h.ID] = h.FD
	}
}

// Disown closes those that nobody has asked for.
func (t *Linux) Disown() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, fd := range t.heir {
		unix.Close(fd) //nolint:errcheck // a pidfd has nothing to lose
	}
	clear(t.heir)
}
