package index

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"condafs/fault"
	"condafs/hashing"
)

func TestLifetime(t *testing.T) {
	now := time.Unix(1000, 0)
	tests := []struct {
		name string
		last lifetime
		boot string
		want int64
	}{
		{"closed", lifetime{Boot: "a", Since: 5, Clean: true}, "b", 0},
		{"killed", lifetime{Boot: "a", Since: 5}, "a", 5},
		{"the machine crashed", lifetime{Boot: "a", Since: 5}, "b", now.UnixNano()},
		{"no boot id", lifetime{Since: 5}, "", now.UnixNano()},
	}
	for _, tt := range tests {
		if got := tt.last.next(tt.boot, now); got != (lifetime{Boot: tt.boot, Since: tt.want}) {
			t.Errorf("%s: %+v", tt.name, got)
		}
	}
}

// After a crash of the machine, a blob that was not synced may hold anything.
func TestBlobsFromBeforeACrash(t *testing.T) {
	dir := memDir(t)
	s := openTest(t, dir)
	good, bad := hashing.Sum([]byte("good")), hashing.Sum([]byte("baad"))
	h := s.NewHold()
	for _, c := range []string{"good", "baad"} {
		if _, err := s.PutBlob(h, strings.NewReader(c), 0); err != nil {
			t.Fatal(err)
		}
	}
	h.Release()
	// The bytes of one never reached the disk, but its size and times did.
	err := errors.Join(os.Chmod(s.blobPath(bad), 0o600), os.WriteFile(s.blobPath(bad), make([]byte, 4), 0o600),
		os.Chmod(s.blobPath(bad), blobMode), os.Chtimes(s.blobPath(bad), blobTime, blobTime))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, dir)
	if s.trusted != 0 {
		t.Errorf("a closed store trusts only blobs from %d on", s.trusted)
	}
	s.trusted = time.Now().UnixNano() // as after a crash
	put := func(path string, d hashing.Digest) error {
		_, err := s.Update(t.Context(), CommitInfo{}, func(tx *Tx) error {
			return tx.Put(path, Entry{Kind: KindFile, Size: 4, Digest: d})
		})
		return err
	}
	if err := put("bad", bad); !fault.Is(err, fault.Corrupt) {
		t.Errorf("err = %v", err)
	}
	// It ends as soon as the file system's clock, which is coarse, has moved on.
	for suspect := true; suspect; {
		if err := put("good", good); err != nil {
			t.Fatal(err)
		}
		update(t, s, func(tx *Tx) error { return tx.Delete("good") })
		fi, err := os.Lstat(s.blobPath(good))
		if err != nil {
			t.Fatal(err)
		}
		suspect = s.suspect(fi)
	}
	// Who brings the content again mends it.
	putFile(t, s, "bad", "baad")
	if readAll(t, s, bad) != "baad" {
		t.Error("the damaged blob is still there")
	}
}
