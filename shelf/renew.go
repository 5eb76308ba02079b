package shelf

import "condafs/fault"

// Doubt notes that packages are about to be renewed: a daemon that dies before it calls Renew leaves that to the next one, to which
// nothing else would show that what lies on the shelf is what was damaged.
func (s *Shelf) Doubt(names map[string]bool) error {
	return s.each(names, func(name string, k shelved) error {
		if err := s.note(name, k.tree, true); err != nil {
			return fault.New("take from shelf", name, fault.Other, err)
		}
		return nil
	})
}

// Renew has packages leave the shelf, and come back: their content in the store was
// damaged and has been mended, and what lies on the shelf may be the damaged files.
// Who uses such a package goes on with what is there.
func (s *Shelf) Renew(names map[string]bool) error {
	if err := s.each(names, func(name string, k shelved) error { return s.dismissLocked(name, k.tree) }); err != nil {
		return err
	}
	if len(names) > 0 {
		s.Sync()
	}
	return nil
}

// each calls f for the packages of these names that are on the shelf and stay there. Nothing else changes the shelf meanwhile.
func (s *Shelf) each(names map[string]bool, f func(name string, k shelved) error) error {
	if len(names) == 0 {
		return nil
	}
	if err := s.load(); err != nil {
		return err
	}
	s.work.Lock() // who is about to publish one may have opened the damaged file
	defer s.work.Unlock()
	for name := range names {
		s.mu.Lock()
		k := s.known[name]
		s.mu.Unlock()
		if k == nil || k.leaving > 0 {
			continue
		}
		if err := f(name, *k); err != nil {
			return err
		}
	}
	return nil
}
