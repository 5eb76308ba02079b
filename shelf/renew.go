package shelf

// Renew has packages leave the shelf, and come back: their content in the store was
// damaged and has been mended, and what lies on the shelf may be the damaged files.
// Who uses such a package goes on with what is there.
func (s *Shelf) Renew(names map[string]bool) error {
	if len(names) == 0 {
		return nil
	}
	if err := s.load(); err != nil {
		return err
	}
	for name := range names {
		s.work.Lock() // who is about to publish it may have opened the damaged file
		s.mu.Lock()
		k := s.known[name]
		there := k != nil && k.leaving == 0
		s.mu.Unlock()
		s.work.Unlock()
		if !there {
			continue
		}
		if err := s.dismiss(name); err != nil {
			return err
		}
	}
	s.Sync()
	return nil
}
