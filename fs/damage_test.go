package fs

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"condafs/hashing"
	"condafs/index"
)

const (
	soundContent = "sound sound sound"
	badContent   = "sound sOund sound"
)

// blobFile is where a store keeps a content.
func (m *testMount) blobFile(content string) string {
	hex := hashing.Sum([]byte(content)).String()
	return filepath.Join(m.store.Dir(), "objects", hex[:2], hex[2:])
}

// spoil overwrites a blob, leaving a trace or none.
func (m *testMount) spoil(t *testing.T, trace bool) {
	t.Helper()
	path := m.blobFile(soundContent)
	fi, err := os.Stat(path)
	must(t, err)
	must(t, os.Chmod(path, 0o600))
	must(t, os.WriteFile(path, []byte(badContent), 0o600))
	if !trace {
		must(t, os.Chtimes(path, time.Time{}, fi.ModTime()))
	}
}

// mend does what a repair does: the damaged file goes, and the content comes back.
func (m *testMount) mend(t *testing.T) {
	t.Helper()
	must(t, os.Rename(m.blobFile(soundContent), filepath.Join(m.store.StagingDir(), "damaged")))
	hold := m.store.NewHold()
	defer hold.Release()
	_, err := m.store.PutBlob(hold, strings.NewReader(soundContent), 0)
	must(t, err)
}

func seedSound(t *testing.T, s *index.Store) {
	seedPackage(t, s, "one-1.0-0", map[string]string{"lib/a": soundContent, "lib/b": "b"})
}

// What shows when a blob is opened is EIO and a line in the log; nothing else of the
// package suffers, and the same session reads it again once it is mended.
func TestDamagedBlobIsNotServed(t *testing.T) {
	bothWays(t, seedSound, func(t *testing.T, m *testMount) {
		a := filepath.Join(m.root, "pkgs", "one-1.0-0", "lib", "a")
		wantContent(t, a, soundContent)
		m.spoil(t, true)
		for range 2 {
			_, err := os.ReadFile(a)
			wantErrno(t, err, unix.EIO)
		}
		if log := m.log.String(); !strings.Contains(log, "request failed") || !strings.Contains(log, hashing.Sum([]byte(soundContent)).String()) {
			t.Errorf("the log does not name the blob: %s", log)
		}
		wantContent(t, filepath.Join(filepath.Dir(a), "b"), "b")
		err := os.WriteFile(a, nil, 0o644) // opening with truncation needs nothing of it
		if err != nil && !errors.Is(err, unix.EIO) {
			t.Error(err)
		}
		m.mend(t)
		wantContent(t, filepath.Join(m.dir, ".head", "pkgs", "one-1.0-0", "lib", "a"), soundContent)
	})
}

// Bytes that have changed without a trace are read, and kept by the kernel, until
// somebody finds out. After the repair nobody reads them any more: neither a new
// opening while the old one lives, nor one that comes later.
func TestMendedBlobIsReadAnew(t *testing.T) {
	bothWays(t, seedSound, func(t *testing.T, m *testMount) {
		a := filepath.Join(m.root, "pkgs", "one-1.0-0", "lib", "a")
		m.spoil(t, false)
		wantContent(t, a, badContent)
		old, err := os.Open(a)
		must(t, err)
		defer old.Close()
		got := make([]byte, len(badContent))
		_, err = old.ReadAt(got, 0)
		must(t, err)
		if !bytes.Equal(got, []byte(badContent)) {
			t.Fatalf("read %q", got)
		}
		m.mend(t)
		wantContent(t, a, soundContent)
		must(t, old.Close())
		wantContent(t, a, soundContent)
	})
}

// The same when nobody has the file open in between: the kernel's pages of the
// damaged file go at the next opening.
func TestMendedBlobLeavesThePageCache(t *testing.T) {
	bothWays(t, seedSound, func(t *testing.T, m *testMount) {
		a := filepath.Join(m.root, "pkgs", "one-1.0-0", "lib", "a")
		m.spoil(t, false)
		wantContent(t, a, badContent)
		m.mend(t)
		wantContent(t, a, soundContent)
	})
}
