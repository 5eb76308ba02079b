package shelf

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"condafs/conda"
	"condafs/fault"
	"condafs/hashing"
	"condafs/internal/failpoint"
)

// dismiss is the first step of a package's leaving: without its record, no client that
// begins from now on takes it. Those that know it already go on.
func (s *Shelf) dismiss(name string) error {
	s.work.Lock()
	defer s.work.Unlock()
	s.mu.Lock()
	d := s.known[name].tree
	s.mu.Unlock()
	return s.dismissLocked(name, d)
}

// dismissLocked is dismiss for who holds s.work.
func (s *Shelf) dismissLocked(name string, d hashing.Digest) error {
	err := s.note(name, d, true)
	if err == nil {
		err = s.takeRecord(name)
	}
	if err != nil {
		return fault.New("take from shelf", name, fault.Other, err)
	}
	failpoint.Hit(failpoint.ShelfDismissed, s.store.Dir())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gen++
	s.known[name].leaving = s.gen
	return nil
}

func (s *Shelf) takeRecord(name string) error {
	record := filepath.Join(s.Path(), name, filepath.FromSlash(conda.CompletionMarker))
	err := writable(filepath.Dir(record), func() error { return os.Rename(record, s.fresh(graveName)) })
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// leave is the second step, for packages whose last possible user has ended. It reports
// whether there were any.
func (s *Shelf) leave() (bool, error) {
	s.work.Lock()
	defer s.work.Unlock()
	s.mu.Lock()
	oldest := s.gen + 1
	for t := range s.tickets {
		oldest = min(oldest, t.gen)
	}
	var gone []string
	for _, name := range slices.Sorted(maps.Keys(s.known)) {
		if k := s.known[name]; k.leaving > 0 && k.leaving <= oldest {
			gone = append(gone, name)
		}
	}
	s.mu.Unlock()
	for _, name := range gone {
		if err := errors.Join(s.bury(name), s.forget(name)); err != nil {
			return false, err
		}
		s.mu.Lock()
		delete(s.known, name)
		s.mu.Unlock()
	}
	return len(gone) > 0, s.empty(graveName)
}

// bury takes something off the shelf by one rename.
func (s *Shelf) bury(name string) error {
	from, to := filepath.Join(s.Path(), name), s.fresh(graveName)
	// A directory that is moved gets another "..", so it must be writable itself.
	if fi, err := os.Lstat(from); err == nil && fi.IsDir() {
		if err := os.Chmod(from, 0o755); err != nil {
			return fault.New("take from shelf", name, fault.Other, err)
		}
	}
	if err := writable(s.Path(), func() error { return os.Rename(from, to) }); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.New("take from shelf", name, fault.Other, err)
	}
	failpoint.Hit(failpoint.ShelfBuried, s.store.Dir())
	return nil
}

// forget removes the note of which tree a package is.
func (s *Shelf) forget(name string) error {
	if err := os.Remove(filepath.Join(s.dir, treesName, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.New("take from shelf", name, fault.Other, err)
	}
	return nil
}

// writable calls f while a directory of the shelf can be written to.
func writable(dir string, f func() error) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	return errors.Join(f(), os.Chmod(dir, dirMode))
}
