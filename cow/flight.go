package cow

import (
	"errors"
	"sync"
	"time"

	"condafs/conda"
	"condafs/fault"
	"condafs/index"
)

// Clients plan first: they look at what the package directory has, and fetch and unpack
// the rest, whatever comes to be there meanwhile. So that many that begin together don't
// all do the same work, one who is about to plan waits while another brings packages,
// and finds them then.
//
// It can't deadlock: who brings anything himself, waits for nobody. And nobody waits for
// long: not for one who makes no progress, and never longer than flightPatience.
const (
	// flightPatience is the longest that anybody waits.
	flightPatience = 30 * time.Second
	// flightStall is how long one may make no progress before nobody waits for him.
	flightStall = 3 * time.Second
	// planningTime is how long the first of several that plan at the same time has to
	// begin fetching before the others go on.
	planningTime = 400 * time.Millisecond
	// flightTick is how often progress is looked at.
	flightTick = 50 * time.Millisecond
)

// flights knows who brings packages.
type flights struct {
	mu      sync.Mutex
	by      map[*Session]*flight
	changed chan struct{} // closed at each change
	// planner may be about to begin, until then.
	planner *Session
	until   time.Time
}

// flight is one session on its way with packages.
type flight struct {
	roots   map[string]struct{} // the packages that it has begun
	events  uint64
	stalled bool
}

func newFlights() *flights {
	return &flights{by: make(map[*Session]*flight), changed: make(chan struct{})}
}

// signal wakes those who wait. f.mu is held.
func (f *flights) signal() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// note hears what a session's clients do.
func (f *flights) note(s *Session, ev Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if ev.Op == Created {
		if root, ok := conda.Fetching(ev.Path, ev.IsDir); ok {
			f.take(s, root)
		}
	}
	fl := f.by[s]
	if fl == nil {
		return
	}
	fl.events++
	fl.stalled = false
	if ev.Op == Removed && !ev.IsDir {
		if root, ok := conda.Fetching(ev.Path, false); ok {
			f.landLocked(s, root) // it has given up, or begins again
		}
	}
}

// take notes that a session has begun to bring a package. f.mu is held.
func (f *flights) take(s *Session, root string) {
	fl := f.by[s]
	if fl == nil {
		fl = &flight{roots: make(map[string]struct{})}
		f.by[s] = fl
	}
	fl.roots[root] = struct{}{}
	if f.planner == s {
		f.planner = nil // from now on it is this flight that others wait for
	}
}

// land notes that a package is there for others, or that nobody need wait for it.
func (f *flights) land(s *Session, root string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.landLocked(s, root)
}

func (f *flights) landLocked(s *Session, root string) {
	fl := f.by[s]
	if fl == nil {
		return
	}
	if delete(fl.roots, root); len(fl.roots) == 0 {
		delete(f.by, s)
		f.signal()
	}
}

// end notes that a session brings nothing any more.
func (f *flights) end(s *Session) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.by[s] == nil && f.planner != s {
		return
	}
	delete(f.by, s)
	if f.planner == s {
		f.planner = nil
	}
	f.signal()
}

// others returns whom s has to wait for at present: only those whose packages it would
// be given, so that no user can keep another waiting for nothing. Of several that plan at once with
// nobody on the way, it makes one the planner.
func (f *flights) others(s *Session, waited, cold bool) (who []*Session, changed <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.by[s] != nil {
		return nil, nil
	}
	for other, fl := range f.by {
		if !fl.stalled && other.gives(s) {
			who = append(who, other)
		}
	}
	switch {
	case len(who) > 0 || !cold:
	case f.planner != nil && f.planner != s && time.Now().Before(f.until):
		if f.planner.gives(s) {
			who = append(who, f.planner)
		}
	case !waited:
		f.planner, f.until = s, time.Now().Add(planningTime)
	}
	return who, f.changed
}

// progress adds up what sessions have done: it is another number when one has done
// anything. Downloads are written past the daemon, so it looks at how large they are.
func (f *flights) progress(who []*Session) uint64 {
	type download struct {
		s    *Session
		root string
	}
	var sum uint64
	var downloads []download
	f.mu.Lock()
	for _, s := range who {
		if fl := f.by[s]; fl != nil {
			sum += fl.events + s.laneProgress()
			for root := range fl.roots {
				downloads = append(downloads, download{s, root})
			}
		}
	}
	f.mu.Unlock()
	for _, d := range downloads {
		for _, name := range conda.Downloads(d.root) {
			if u, err := d.s.view.measure(name); err == nil {
				sum += uint64(u.Bytes)
			}
		}
	}
	return sum
}

// giveUp has nobody wait for these until they make progress.
func (f *flights) giveUp(who []*Session) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range who {
		if fl := f.by[s]; fl != nil {
			fl.stalled = true
		}
		if f.planner == s {
			f.planner = nil
		}
	}
}

