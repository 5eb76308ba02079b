package index

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"condafs/fault"
	"condafs/hashing"

	"golang.org/x/sys/unix"
)

func stage(t testing.TB, s *Store, name, content string) string {
	t.Helper()
	path := filepath.Join(s.StagingDir(), name)
	write(t, path, content)
	return path
}

func TestAdoptFile(t *testing.T) {
	s := newStore(t)
	h := s.NewHold()
	defer h.Release()
	d := hashing.Sum([]byte("content"))
	blob := s.blobPath(d)
	// Each case starts from what the one before left.
	tests := []struct {
		name  string
		setup func(path string) error
		moved bool
		blobs int64
	}{
		{"the first is moved", nil, true, 1},
		{"a duplicate is dropped", nil, false, 1},
		{"a blob that somebody touched is hashed again", func(string) error {
			return os.Chtimes(blob, time.Now(), time.Now())
		}, false, 1},
		{"a truncated blob is replaced", func(string) error { return os.Truncate(blob, 3) }, true, 1},
		{"a flipped blob is replaced", func(string) error {
			return errors.Join(os.Chmod(blob, 0o600), os.WriteFile(blob, []byte("c0ntent"), 0o600))
		}, true, 1},
		{"a file with other names is copied", func(path string) error {
			return errors.Join(os.Remove(blob), os.Link(path, path+".other"))
		}, true, 2}, // the counter did not see the removal
		{"a missing shard is made", func(string) error { return os.RemoveAll(filepath.Dir(blob)) }, true, 3},
	}
	for _, tt := range tests {
		path := stage(t, s, "f", "content")
		if tt.setup != nil {
			if err := tt.setup(path); err != nil {
				t.Fatal(err)
			}
		}
		moved, err := s.AdoptFile(h, unix.AT_FDCWD, path, d)
		if err != nil || moved != tt.moved {
			t.Errorf("%s: moved %v, %v", tt.name, moved, err)
			continue
		}
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: the file is still there: %v", tt.name, err)
		}
		fi, err := os.Lstat(blob)
		if err != nil || fi.Mode() != blobMode || !fi.ModTime().Equal(blobTime) || readAll(t, s, d) != "content" {
			t.Errorf("%s: the blob is %v, %v", tt.name, fi, err)
		}
		if got := s.blobs.Load(); got != tt.blobs {
			t.Errorf("%s: %d blobs", tt.name, got)
		}
	}
	if staged, err := os.ReadDir(s.StagingDir()); err != nil || len(staged) != 1 || staged[0].Name() != "f.other" {
		t.Errorf("staging holds %v, %v", staged, err)
	}
	// Writing to the other name must not reach the blob.
	if err := os.WriteFile(filepath.Join(s.StagingDir(), "f.other"), []byte("changed"), 0o600); err != nil {
		t.Fatal(err)
	}
	if readAll(t, s, d) != "content" {
		t.Error("another name of the file reaches the blob")
	}
}

