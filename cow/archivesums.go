package cow

import (
	"os"

	"condafs/hashing"
)

// archiveSums is the hashing of an archive, done or under way.
type archiveSums struct {
	gen  uint64 // of the archive that was read
	done chan struct{}
	sums hashing.Sums // from done on, if err is nil
	err  error
}

// archiveExtra is what records and repodata know archives by.
const archiveExtra = hashing.SHA256 | hashing.MD5

// hashArchive has an archive hashed that has just come to be at a path. Its client unpacks it meanwhile, and waits for the
// package's check when it has: that has the sums by then.
func (s *Session) hashArchive(p string) {
	s.mu.Lock()
	waits := s.hashing[p]
	s.hashing[p] = true
	s.mu.Unlock()
	if waits {
		return
	}
	begun := func() {
		s.mu.Lock()
		delete(s.hashing, p)
		s.mu.Unlock()
	}
	began := s.e.begin(func() {
		err := s.acquire(s.e.working())
		begun()
		if err != nil {
			return
		}
		defer s.yield()
		f, err := s.readFile(p, archiveExtra)
		if err != nil {
			// Whoever needs the sums meets it again.
			s.e.log.Debug("an archive is not hashed yet", "session", s.id, "archive", p, "error", err)
			return
		}
		f.close()
	})
	if !began { // the engine is closing or paused, and what is not hashed now will be when it is needed
		begun()
	}
}

// sumsOf hashes an open archive, unless that has been done: since it was changed, or before it was sealed, for who rewrites a package's
// record. Only who has a turn (acquire) may call it: so nobody waits here for one who waits for a turn.
func (s *Session) sumsOf(p string, h *HarvestEntry, gen uint64, f *os.File) (hashing.Sums, error) {
	s.mu.Lock()
	a := s.archives[p]
	if a != nil && a.is(h, gen) {
		s.mu.Unlock()
		<-a.done
		return a.sums, a.err
	}
	a = &archiveSums{gen: gen, done: make(chan struct{})}
	s.archives[p] = a
	s.mu.Unlock()
	if a.sums, a.err = hashing.File(f, archiveExtra); a.err != nil {
		s.forgetSums(p, a)
	}
	close(a.done)
	return a.sums, a.err
}

// is reports whether it is the hashing of what is there now. One that is under way is never that of what is sealed.
func (a *archiveSums) is(h *HarvestEntry, gen uint64) bool {
	if !h.Lower {
		return a.gen == gen
	}
	select {
	case <-a.done:
		return a.err == nil && a.sums.Blake3 == h.Digest
	default:
		return false
	}
}

// forgetSums has an archive read anew by whoever needs its sums.
func (s *Session) forgetSums(p string, a *archiveSums) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.archives[p] == a {
		delete(s.archives, p)
	}
}
