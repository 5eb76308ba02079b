//go:build condafs_faults

package repair

import (
	"strings"
	"sync"
	"testing"
	"time"

	"condafs/hashing"
	"condafs/index"
	"condafs/internal/failpoint"
	"condafs/internal/storetest"
)

// What a client brings again while a repair is under way stays: by itself, and when the
// package has been published again.
func TestBroughtDuringARepair(t *testing.T) {
	for _, publish := range []bool{false, true} {
		s := storetest.Open(t)
		fill(t, s, "c", "a", "b", "c")
		before := mustContents(t, s)
		data := strings.Repeat("c", 5000)
		if err := flip(blobFile(s, data), 9); err != nil {
			t.Fatal(err)
		}
		at, entry := entryOf(t, s, "c-1.0-0")
		disarm := failpoint.Set(s.Dir(), func(p failpoint.Point) error {
			if p != failpoint.RepairBrought {
				return nil
			}
			h := s.NewHold()
			defer h.Release()
			if _, err := s.PutBlob(h, strings.NewReader(data), 0); err != nil {
				t.Error(err)
			}
			if publish {
				for _, fn := range []func(tx *index.Tx) error{
					func(tx *index.Tx) error { return tx.Delete(at) },
					func(tx *index.Tx) error { return tx.Put(at, entry) },
				} {
					if _, err := s.Update(t.Context(), index.CommitInfo{}, fn); err != nil {
						t.Error(err)
					}
				}
			}
			return nil
		})
		r := repairAll(t, s, Options{})
		disarm()
		if len(r.Removed) > 0 || len(r.Problems) != 1 || r.Problems[0].Fixed != broughtSince || r.Problems[0].Quarantined == "" {
			t.Errorf("%+v", r)
		}
		if after := mustContents(t, s); len(after) != len(before) {
			t.Errorf("%d files, not %d", len(after), len(before))
		}
	}
}

func entryOf(t *testing.T, s *index.Store, dist string) (path string, e index.Entry) {
	t.Helper()
	head := s.PinHead()
	defer head.Release()
	for _, space := range []string{"shared", "u0"} {
		path = space + "/pkgs/" + dist
		if e, ok, err := head.Get(path); err != nil {
			t.Fatal(err)
		} else if ok {
			return path, e
		}
	}
	t.Fatalf("%s is not there", dist)
	return "", e
}

// A commit that was under way when a blob was put aside, and had seen it, is found.
func TestCommitDuringARepair(t *testing.T) {
	s := storetest.Open(t)
	fill(t, s, "c", "c")
	data := strings.Repeat("c", 5000)
	if err := flip(blobFile(s, data), 9); err != nil {
		t.Fatal(err)
	}
	d := hashing.Sum([]byte(data))
	at, entry := entryOf(t, s, "c-1.0-0")
	old := s.PinHead()
	defer old.Release()
	if _, err := s.Update(t.Context(), index.CommitInfo{}, func(tx *index.Tx) error { return tx.Delete(at) }); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var armed sync.Mutex
	prepared, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	waiting := false
	disarm := failpoint.Set(s.Dir(), func(p failpoint.Point) error {
		armed.Lock()
		is := waiting
		armed.Unlock()
		switch {
		case p == failpoint.AsideRecorded:
			armed.Lock()
			waiting = true
			armed.Unlock()
			wg.Go(func() {
				_, err := s.Update(t.Context(), index.CommitInfo{}, func(tx *index.Tx) error { return tx.Put("u0/pkgs/other-1.0-0", entry) })
				if err != nil {
					t.Error(err)
				}
			})
			<-prepared
		case p == failpoint.CommitSync && is:
			once.Do(func() {
				close(prepared)
				<-release
			})
		case p == failpoint.RepairBrought:
			time.AfterFunc(200*time.Millisecond, func() { close(release) })
		}
		return nil
	})
	r, err := Run(t.Context(), s, []index.Problem{{Kind: index.Content, Digest: d, File: "objects/" + d.String()[:2] + "/" + d.String()[2:], Detail: "damaged"}}, Options{})
	wg.Wait()
	disarm()
	if err != nil || len(r.Removed) != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	mustContents(t, s)
	if v, err := s.Verify(t.Context(), index.VerifyOptions{Full: true}, nil); err != nil || len(v.Problems) > 0 {
		t.Errorf("%+v, %v", v.Problems, err)
	}
}
