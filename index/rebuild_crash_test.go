//go:build condafs_faults

package index

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"condafs/fault"
	"condafs/internal/failpoint"
)

// A daemon that dies while it writes a checkpoint leaves a journal that is as good as
// before.
func TestKilledInCheckpoint(t *testing.T) {
	for _, at := range []failpoint.Point{failpoint.CheckpointBegun, failpoint.CheckpointWritten, failpoint.CheckpointRenamed} {
		t.Run(string(at), func(t *testing.T) {
			dir := memDir(t)
			s := openTest(t, dir)
			fillRebuild(t, s, 0, 6)
			want := describe(s)
			var killed string
			var once sync.Once
			disarm := failpoint.Set(dir, func(p failpoint.Point) error {
				if p == at {
					once.Do(func() { killed = copyStore(t, dir) })
				}
				return nil
			})
			err := s.checkpoint(t.Context())
			disarm()
			if err != nil || killed == "" {
				t.Fatal(err)
			}
			for _, d := range []string{killed, copyStore(t, killed)} {
				if d != killed {
					if err := os.RemoveAll(filepath.Join(d, dbName)); err != nil {
						t.Fatal(err)
					}
					if r := rebuild(t, d); !r.Exact || len(r.Damage) > 0 {
						t.Errorf("%+v", r)
					}
				}
				k := openTest(t, d)
				if got := describe(k); got != want {
					t.Errorf("got\n%s\nwant\n%s", got, want)
				}
				if v, err := k.Verify(t.Context(), VerifyOptions{Full: true}, nil); err != nil || len(v.Problems) > 0 {
					t.Errorf("%+v, %v", v, err)
				}
			}
		})
	}
}

// A rebuild that dies at any point is begun again; meanwhile the store opens as it was,
// or says what to do.
func TestKilledInRebuild(t *testing.T) {
	for _, at := range []failpoint.Point{failpoint.RebuildBegun, failpoint.RebuildWritten, failpoint.RebuildAside, failpoint.RebuildPlaced} {
		for _, lost := range []bool{true, false} {
			t.Run(string(at), func(t *testing.T) {
				dir := memDir(t)
				s := openTest(t, dir)
				fillRebuild(t, s, 0, 6)
				want := describe(s)
				err := s.Close()
				if lost {
					err = errors.Join(err, os.RemoveAll(filepath.Join(dir, dbName)))
				}
				if err != nil {
					t.Fatal(err)
				}
				var killed string
				disarm := failpoint.Set(dir, func(p failpoint.Point) error {
					if p == at {
						killed = copyStore(t, dir)
						return syscall.EIO
					}
					return nil
				})
				_, err = Rebuild(t.Context(), dir, quiet, nil)
				disarm()
				if killed == "" || at != failpoint.RebuildBegun && !fault.Is(err, fault.IO) {
					t.Fatal(err)
				}
				k, err := Open(killed, Options{Logger: quiet})
				if err == nil {
					if got := describe(k); got != want {
						t.Errorf("got\n%s\nwant\n%s", got, want)
					}
					if err := k.Close(); err != nil {
						t.Error(err)
					}
				} else if !strings.Contains(err.Error(), "condafs rebuild") {
					t.Errorf("err = %v", err)
				}
				if r := rebuild(t, killed); !r.Exact {
					t.Errorf("%+v", r)
				}
				if got := describe(openTest(t, killed)); got != want {
					t.Errorf("after the second try\n%s\nwant\n%s", got, want)
				}
			})
		}
	}
}
