package index

import (
	"testing"

	"condafs/fault"
)

// Who mounts a store again right after its mount was taken away does not have to know that its daemon is not through yet.
func TestOpenWaitsForWhoIsEnding(t *testing.T) {
	dir := memDir(t)
	s, err := Open(dir, Options{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.MarkEnding(); err != nil {
		t.Fatal(err)
	}
	opened := make(chan error)
	go func() {
		next, err := Open(dir, Options{Logger: quiet})
		if err == nil {
			err = next.Close()
		}
		opened <- err
	}()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-opened; err != nil {
		t.Error(err)
	}
	// The mark does not outlast who made it.
	if s, err = Open(dir, Options{Logger: quiet}); err != nil {
		t.Fatal(err)
	}
	if next, err := Open(dir, Options{Logger: quiet}); !fault.Is(err, fault.Busy) {
		t.Errorf("a store that is in use was opened: %v", err)
		if err == nil {
			t.Error(next.Close())
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
