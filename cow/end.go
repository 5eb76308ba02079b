package cow

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"condafs/fault"
	"condafs/index"
	"condafs/internal/failpoint"
)

// scope says how much of a session is committed.
type scope uint8

const (
	nothing scope = iota
	// units: what is complete and can be checked, but neither plain files,
	// which may have been cut short, nor deletions.
	units
	everything
)

// releaseGrace is how long End and Commit wait for the kernel to tell about files that
// the command has just closed, by exiting for instance: close(2) does not wait for it.
const releaseGrace = 2 * time.Second

// policy returns how much is committed when s ends.
func (s *Session) policy() scope {
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	failed := s.killed
	onFailure := KeepUnits
	if s.explicit {
		onFailure = s.start.OnFailure
	}
	if s.outcome != nil {
		failed = s.outcome.ExitCode != 0
		if s.outcome.OnFailure != "" {
			onFailure = s.outcome.OnFailure
		}
	}
	switch {
	case s.start.Ephemeral, failed && onFailure == DiscardAll:
		return nothing
	case failed:
		return units
	}
	return everything
}

// keeps reports whether the failure of its command leaves the session as it is.
func (s *Session) keeps() bool {
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	if s.outcome == nil || s.outcome.ExitCode == 0 || s.start.Ephemeral {
		return false
	}
	onFailure := s.outcome.OnFailure
	if onFailure == "" {
		onFailure = s.start.OnFailure
	}
	return onFailure == KeepOverlay
}

// claim makes the caller the one who ends s, if s is in one of these states.
func (e *Engine) claim(s *Session, from ...state) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.claimLocked(s, from...)
}

// claimUnpaused is claim unless the engine is paused.
func (e *Engine) claimUnpaused(s *Session, from ...state) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return !e.paused && e.claimLocked(s, from...)
}

func (e *Engine) claimLocked(s *Session, from ...state) bool {
	for _, st := range from {
		if s.state != st {
			continue
		}
		s.state = stateEnding
		for m := range s.members {
			e.leave(m, s)
		}
		if e.foreign[s.uid] == s {
			delete(e.foreign, s.uid)
		}
		return true
	}
	return false
}

// settle notes what has come of a session's end.
func (e *Engine) settle(s *Session, st state, r Report, err error) {
	e.mu.Lock()
	s.state, s.report, s.failure = st, r, err
	s.signal()
	e.mu.Unlock()
	e.flights.end(s)
}

// noteIdle hears that nothing of s is open, or that nobody refers to its nodes.
func (e *Engine) noteIdle(s *Session) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s.signal()
	if len(s.members) == 0 && (s.state == stateActive || s.state == stateEnded) {
		e.backgroundLocked(func() { e.endIfQuiet(s) })
	}
}

// endIfQuiet ends s when its last member is gone and its handles are closed.
func (e *Engine) endIfQuiet(s *Session) {
	e.mu.Lock()
	quiet := !e.closed && !e.paused && s.state == stateActive && len(s.members) == 0 && s.view.OpenHandles() == 0 &&
		!(s.foreign && e.o.Now().Sub(s.lastUse) < e.o.RepinAfter)
	if quiet {
		quiet = e.claimLocked(s, stateActive)
	}
	if quiet {
		e.backgroundLocked(func() {
			if _, err := e.finish(e.working(), s, s.policy()); err != nil && !canceled(err) {
				e.log.Warn("a session could not be committed and waits", "session", s.id, "error", err)
			}
		})
	}
	ended := s.state == stateEnded && !e.paused
	e.mu.Unlock()
	if ended {
		e.bury(s)
	}
}

// finish commits what the scope allows and drops the rest. The caller has
// claimed s. When something could not be committed that another time could be,
// for a full disk, nothing is dropped: s waits.
func (e *Engine) finish(ctx context.Context, s *Session, what scope) (Report, error) {
	s.view.Retire()
	failpoint.Hit(failpoint.EndRetired, s.e.store.Dir())
	s.work.Lock()
	report, err := s.commitAll(ctx, what, true)
	s.work.Unlock()
	if err == nil {
		err = s.view.dropLanes() // that could not be taken over, or were not to be
	}
	if err == nil {
		failpoint.Hit(failpoint.EndCommitted, s.e.store.Dir())
		err = s.unrecord()
		failpoint.Hit(failpoint.EndUnrecorded, s.e.store.Dir())
	}
	if err != nil {
		e.settle(s, stateWaiting, report, err)
		if rerr := s.record(false); rerr != nil {
			e.log.Warn("what is known of a waiting session could not be written down", "session", s.id, "error", rerr)
		}
		return report, err
	}
	e.logReport(s, report)
	e.settle(s, stateEnded, report, nil)
	if inv := e.invalidator(); inv != nil {
		inv.SessionEnded(s.id)
	}
	e.bury(s)
	if len(report.Committed) > 0 {
		e.retryWaiting(s)
	}
	e.head.follow() // it would keep the versions that the store could drop
	return report, nil
}

