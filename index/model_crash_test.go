//go:build condafs_faults

package index

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"condafs/internal/failpoint"
	"condafs/internal/longrun"

	"pgregory.net/rapid"
)

// TestModelUnderFaults is TestModel with a daemon that dies in the middle of updates, and
// with collections of garbage that stand still while other things happen.
func TestModelUnderFaults(t *testing.T) {
	longrun.Checks(t, 12)
	rapid.Check(t, func(rt *rapid.T) {
		m := &model{t: t, dir: memDir(t), head: map[string]string{}}
		m.open(rt)
		defer func() {
			if err := errors.Join(m.s.Close(), os.RemoveAll(m.dir)); err != nil {
				rt.Fatal(err)
			}
		}()
		actions := m.actions()
		actions["die"] = m.die
		actions["gc beside"] = m.gcBeside
		actions["gc beside more"] = m.gcBeside
		rt.Repeat(actions)
	})
}

// die makes an update and goes on with what was on disk at one point of it.
func (m *model) die(t *rapid.T) {
	points := []failpoint.Point{
		failpoint.BlobReady, failpoint.BlobRenamed, failpoint.CommitBegin, failpoint.CommitSync, failpoint.CommitSynced,
		failpoint.CommitWritten, failpoint.CommitShown,
	}
	at := rapid.SampledFrom(points).Draw(t, "point")
	// What is in the journal is made by the next daemon, if nobody lost its content.
	published := at != failpoint.BlobReady && at != failpoint.BlobRenamed && at != failpoint.CommitBegin
	dir := m.dir + ".crashed"
	var once sync.Once
	copied := false
	disarm := failpoint.Set(m.dir, func(p failpoint.Point) error {
		if p == at {
			once.Do(func() {
				// Badger may replace a table at that moment.
				var out []byte
				err := errors.New("not tried")
				for try := 0; err != nil && try < 5; try++ {
					if err = os.RemoveAll(dir); err == nil {
						out, err = exec.Command("cp", "-a", "--sparse=always", m.dir, dir).CombinedOutput()
					}
				}
				if err != nil {
					m.t.Errorf("copy the store: %v, %s", err, strings.TrimSpace(string(out)))
				}
				copied = true
			})
		}
		return nil
	})
	before := m.head
	m.update(t)
	disarm()
	if !copied {
		return // there was nothing to write
	}
	if err := errors.Join(m.s.Close(), os.RemoveAll(m.dir), os.Rename(dir, m.dir)); err != nil {
		t.Fatal(err)
	}
	if !published {
		m.head = before
	}
	m.open(t)
	m.comeBack(t)
}

// gcBeside stops a collection at a point of it and lets other things happen.
func (m *model) gcBeside(t *rapid.T) {
	at := rapid.SampledFrom([]failpoint.Point{failpoint.GCMarked, failpoint.GCSwept, failpoint.GCForget}).Draw(t, "point")
	arrived, open := make(chan struct{}), make(chan struct{})
	var once sync.Once
	disarm := failpoint.Set(m.dir, func(p failpoint.Point) error {
		if p == at {
			once.Do(func() {
				close(arrived)
				<-open
			})
		}
		return nil
	})
	defer disarm()
	done := make(chan error, 1)
	go func() {
		_, err := m.s.GC(m.t.Context(), GCOptions{}, nil)
		done <- err
	}()
	select {
	case <-arrived:
	case err := <-done:
		t.Fatalf("the collection has ended before %s: %v", at, err)
	}
	func() {
		defer close(open) // also when a check fails
		for range rapid.IntRange(1, 4).Draw(t, "things") {
			m.one(t)
			m.check(t)
		}
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// one does one thing that can be done beside a collection.
func (m *model) one(t *rapid.T) {
	switch what := rapid.IntRange(0, 6).Draw(t, "thing"); {
	case what == 0:
		m.pin(t)
	case what == 1 && len(m.pins) > 0:
		m.release(t)
	case what == 2 && len(m.holds) <= 2:
		m.hold(t)
	case what == 3 && len(m.holds) > 0:
		m.useHeld(t)
	case what == 4 && len(m.holds) > 0:
		m.letGo(t)
	default:
		m.update(t)
	}
}