// awaitOthers waits until nobody else brings packages. It reports whether it has waited.
func (s *Session) awaitOthers(cold bool, cancel <-chan struct{}) bool {
	f := s.e.flights
	deadline := time.After(flightPatience)
	tick := time.NewTicker(flightTick)
	defer tick.Stop()
	over := s.e.waiting().Done()
	waited, calm := false, false
	began := time.Now()
	defer func() {
		if waited {
			s.e.counts.wait(began)
		}
	}()
	var last uint64
	moved := time.Now()
	for {
		who, changed := f.others(s, waited, cold)
		if len(who) == 0 && (!waited || calm) {
			return waited
		}
		// Between two packages nobody may seem to be on the way.
		calm = len(who) == 0
		if p := f.progress(who); p != last || !waited {
			last, moved = p, time.Now()
		} else if time.Since(moved) > flightStall {
			f.giveUp(who)
		}
		waited = true
		select {
		case <-changed:
		case <-tick.C:
		case <-cancel:
			return true
		case <-over:
			return true
		case <-deadline:
			return true
		}
	}
}

// isCold reports whether the session has fetched a channel's index itself: one that
// many begin with at once, when the store hasn't seen the channel's packages.
func (s *Session) isCold(dir string) bool {
	list, err := s.view.nativeDir(dir)
	if err != nil {
		return false
	}
	for _, e := range list {
		p := dir + "/" + e.Name()
		if u := conda.Classify(p, false); e.Type().IsRegular() && u.Kind == conda.Repodata && u.Root == p {
			return true
		}
	}
	return false
}

// listing is called before a client lists a directory, and reports whether the view has
// gained anything. conda and mamba list theirs when they plan, after they have tried to
// write to urls.txt.
func (s *Session) listing(path string, cancel <-chan struct{}) bool {
	if path != "pkgs" || !s.view.has("pkgs", "urls.txt") || s.deferred() {
		return false
	}
	if !s.awaitOthers(s.isCold("pkgs/cache"), cancel) || s.start.BesideShelf {
		return false // beside the shelf, packages have come there
	}
	return s.gainAll("pkgs", SharedSpace)
}

// locking is called before a client makes a lock file. rattler's clients plan when they
// have locked theirs.
func (s *Session) locking(path string, cancel <-chan struct{}) {
	if path != rattlerDir+"/"+conda.RattlerCacheLock || s.deferred() {
		return
	}
	if s.awaitOthers(s.isCold("rattler/repodata"), cancel) {
		s.gainAll(rattlerDir, spaces(s.uid)...)
	}
}

// gainAll takes into the view what others have published in a directory since the
// session began.
func (s *Session) gainAll(dir string, spaces ...string) bool {
	head := s.e.store.PinHead() // what was gained must stay as long as the session
	gained := false
	var errs []error
	for _, space := range spaces {
		list, err := head.List(space + "/" + dir)
		errs = append(errs, err)
		dirs := make(map[string]bool)
		for i := range list {
			dirs[list[i].Name] = dirs[list[i].Name] || list[i].Kind == index.KindTree
		}
		for i := range list {
			// conda unpacks every archive that it finds without its directory.
			if dist, ok := conda.CutArchiveExt(list[i].Name); ok && !dirs[dist] {
				continue
			}
			ok, err := s.gain(dir, space, &list[i])
			errs = append(errs, err)
			gained = gained || ok
		}
	}
	if err := errors.Join(errs...); err != nil {
		s.e.log.Warn("a session does not see all that others have brought", "session", s.id, "error", err)
	}
	if !gained {
		head.Release()
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pins = append(s.pins, head)
	return true
}

// gain takes something published into the view, if that never showed anything there.
func (s *Session) gain(dir, space string, e *index.DirEntry) (bool, error) {
	path := dir + "/" + e.Name
	if u := conda.Classify(path, e.Kind == index.KindTree); u.Kind != conda.Package && u.Kind != conda.Archive && u.Kind != conda.RattlerPackage {
		return false, nil
	}
	_, had, err := s.snap.Get(space + "/" + path)
	if err != nil || had {
		return false, err
	}
	s.mu.Lock()
	had = s.items[path] != nil || s.removed[path]
	s.mu.Unlock()
	if had {
		return false, nil
	}
	ok, err := s.view.Gain(path, s.shelved(dir, e))
	if err != nil || !ok {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// For a later merge it is what the session started from.
	s.items[path] = &item{unit: conda.Classify(path, e.Kind == index.KindTree), path: path, public: form{entry: e.Entry}, settled: true}
	return true, nil
}

// holdGained protects what an earlier daemon's view had gained from others, whose
// snapshots are pinned no more.
func (s *Session) holdGained() {
	for path, e := range s.view.gainedEntries() {
		f := form{entry: e}
		if e.Kind == index.KindTree {
			t, err := sealedSource{pinned{s.snap, s.e.store}, s}.Tree(e.Digest)
			if err != nil {
				s.e.log.Warn("a package that a session has seen is lost", "session", s.id, "path", path, "error", err)
				// The power failed before it was durable. Nobody who has seen it lives, and the session
				// could not even be ended as long as its view shows it.
				if fault.Is(err, fault.Corrupt) {
					if err := s.view.loseGained(path); err != nil {
						s.e.log.Warn("it could not be forgotten", "session", s.id, "path", path, "error", err)
					}
				}
				continue
			}
			f.tree = t
		}
		s.keep(f)
	}
}