// retryWaiting gives the sessions that could not be committed another chance,
// now that one could.
func (e *Engine) retryWaiting(but *Session) {
	for _, s := range e.all() {
		if s == but || !e.claimUnpaused(s, stateWaiting) {
			continue
		}
		if !e.background(func() {
			if _, err := e.finish(e.working(), s, s.policy()); err != nil {
				e.log.Warn("a session still waits to be committed", "session", s.id, "error", err)
			}
		}) {
			e.settle(s, stateWaiting, Report{}, nil) // the engine is closing
		}
	}
}

// bury removes what is left of an ended session as soon as the kernel has let
// go of its tree: a shell may still stand in a directory of it.
func (e *Engine) bury(s *Session) {
	if s.view.References() > 0 || s.view.OpenHandles() > 0 {
		return // the view tells when that is over
	}
	e.mu.Lock()
	_, there := e.sessions[s.id]
	delete(e.sessions, s.id)
	e.mu.Unlock()
	if !there {
		return
	}
	failpoint.Hit(failpoint.EndBury, s.e.store.Dir())
	if err := errors.Join(s.release(), s.removeFiles()); err != nil {
		e.log.Warn("an ended session leaves something behind until the next start", "session", s.id, "error", err)
	}
	failpoint.Hit(failpoint.EndBuried, s.e.store.Dir())
}

// abandon removes a session that never had a member, and returns why with what
// went wrong.
func (e *Engine) abandon(s *Session, why error) error {
	return errors.Join(why, s.release(), s.removeFiles())
}

// find returns a session that has not ended.
func (e *Engine) find(op, id string) (*Session, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.sessions[id]
	if s == nil || s.state == stateEnded {
		return nil, fault.New(op, id, fault.NotFound, errors.New("there is no such session"))
	}
	return s, nil
}

// Commit publishes what a session holds. An active one goes on: what is
// complete and not open is committed, and the report says what stays in its
// overlay. One that was kept or waits ends.
func (e *Engine) Commit(ctx context.Context, id string) (Report, error) {
	const op = "commit session"
	s, err := e.find(op, id)
	if err != nil {
		return Report{}, err
	}
	if s.start.Ephemeral {
		return Report{}, fault.New(op, id, fault.Usage, errors.New("it is ephemeral")).WithHint("an ephemeral session can only be discarded")
	}
	if e.claim(s, stateKept, stateWaiting) {
		return e.finish(ctx, s, everything)
	}
	if err := e.awaitReleases(ctx, s); err != nil {
		return Report{}, err
	}
	s.work.Lock()
	defer s.work.Unlock()
	e.mu.Lock()
	active := s.state == stateActive
	e.mu.Unlock()
	if !active {
		return Report{}, fault.New(op, id, fault.Busy, errors.New("it is being committed"))
	}
	report, err := s.commitAll(ctx, everything, false)
	if err == nil {
		e.logReport(s, report)
	}
	return report, err
}

// Discard ends a session and throws away what it has not committed.
func (e *Engine) Discard(ctx context.Context, id string) error {
	s, err := e.find("discard session", id)
	if err != nil {
		return err
	}
	if !e.claim(s, stateActive, stateKept, stateWaiting) {
		return fault.New("discard session", id, fault.Busy, errors.New("it is being committed"))
	}
	_, err = e.finish(ctx, s, nothing)
	return err
}

