package cow

import (
	"cmp"
	"time"

	"condafs/fault"
	"condafs/proc"
)

// member is a process acting as one user: a process that changes its user
// belongs to a session of each.
type member struct {
	proc.ID
	UID uint32 `json:"uid"`
}

func (m member) compare(o member) int {
	return cmp.Or(cmp.Compare(m.Start, o.Start), cmp.Compare(m.PID, o.PID), cmp.Compare(m.UID, o.UID))
}

// SessionFor returns the session of the process that the thread tid belongs to,
// and starts one if it has none. A tid of 0, or one that cannot be identified,
// shares a session with its uid's other such callers. besideShelf is about the
// session that is started: see StartOptions.
func (e *Engine) SessionFor(tid int, uid, gid uint32, besideShelf bool) (*Session, error) {
	if tid == 0 {
		return e.foreignSession(uid, gid)
	}
	info, err := e.o.Procs.Identify(tid)
	if fault.Is(err, fault.NotFound) {
		return e.foreignSession(uid, gid)
	}
	if err != nil {
		return nil, err
	}
	m := member{ID: info.ID, UID: uid}
	s, err := e.current(m)
	if s != nil || err != nil {
		return s, err
	}
	if s, err := e.inherit(m, info.PPID); s != nil || err != nil {
		return s, err
	}
	s, err = e.newSession(StartOptions{PID: info.PID, UID: uid, GID: gid, BesideShelf: besideShelf}, false)
	if err != nil {
		return nil, err
	}
	return e.enter(s, m)
}

// current returns the session that m belongs to already, unless that session
// is to be replaced by one with a fresh view.
func (e *Engine) current(m member) (*Session, error) {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil, errEngineClosed
	}
	s := e.members[m]
	if s == nil {
		e.mu.Unlock()
		return nil, nil
	}
	now := e.o.Now()
	idle := !s.explicit && now.Sub(s.lastUse) >= e.o.RepinAfter
	s.lastUse = now
	e.mu.Unlock()
	if !idle || !s.outdated() {
		return s, nil
	}
	e.mu.Lock()
	e.leave(m, s)
	e.mu.Unlock()
	e.endIfQuiet(s)
	return nil, nil
}

// outdated reports whether an idle process may be given a fresh view in place of
// s: a shell that looked at the packages weeks ago and has changed nothing.
func (s *Session) outdated() bool {
	return s.snap.Seq() != s.e.store.Head() && s.view.OpenHandles() == 0 && !s.dirty()
}

// inherit lets m join the session of its nearest ancestor that has one, if that
// is explicit or has ever written: then m works on the same thing. That all of it is
// committed by now doesn't matter, as the ancestor goes on with what m makes.
func (e *Engine) inherit(m member, ppid int) (*Session, error) {
	for _, id := range e.ancestors(m, ppid) {
		e.mu.Lock()
		s := e.members[member{ID: id, UID: m.UID}]
		e.mu.Unlock()
		if s == nil {
			continue
		}
		if !s.explicit && !s.hasWritten() && !s.dirty() {
			return nil, nil
		}
		s, err := e.join(s, m)
		if fault.Is(err, fault.Stale) {
			return nil, nil // it has just ended
		}
		return s, err
	}
	return nil, nil
}

// ancestors returns the ancestors of m that are there now, the nearest first.
func (e *Engine) ancestors(m member, ppid int) []proc.ID {
	const (
		deepest = 512 // nobody nests so deep; a guard against a loop through reused pids
		retries = 3
	)
	var ids []proc.ID
	child, tries := m.ID, 0
	for ppid > 0 && len(ids) < deepest {
		parent, err := e.o.Procs.Identify(ppid)
		if err != nil || parent.PID != ppid {
			// It has died since we asked; the child has got another one.
			again, err := e.o.Procs.Identify(child.PID)
			if tries++; err != nil || again.ID != child || again.PPID == ppid || tries > retries {
				return ids
			}
			ppid = again.PPID
			continue
		}
		ids = append(ids, parent.ID)
		child, ppid = parent.ID, parent.PPID
	}
	return ids
}

