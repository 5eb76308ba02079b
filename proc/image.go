package proc

import "golang.org/x/sys/unix"

// Held is the pidfd of a watched process, which knows how it has ended even when nobody
// else does.
type Held struct {
	ID ID
	FD int
}

// Draw lists the pidfds, for a program that takes this one's place.
func (t *Linux) Draw() []Held {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []Held
	for _, w := range t.byFD {
		list = append(list, Held{w.id, w.fd})
	}
	return list
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
