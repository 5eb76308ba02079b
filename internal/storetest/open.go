// Package storetest lends stores to tests of what lies above package index.
package storetest

import (
	"log/slog"
	"path/filepath"
	"testing"

	"condafs/index"
)

// Open makes a store that is closed when the test ends.
func Open(t testing.TB) *index.Store {
	t.Helper()
	return OpenIn(t, filepath.Join(t.TempDir(), "store"))
}

// OpenIn is Open for the store of a directory.
func OpenIn(t testing.TB, dir string) *index.Store {
	t.Helper()
	s, err := index.Open(dir, index.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}