// End ends an explicit session whose command has exited. Processes that the
// command has left behind keep the session, and what they complete is committed
// when the last of them exits; the report is about what is there now.
func (e *Engine) End(ctx context.Context, id string, o Outcome) (Report, error) {
	const op = "end session"
	s, err := e.find(op, id)
	if err != nil {
		return Report{}, err
	}
	if !s.explicit {
		return Report{}, fault.New(op, id, fault.Usage, errors.New("it has no command"))
	}
	e.mu.Lock()
	s.outcome = &o
	for m := range s.members {
		if m.PID == s.start.PID {
			e.leave(m, s) // it waits for us
		}
	}
	e.mu.Unlock()
	if s.keeps() {
		return e.keepSession(s)
	}
	switch st, err := e.awaitQuiet(ctx, s); {
	case err != nil:
		return Report{}, err
	case st == stateActive: // some go on
		return e.commitSoFar(ctx, s)
	case st == stateEnding:
		return e.finish(ctx, s, s.policy())
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return s.report, s.failure // its last member has ended it
}

// awaitQuiet waits until s has neither members nor open handles, and then
// claims it: the result is stateEnding. While there are members, or when handles
// stay open, it is stateActive. Else s has ended in another way.
func (e *Engine) awaitQuiet(ctx context.Context, s *Session) (state, error) {
	grace := time.NewTimer(releaseGrace)
	defer grace.Stop()
	for {
		e.mu.Lock()
		changed, st := s.changed, s.state
		quiet := len(s.members) == 0 && s.view.OpenHandles() == 0
		if quiet && e.claimLocked(s, stateActive) {
			e.mu.Unlock()
			return stateEnding, nil
		}
		members := slices.Collect(maps.Keys(s.members))
		e.mu.Unlock()
		// Who has exited leaves as soon as somebody tells, which may be later than the command's parent is told.
		busy := slices.ContainsFunc(members, func(m member) bool { return e.o.Procs.Alive(m.ID) })
		switch {
		case st == stateEnding:
			// The exit of its last member was noticed first; that commits it.
		case st != stateActive || busy:
			return st, nil
		}
		select {
		case <-changed:
		case <-grace.C:
			if st == stateActive {
				return st, nil
			}
		case <-ctx.Done():
			return st, fault.New("end session", s.id, fault.Canceled, context.Cause(ctx))
		}
	}
}

// awaitReleases waits until nothing of s is open for writing, or what is seems to stay so.
func (e *Engine) awaitReleases(ctx context.Context, s *Session) error {
	s.awaiting.Add(1)
	defer s.awaiting.Add(-1)
	grace := time.NewTimer(releaseGrace)
	defer grace.Stop()
	for {
		e.mu.Lock()
		changed := s.changed
		e.mu.Unlock()
		if s.view.Writers("") == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-grace.C:
			return nil
		case <-ctx.Done():
			return fault.New("commit session", s.id, fault.Canceled, context.Cause(ctx))
		}
	}
}

// commitSoFar commits what the outcome allows of a session that goes on.
func (e *Engine) commitSoFar(ctx context.Context, s *Session) (Report, error) {
	what := s.policy()
	if what == nothing {
		return Report{Seq: e.store.Head()}, nil
	}
	s.work.Lock()
	defer s.work.Unlock()
	return s.commitAll(ctx, what, false)
}

// keepSession leaves s as it is, for people to look at.
func (e *Engine) keepSession(s *Session) (Report, error) {
	e.mu.Lock()
	if s.state == stateActive {
		for m := range s.members {
			e.leave(m, s)
		}
		s.state = stateKept
	}
	e.mu.Unlock()
	e.flights.end(s)
	s.mu.Lock()
	s.recorded = true
	s.mu.Unlock()
	return Report{Seq: e.store.Head(), Pending: []Note{{"", "kept after the failure of its command"}}}, s.record(false)
}

// suspend prepares s for the end of the daemon: what is complete is committed,
// and the rest is written down for the next one.
func (e *Engine) suspend(ctx context.Context, s *Session) error {
	s.work.Lock()
	defer s.work.Unlock()
	e.mu.Lock()
	st := s.state
	e.mu.Unlock()
	if st == stateEnded {
		return nil
	}
	var err error
	if st == stateActive && !s.deferred() {
		_, err = s.commitAll(ctx, units, false)
	}
	if !s.dirty() {
		return errors.Join(err, s.unrecord())
	}
	s.mu.Lock()
	s.recorded = true
	s.mu.Unlock()
	failpoint.Hit(failpoint.SessionSuspend, s.e.store.Dir())
	return errors.Join(err, s.record(true))
}

// logReport tells the log what a commit has done, as far as it matters later.
func (e *Engine) logReport(s *Session, r Report) {
	for _, n := range r.Quarantined {
		e.log.Warn("put into quarantine", "session", s.id, "path", n.Path, "why", n.Why)
	}
	for _, n := range r.Dropped {
		e.log.Info("dropped", "session", s.id, "path", n.Path, "why", n.Why)
	}
	if len(r.Committed) > 0 {
		e.log.Info("committed", "session", s.id, "units", len(r.Committed), "head", index.Seq(r.Seq))
	}
}

// canceled reports whether err says that the caller gave up, rather than that
// something is wrong.
func canceled(err error) bool { return fault.Is(err, fault.Canceled) }
