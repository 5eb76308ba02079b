package cow

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// unpacking decides whether a client's process is to unpack a package in a lane. The lane lies in the store, which is its owner's
// alone, and the process must find it at the daemon's path.
func (s *Session) unpacking(path string, pid int) bool {
	if s.uid != s.e.owner || s.e.o.MountPoint == "" || !s.e.leases() {
		return false
	}
	dir := s.view.lanes.dir
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		s.e.log.Warn("a client unpacks through the mount, which takes longer", "session", s.id, "package", path, "error", err)
		return false
	}
	return reaches(pid, dir) && writable(pid, dir)
}

// writable reports whether a client has a directory mounted so that it can write there: services have read-only mounts of their own.
func writable(pid int, dir string) bool {
	var st unix.Statfs_t
	err := unix.Statfs(fmt.Sprintf("/proc/%d/root%s", pid, dir), &st)
	return err == nil && st.Flags&unix.ST_RDONLY == 0
}

// canLease reports whether the store's file system tells who has a file open for writing.
func (e *Engine) canLease() bool {
	f, err := os.CreateTemp(e.store.StagingDir(), "lease-*")
	if err != nil {
		return false
	}
	defer os.Remove(f.Name()) //nolint:errcheck // the directory is emptied at the next start
	written := unwritten(int(f.Fd())) != nil
	r, err := os.Open(f.Name())
	if err := errors.Join(err, f.Close()); err != nil {
		return false
	}
	return errors.Join(unwritten(int(r.Fd())), r.Close()) == nil && written
}

// defaultLaneTick is how soon a lane is looked at for whether its package is complete, and then less and less often, down to maxLaneTicks
// of it, while nothing happens. Beside that, clients who go through its name have it looked at.
const (
	defaultLaneTick = 10 * time.Millisecond
	maxLaneTicks    = 16
)

// watchLanes has the session's lanes looked at until there are none. It is called when there is a new one. inotify would
// tell the same, from a number of descriptors and watches that is bounded for all of a user's programs.
func (s *Session) watchLanes() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.laneWait = s.e.o.laneTick
	s.lookSoon()
}

// lookSoon has lanes looked at, unless that is to happen already. s.mu is held.
func (s *Session) lookSoon() {
	if !s.laneWatch {
		s.laneWatch = true
		time.AfterFunc(s.laneWait, s.lookAtLanes)
	}
}

func (s *Session) lookAtLanes() {
	s.mu.Lock()
	s.laneWatch = false // before they are looked at: none that is made meanwhile is overlooked
	s.mu.Unlock()
	if s.e.begin(func() {
		s.takeLanes(false) // what went wrong is told, and tried again
		if err := s.view.sweepLanes(); err != nil {
			s.e.log.Debug("what a client has removed could not be removed yet", "session", s.id, "error", err)
		}
		if !s.view.hasLanes() {
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.laneWait = min(2*s.laneWait, maxLaneTicks*s.e.o.laneTick)
		s.lookSoon()
	}) {
		return
	}
	if s.e.goesOn() { // it was paused in between, and has overlooked them
		s.watchLanes()
	}
}

// takeLanes takes over the lanes that are complete, or all as they are. It returns what went wrong.
func (s *Session) takeLanes(all bool) []error {
	var errs []error
	for _, l := range s.view.liveLanes() {
		if err := s.view.takeLane(l, all); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// recoverLanes takes up the lanes of an earlier daemon. Those that it was taking over are taken over now, before anybody sees them.
func (s *Session) recoverLanes() error {
	if !s.view.lanes.exist {
		return nil
	}
	if _, err := s.view.Changes(); err != nil { // finds them
		return err
	}
	s.takeLanes(false) // what went wrong is told, and tried again
	if err := s.view.dropStrayLanes(); err != nil {
		return err
	}
	if s.view.hasLanes() {
		s.watchLanes()
	}
	return nil
}

// laneProgress is another number when a client has unpacked more. Looking costs, so it is not always up to date.
func (s *Session) laneProgress() uint64 {
	if !s.view.hasLanes() {
		return 0
	}
	s.mu.Lock()
	fresh := time.Since(s.laneSeen) < flightStall/3
	sum := s.laneSum
	if !fresh {
		s.laneSeen = time.Now()
	}
	s.mu.Unlock()
	if fresh {
		return sum
	}
	u := s.view.laneUsage()
	sum = uint64(u.Bytes) + uint64(u.Files)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.laneSum = sum
	return sum
}