// enter makes m the first member of the new session s, unless another thread of
// the process has been faster with one.
func (e *Engine) enter(s *Session, m member) (*Session, error) {
	e.mu.Lock()
	// At once with its member: who finds a session without one, after a pause for
	// instance, takes it for one that is over.
	got, err := e.joinLocked(s, m)
	if got == s {
		e.sessions[s.id] = s
	}
	e.mu.Unlock()
	if err != nil {
		return nil, e.abandon(s, err)
	}
	if got != s {
		if err := e.abandon(s, nil); err != nil {
			e.log.Warn("a session that was not needed is left behind", "session", s.id, "error", err)
		}
	}
	return got, nil
}

// join makes m a member of s, or returns the session that m has joined in the
// meantime. It fails with fault.Stale if s takes no members any more.
func (e *Engine) join(s *Session, m member) (*Session, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.joinLocked(s, m)
}

func (e *Engine) joinLocked(s *Session, m member) (*Session, error) {
	if other := e.members[m]; other != nil {
		return other, nil
	}
	if e.closed {
		return nil, errEngineClosed
	}
	if s.state != stateActive {
		return nil, fault.New("join session", s.id, fault.Stale, nil)
	}
	cancel, err := e.o.Procs.Watch(m.ID, func(exit proc.Exit) { e.exited(m, s, exit) })
	if err != nil {
		return nil, err
	}
	e.members[m], s.members[m] = s, cancel
	s.lastUse = e.o.Now()
	return s, nil
}

// leave is the opposite of join. e.mu is held.
func (e *Engine) leave(m member, s *Session) {
	cancel, ok := s.members[m]
	if !ok {
		return
	}
	cancel()
	delete(s.members, m)
	if e.members[m] == s {
		delete(e.members, m)
	}
	s.signal()
}

// signal wakes those who wait for s to become quiet. e.mu is held.
func (s *Session) signal() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// exited is called when a member's process is gone.
func (e *Engine) exited(m member, s *Session, exit proc.Exit) {
	e.mu.Lock()
	if !exit.ByItself() {
		s.killed = true
	}
	e.leave(m, s)
	e.mu.Unlock()
	e.endIfQuiet(s)
}

// foreignSession returns the session of callers whose process cannot be seen
// from here, one for each uid.
func (e *Engine) foreignSession(uid, gid uint32) (*Session, error) {
	e.mu.Lock()
	s, closed := e.foreign[uid], e.closed
	if s != nil {
		s.lastUse = e.o.Now()
	}
	e.mu.Unlock()
	if closed {
		return nil, errEngineClosed
	}
	if s != nil {
		return s, nil
	}
	s, err := e.newSession(StartOptions{UID: uid, GID: gid, Label: "callers without a pid"}, false)
	if err != nil {
		return nil, err
	}
	s.foreign = true
	e.mu.Lock()
	other, closed := e.foreign[uid], e.closed
	if other == nil && !closed {
		e.sessions[s.id], e.foreign[uid] = s, s
	}
	e.mu.Unlock()
	switch {
	case closed:
		return nil, e.abandon(s, errEngineClosed)
	case other != nil:
		return other, e.abandon(s, nil)
	}
	e.endWhenUnused(s)
	return s, nil
}

// endWhenUnused ends a session that has no members to wait for once nobody has
// used it for a while.
func (e *Engine) endWhenUnused(s *Session) {
	time.AfterFunc(e.o.RepinAfter, func() {
		e.endIfQuiet(s)
		e.mu.Lock()
		active := s.state == stateActive && !e.closed
		e.mu.Unlock()
		if active {
			e.endWhenUnused(s)
		}
	})
}

// StartSession starts an explicit session of the process o.PID and its descendants.
func (e *Engine) StartSession(o StartOptions) (*Session, error) {
	info, err := e.o.Procs.Identify(o.PID)
	if err != nil {
		return nil, err
	}
	if o.OnFailure == "" {
		o.OnFailure = KeepUnits
	}
	s, err := e.newSession(o, true)
	if err != nil {
		return nil, err
	}
	m := member{ID: info.ID, UID: o.UID}
	e.mu.Lock()
	before := e.members[m]
	if before != nil {
		e.leave(m, before) // it looked at the mount before; from now on it belongs here
	}
	e.mu.Unlock()
	if before != nil {
		e.endIfQuiet(before)
	}
	got, err := e.enter(s, m)
	if err == nil && got != s {
		err = fault.New("start session", "", fault.Busy, nil)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}
