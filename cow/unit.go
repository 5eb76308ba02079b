package cow

import (
	"context"
	"path"

	"condafs/conda"
	"condafs/fault"
)

// job is what goes on in the background for one package: its extracted
// directory and the archive beside it, or a rattler package with its metadata.
type job struct {
	complete bool // the client has written what it writes last
	running  bool
	again    bool  // something happened while it ran
	why      error // what kept it from being committed the last time
}

// event takes note of what a client did. It never blocks.
func (s *Session) event(ev Event) {
	if ev.Op == Idle {
		s.e.noteIdle(s)
		return
	}
	s.noteWrite()
	if ev.Op == Closed && s.awaiting.Load() > 0 {
		s.e.mu.Lock()
		s.signal()
		s.e.mu.Unlock()
	}
	if !s.deferred() {
		s.e.flights.note(s, ev)
	}
	if ev.Op == Closed || ev.Op == Renamed {
		u := conda.Classify(ev.Path, ev.IsDir)
		if u.Kind == conda.Archive && !s.deferred() {
			s.hashArchive(ev.Path)
		}
		if root, ok := packageRoot(u); ok {
			s.trigger(root, completes(u, ev))
		}
	}
}

// noteWrite makes sure that the store knows of the session once it has written.
func (s *Session) noteWrite() {
	s.mu.Lock()
	first := !s.recorded
	s.recorded = true
	s.mu.Unlock()
	if !first {
		return
	}
	s.e.background(func() {
		if err := s.record(false); err != nil {
			s.e.log.Warn("a session could not be recorded: it would be lost if the daemon died", "session", s.id, "error", err)
		}
	})
}

// packageRoot returns the directory of the package that a unit is or goes with.
func packageRoot(u conda.Unit) (string, bool) {
	switch u.Kind {
	case conda.Package, conda.RattlerPackage:
		return u.Root, true
	case conda.Archive:
		dir, name := path.Split(u.Root)
		stem, _ := conda.CutArchiveExt(name)
		return dir + stem, true
	}
	return "", false
}

// completes reports whether the event is the last thing that a client does to
// the package that u belongs to.
func completes(u conda.Unit, ev Event) bool {
	switch u.Kind {
	case conda.Package:
		return ev.Path == u.Root+"/"+conda.CompletionMarker || ev.Op == Renamed && ev.Path == u.Root
	case conda.RattlerPackage:
		return ev.Op == Renamed && ev.Path == u.Root
	}
	return false
}

// trigger starts the job of a package that is complete, or lets it run again.
func (s *Session) trigger(root string, complete bool) {
	if s.deferred() {
		return
	}
	s.mu.Lock()
	j := s.jobs[root]
	if j == nil {
		if !complete {
			s.mu.Unlock()
			return // nothing to do before there is evidence
		}
		j = &job{}
		s.jobs[root] = j
	}
	j.complete = j.complete || complete
	start := !j.running
	j.again = true
	j.running = true
	s.mu.Unlock()
	if start && !s.e.begin(func() { s.run(root, j) }) {
		s.putOff(root, j)
	}
}

// putOff ends a run of a job that is to run again: the engine is closing, and looks at
// everything itself, or it is paused, and triggers the job when it goes on.
func (s *Session) putOff(root string, j *job) {
	s.mu.Lock()
	j.running = false
	s.mu.Unlock()
	if s.e.goesOn() { // in between: it has overlooked the job
		s.trigger(root, false)
	}
}

// run commits a package, again as long as its client goes on changing it.
func (s *Session) run(root string, j *job) {
	for {
		paused := s.e.isPaused()
		s.mu.Lock()
		if !j.again {
			j.running = false
			s.mu.Unlock()
			return
		}
		if paused {
			s.mu.Unlock()
			s.putOff(root, j)
			return
		}
		j.again = false
		s.mu.Unlock()

		err := s.commitPackage(s.e.working(), root)

		stopped := canceled(err) && s.e.isPaused()
		s.mu.Lock()
		j.why = err
		j.again = j.again || stopped
		complete := j.complete
		s.mu.Unlock()
		if complete && !fault.Is(err, fault.Busy) { // that of which something is still open comes yet
			s.e.flights.land(s, root)
		}
		if err != nil {
			s.e.log.Debug("a package stays in the overlay for now", "session", s.id, "package", root, "error", err)
		}
	}
}

// commitPackage checks one package and publishes it.
func (s *Session) commitPackage(ctx context.Context, root string) error {
	s.work.RLock()
	defer s.work.RUnlock()
	s.e.mu.Lock()
	active := s.state == stateActive
	s.e.mu.Unlock()
	if !active {
		return nil // whoever ends the session looks at everything
	}
	if err := s.checkAndSeal(ctx, root); err != nil {
		return err
	}
	report, err := s.publishItems(ctx, nil)
	if err == nil {
		s.e.logReport(s, report)
	}
	return err
}

// checkAndSeal prepares a package and seals it. When the client touches the
// package in between, it starts over, though not without end: a client that
// goes on will close a file, and that is the next trigger.
func (s *Session) checkAndSeal(ctx context.Context, root string) error {
	const tries = 4
	for try := 1; ; try++ {
		err := s.resume(root)
		if err == nil {
			var parts []*part
			if parts, err = s.preparePackage(ctx, root); err == nil {
				err = s.sealAll(parts)
			}
		}
		if err == nil || !fault.Is(err, fault.Busy) || try == tries {
			return err
		}
	}
}
