//go:build condafs_faults

package repair

import (
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"condafs/index"
	"condafs/internal/failpoint"
	"condafs/internal/storetest"
)

// A daemon that dies in a repair leaves a store that the next repair makes whole: what
// was put aside stays aside, and nothing damaged is in head.
func TestKilledInRepair(t *testing.T) {
	for _, at := range []failpoint.Point{failpoint.AsideRecorded, failpoint.AsideMoved, failpoint.RepairBrought, failpoint.RepairRemoved} {
		t.Run(string(at), func(t *testing.T) {
			s := storetest.Open(t)
			fill(t, s, "c", "a", "b", "c")
			before := mustContents(t, s)
			if err := errors.Join(flip(blobFile(s, strings.Repeat("a", 5000)), 1), flip(blobFile(s, strings.Repeat("c", 5000)), 1)); err != nil {
				t.Fatal(err)
			}
			killed := filepath.Join(t.TempDir(), "killed")
			disarm := failpoint.Set(s.Dir(), func(p failpoint.Point) error {
				if _, err := os.Stat(killed); p == at && err != nil {
					if out, err := exec.Command("cp", "-a", s.Dir(), killed).CombinedOutput(); err != nil {
						t.Errorf("cp: %s", out)
					}
				}
				return nil
			})
			repairOnly(t, s)
			disarm()
			k, err := index.Open(killed, index.Options{Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := k.Close(); err != nil {
					t.Error(err)
				}
			}()
			repairAll(t, k, Options{})
			after := mustContents(t, k)
			for path, content := range before {
				got, there := after[path]
				if gone := strings.Contains(path, "/c-1.0-0/"); there == gone || there && got != content {
					t.Errorf("%s: there %v", path, there)
				}
			}
		})
	}
}

func repairOnly(t *testing.T, s *index.Store) *Report {
	t.Helper()
	v, err := s.Verify(t.Context(), index.VerifyOptions{Full: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Run(t.Context(), s, v.Problems, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}
