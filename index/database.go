package index

import (
	"os"
	"path/filepath"
	"syscall"

	"condafs/fault"
)

// Database tells how large the database is, and how its caches do.
type Database struct {
	Tables     int   // of all levels
	StaleBytes int64 // what a compaction would drop of them, as far as it is known
	FileBytes  int64 // what all of its files take on the disk
	TreesAsked int64 // manifests of packages that were asked for since the store was opened
	TreeHits   int64 // of these, those that were decoded already
}

// Database looks at the database's figures, and reads none of its content.
func (s *Store) Database() (Database, error) {
	const op = "look at the database of"
	var d Database
	s.life.RLock()
	defer s.life.RUnlock()
	if s.closed {
		return d, dbError(op, s.dir, errClosed)
	}
	for _, l := range s.db.Levels() {
		d.Tables += l.NumTables
		d.StaleBytes += l.StaleDatSize
	}
	// Badger knows its own size only if it is told to count it once a minute.
	entries, err := os.ReadDir(filepath.Join(s.dir, dbName))
	if err != nil {
		return d, fault.New(op, s.dir, fault.Other, err)
	}
	for _, e := range entries {
		fi, err := e.Info()
		if err != nil {
			continue // a table that was merged away meanwhile
		}
		if st, ok := fi.Sys().(*syscall.Stat_t); ok {
			d.FileBytes += st.Blocks * 512
		}
	}
	d.TreesAsked, d.TreeHits = s.trees.figures()
	return d, nil
}
