//go:build condafs_faults

package index

import (
	"errors"
	"os"
	"strings"
	"testing"

	"condafs/hashing"
	"condafs/internal/failpoint"

	"golang.org/x/sys/unix"
)

// Between the look at a damaged blob and its move somebody puts a sound one in its place,
// or another repair moves it first.
func TestSetAsideLeavesWhatWasMended(t *testing.T) {
	tests := []struct {
		name      string
		meanwhile func(s *Store, d hashing.Digest) error
		there     bool // afterwards
	}{
		{"mended", func(s *Store, d hashing.Digest) error {
			h := s.NewHold()
			defer h.Release()
			name := stageFile(s, "content")
			return errors.Join(os.Remove(s.blobPath(d)), func() error { _, err := s.AdoptFile(h, unix.AT_FDCWD, name, d); return err }())
		}, true},
		{"moved", func(s *Store, d hashing.Digest) error { return os.Remove(s.blobPath(d)) }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newStore(t)
			putFile(t, s, "u/f", "content")
			d := hashing.Sum([]byte("content"))
			if err := damageBlob(s, d, 3); err != nil {
				t.Fatal(err)
			}
			disarm := failpoint.Set(s.dir, func(p failpoint.Point) error {
				if p == failpoint.AsideRecorded {
					if err := tt.meanwhile(s, d); err != nil {
						t.Error(err)
					}
				}
				return nil
			})
			defer disarm()
			id, err := s.SetAside(Problem{Kind: Content, Digest: d, File: blobName(d), Detail: "damaged"})
			if err != nil || id != "" {
				t.Errorf("%q, %v", id, err)
			}
			if s.HasBlob(d) != tt.there || tt.there && readAll(t, s, d) != "content" {
				t.Errorf("there: %v", s.HasBlob(d))
			}
			if q, err := s.Quarantined(); err != nil || len(q) > 0 {
				t.Errorf("in quarantine: %+v, %v", q, err)
			}
		})
	}
}

func stageFile(s *Store, content string) string {
	name := s.StagingDir() + "/brought"
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		panic(err) // the test's own directory
	}
	return name
}

// A commit must not believe that a blob is there that was put aside after somebody had
// seen it: not when it brings the content again and meets the damaged one either.
func TestCommitSeesWhatWasPutAside(t *testing.T) {
	s := newStore(t)
	putFile(t, s, "u/f", "content")
	d := hashing.Sum([]byte("content"))
	if err := damageBlob(s, d, 3); err != nil {
		t.Fatal(err)
	}
	h := s.NewHold()
	defer h.Release()
	aside := func() {
		if id, err := s.SetAside(Problem{Kind: Content, Digest: d, File: blobName(d), Detail: "damaged"}); err != nil || id == "" {
			t.Errorf("%q, %v", id, err)
		}
	}
	done := make(chan struct{})
	disarm := failpoint.Set(s.dir, func(p failpoint.Point) error {
		if p == failpoint.BlobDuplicate {
			aside()
			close(done)
		}
		return nil
	})
	_, err := s.PutBlob(h, strings.NewReader("content"), 0)
	disarm()
	if err != nil {
		t.Fatal(err)
	}
	<-done
	_, err = s.Update(t.Context(), CommitInfo{}, func(tx *Tx) error { return tx.Put("u/g", Entry{Kind: KindFile, Size: 7, Digest: d}) })
	if err == nil {
		t.Error("head refers to what is not there")
	}
	// Who tries again brings it.
	if _, err := s.PutBlob(h, strings.NewReader("content"), 0); err != nil {
		t.Fatal(err)
	}
	update(t, s, func(tx *Tx) error { return tx.Put("u/g", Entry{Kind: KindFile, Size: 7, Digest: d}) })
	if readAll(t, s, d) != "content" {
		t.Error("wrong bytes")
	}
}