func TestAdoptRefuses(t *testing.T) {
	s := newStore(t)
	h := s.NewHold()
	defer h.Release()
	link := filepath.Join(s.StagingDir(), "link")
	if err := os.Symlink("/etc/passwd", link); err != nil {
		t.Fatal(err)
	}
	for path, kind := range map[string]fault.Kind{
		filepath.Join(s.StagingDir(), "none"): fault.NotFound,
		s.StagingDir():                        fault.Usage,
		link:                                  fault.Usage,
	} {
		if _, err := s.AdoptFile(h, unix.AT_FDCWD, path, hashing.Sum(nil)); !fault.Is(err, kind) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestPutBlob(t *testing.T) {
	s := newStore(t)
	h := s.NewHold()
	defer h.Release()
	boom := errors.New("boom")
	if _, err := s.PutBlob(h, io.MultiReader(strings.NewReader("half"), iotest.ErrReader(boom)), 0); !errors.Is(err, boom) {
		t.Errorf("err = %v", err)
	}
	if staged, err := os.ReadDir(s.StagingDir()); err != nil || len(staged) != 0 {
		t.Errorf("staging holds %v, %v", staged, err)
	}
	sums, err := s.PutBlob(h, strings.NewReader("whole"), hashing.SHA256)
	if err != nil || sums.Has != hashing.SHA256 || readAll(t, s, sums.Blake3) != "whole" {
		t.Errorf("%+v, %v", sums, err)
	}
}

// Many put the same contents at once: one blob of each, and none lost.
func TestPutBlobConcurrently(t *testing.T) {
	s := newStore(t)
	h := s.NewHold()
	defer h.Release()
	contents := []string{"a", "b", "c"}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for _, c := range contents {
				if _, err := s.PutBlob(h, strings.NewReader(c), 0); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, c := range contents {
		if readAll(t, s, hashing.Sum([]byte(c))) != c {
			t.Errorf("%q is not there", c)
		}
	}
	if got := s.blobs.Load(); got != int64(len(contents)) {
		t.Errorf("%d blobs", got)
	}
}

func TestOpenBlob(t *testing.T) {
	s := newStore(t)
	putFile(t, s, "f", "content")
	d := hashing.Sum([]byte("content"))
	if f, err := s.OpenBlobSize(d, 7); err != nil {
		t.Error(err)
	} else if err := f.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.OpenBlobSize(d, 8); !fault.Is(err, fault.Corrupt) {
		t.Errorf("a short blob: %v", err)
	}
	_, err := s.OpenBlob(hashing.Sum([]byte("none")))
	if !fault.Is(err, fault.Corrupt) || !strings.Contains(err.Error(), "verify") {
		t.Errorf("a missing blob: %v", err)
	}
}

// What an opening shows of a blob's damage is told, and never served.
func TestOpenDamagedBlob(t *testing.T) {
	const content = "content"
	d := hashing.Sum([]byte(content))
	write := func(by string) func(path string) error {
		return func(path string) error {
			return errors.Join(os.Chmod(path, 0o600), os.WriteFile(path, []byte(by), 0o600))
		}
	}
	tests := []struct {
		name   string
		damage func(path string) error
		served bool
	}{
		{"none", func(string) error { return nil }, true},
		{"touched", func(path string) error { return os.Chtimes(path, time.Now(), time.Now()) }, true},
		{"written with the same", write(content), true},
		{"flipped", write("cOntent"), false},
		{"shorter", write("conten"), false},
		{"shorter, its time set back", func(path string) error {
			return errors.Join(write("conten")(path), os.Chtimes(path, blobTime, blobTime))
		}, false},
		{"longer", write("contents"), false},
		{"missing", os.Remove, false},
		{"a directory", func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) }, false},
		{"a link", func(path string) error { return errors.Join(os.Remove(path), os.Symlink("/dev/null", path)) }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var told []hashing.Digest
			s := newStore(t)
			s.OnDamaged(func(d hashing.Digest) { told = append(told, d) })
			putFile(t, s, "f", content)
			if err := tt.damage(s.blobPath(d)); err != nil {
				t.Fatal(err)
			}
			f, err := s.OpenBlobSize(d, int64(len(content)))
			if tt.served {
				if err != nil {
					t.Fatal(err)
				}
				b, err := io.ReadAll(f)
				if err := errors.Join(err, f.Close()); err != nil || string(b) != content || len(told) != 0 {
					t.Errorf("%q, %v, told %v", b, err, told)
				}
				if fi, err := os.Stat(s.blobPath(d)); err != nil || !fi.ModTime().Equal(blobTime) {
					t.Errorf("it would be hashed again: %v, %v", fi, err)
				}
				return
			}
			if !fault.Is(err, fault.Corrupt) || len(told) != 1 || told[0] != d {
				t.Errorf("%v, told %v", err, told)
			}
		})
	}
}

func TestPutChecksSizes(t *testing.T) {
	s := newStore(t)
	putFile(t, s, "f", "content")
	tests := map[string]func(tx *Tx) error{
		"file": func(tx *Tx) error {
			return tx.Put("g", Entry{Kind: KindFile, Size: 8, Digest: hashing.Sum([]byte("content"))})
		},
		"tree": func(tx *Tx) error {
			e := fileEntry("content")
			e.Size++
			_, err := tx.PutTree(buildTree(t, map[string]TreeEntry{"x": e}))
			return err
		},
		"tree with a missing blob": func(tx *Tx) error {
			_, err := tx.PutTree(buildTree(t, map[string]TreeEntry{"x": fileEntry("none")}))
			return err
		},
	}
	for name, fn := range tests {
		if _, err := s.Update(t.Context(), CommitInfo{}, fn); !fault.Is(err, fault.Corrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
