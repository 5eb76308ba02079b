package index

import "condafs/fault"

// Note returns what SetNote has kept under a name, or "".
func (s *Store) Note(name string) (string, error) {
	var text string
	_, err := s.getRecord(idKey(prefixNote, name), &text)
	return text, err
}

// SetNote keeps a short text with the store, durably: what the layers above want to
// know when it is opened again.
func (s *Store) SetNote(name, text string) error {
	o, err := recordOp(prefixNote, name, text)
	if err != nil {
		return fault.New("keep note", name, fault.Other, err)
	}
	return s.writeRecord(o)
}
