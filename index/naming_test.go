package index

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"condafs/hashing"
)

// A blob is lent with another time, taken back and lent again while it is opened and
// verified: it is never taken for damaged.
func TestOpenedWhileItIsLent(t *testing.T) {
	s := openTest(t, t.TempDir()) // which has extended attributes, other than memory on older kernels
	content := strings.Repeat("shared ", 30_000)
	putFile(t, s, "u/f", content)
	d, size := hashing.Sum([]byte(content)), int64(len(content))
	out := filepath.Join(s.StagingDir(), "out")
	if how, err := s.PlaceBlob(d, size, out, 0o600, 1e9, Link); err != nil || how != Link {
		t.Skipf("nothing can be lent here: %v, %v", how, err)
	}
	if err := os.Remove(out); err != nil {
		t.Fatal(err)
	}
	lent := make(chan struct{})
	go func() {
		defer close(lent)
		for i := range 2000 {
			how, err := s.PlaceBlob(d, size, out, 0o600+uint32(i%2), int64(i+1)*1e9, Link)
			if err == nil && how != Link {
				err = fmt.Errorf("it is placed by %v", how)
			}
			if err = errors.Join(err, os.Remove(out)); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	var wg sync.WaitGroup
	for who := range 3 {
		wg.Go(func() {
			for !t.Failed() {
				select {
				case <-lent:
					return
				default:
				}
				if who == 0 {
					if v, err := s.Verify(t.Context(), VerifyOptions{Full: true}, nil); err != nil || len(v.Problems) > 0 {
						t.Errorf("%+v, %v", v.Problems, err)
					}
					continue
				}
				f, err := s.OpenBlobSize(d, size)
				if err == nil {
					err = f.Close()
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	<-lent
}

// Whoever finds that a blob's time has changed hashes it; several may at once.
func TestOpenedAtOnce(t *testing.T) {
	s := newStore(t)
	content := strings.Repeat("touched ", 30_000)
	putFile(t, s, "u/f", content)
	d := hashing.Sum([]byte(content))
	for i := range 50 {
		at := time.Unix(int64(i+1), 0)
		if err := os.Chtimes(s.blobPath(d), at, at); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				f, err := s.OpenBlob(d)
				if err == nil {
					err = f.Close()
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
}
