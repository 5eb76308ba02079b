package index

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"condafs/fault"
)

// MendJournal writes the journal anew, and the manifests beside it, if there is such a
// problem among these. The database must be sound: it is what they are written from.
func (s *Store) MendJournal(ctx context.Context, problems []Problem) error {
	found := false
	for _, p := range problems {
		if p.Kind != Journal {
			continue
		}
		found = true
		if p.Digest.IsZero() {
			continue
		}
		// A damaged manifest makes room for the one that the database has.
		if _, err := s.readTreeFile(p.Digest); fault.Is(err, fault.Corrupt) {
			if err := os.Remove(s.treeFile(p.Digest)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fault.New("mend journal", p.File, fault.Other, err)
			}
		}
	}
	if !found {
		return nil
	}
	for _, name := range []string{treesName, journalName} {
		if err := os.Mkdir(filepath.Join(s.dir, name), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return fault.New("mend journal", s.dir, fault.Other, err)
		}
	}
	return s.checkpoint(ctx)
}
