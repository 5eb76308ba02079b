package index

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"condafs/fault"

	"golang.org/x/sys/unix"
)

func write(t testing.TB, name, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestOpenRefuses(t *testing.T) {
	tests := []struct {
		name string
		make func(t *testing.T, dir string)
		kind fault.Kind
		says string
	}{
		{"a directory with other things", func(t *testing.T, dir string) { write(t, dir+"/thesis.tex", "") }, fault.Usage, "thesis.tex"},
		{"a file", func(t *testing.T, dir string) {
			if err := os.Remove(dir); err != nil {
				t.Fatal(err)
			}
			write(t, dir, "x")
		}, fault.NotFound, "not a directory"},
		{"another version", func(t *testing.T, dir string) {
			write(t, dir+"/"+formatName, `{"format": 99, "uuid": "x"}`)
		}, fault.Version, "format 99"},
		{"a broken identity", func(t *testing.T, dir string) { write(t, dir+"/"+formatName, `{"form`) }, fault.Corrupt, formatName},
		{"no database", func(t *testing.T, dir string) {
			write(t, dir+"/"+formatName, `{"format": 1, "uuid": "x"}`)
			write(t, dir+"/objects/ab/cd", "blob")
		}, fault.Corrupt, "no database"},
		{"a broken database", func(t *testing.T, dir string) {
			write(t, dir+"/"+formatName, `{"format": 1, "uuid": "x"}`)
			write(t, dir+"/db/MANIFEST", "this is none")
		}, fault.Corrupt, "database"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(memDir(t), "store")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			tt.make(t, dir)
			before := listTree(dir)
			s, err := Open(dir, Options{Logger: quiet})
			if err == nil {
				s.Close()
				t.Fatal("it was opened")
			}
			if !fault.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "; ") {
				t.Errorf("%v: %v", fault.KindOf(err), err)
			}
			if tt.kind == fault.Usage && listTree(dir) != before {
				t.Errorf("it left %s", listTree(dir))
			}
		})
	}
}

func listTree(dir string) string {
	var b strings.Builder
	filepath.Walk(dir, func(path string, fi os.FileInfo, err error) error {
		fmt.Fprintln(&b, path, err)
		return nil
	})
	return b.String()
}

func TestOpenTakesWhatAFirstAttemptLeft(t *testing.T) {
	dir := memDir(t)
	write(t, dir+"/"+formatTemp, "half")
	write(t, dir+"/"+lockName, "123\n")
	if err := os.Mkdir(dir+"/lost+found", 0o700); err != nil {
		t.Fatal(err)
	}
	s := openTest(t, dir)
	uuid := s.UUID()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
	write(t, dir+"/staging/left/over", "x")
	if s := openTest(t, dir); s.UUID() != uuid {
		t.Error("it became another store")
	}
	if _, err := os.Stat(dir + "/staging/left"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("staging was not emptied: %v", err)
	}
}

// A power failure can leave the name of a log that Badger was about to begin.
func TestEmptyLogs(t *testing.T) {
	dir := memDir(t)
	s := openTest(t, dir)
	putFile(t, s, "before", "content")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"00042.mem", "000042.vlog"} {
		write(t, dir+"/db/"+name, "")
	}
	s = openTest(t, dir)
	if e, ok := get(t, s.PinHead(), "before"); !ok || readAll(t, s, e.Digest) != "content" {
		t.Error("content was lost")
	}
	putFile(t, s, "after", "x")
}

func TestSecondDaemonIsTold(t *testing.T) {
	s := newStore(t)
	_, err := Open(s.Dir(), Options{Logger: quiet})
	if !fault.Is(err, fault.Busy) || !strings.Contains(err.Error(), fmt.Sprintf("pid %d", os.Getpid())) {
		t.Errorf("err = %v", err)
	}
	putFile(t, s, "still", "works")
}

// mountTemp mounts a small file system, or skips where that is not allowed.
func mountTemp(t *testing.T, size string) string {
	t.Helper()
	dir := memDir(t)
	if err := unix.Mount("condafs-test", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("cannot mount a small tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestReadOnlyFileSystem(t *testing.T) {
	dir := mountTemp(t, "64m")
	s, err := Open(dir, Options{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{Logger: quiet}); !fault.Is(err, fault.ReadOnly) || !strings.Contains(err.Error(), "writable") {
		t.Errorf("err = %v", err)
	}
}

func TestFullFileSystem(t *testing.T) {
	dir := mountTemp(t, "96m")
	s, err := Open(dir, Options{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	putFile(t, s, "before", "content")
	filler, err := os.Create(dir + "/sessions/filler")
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 1<<20)
	for err == nil {
		_, err = filler.Write(block)
	}
	if err := filler.Close(); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	h := s.NewHold()
	defer h.Release()
	if _, err := s.PutBlob(h, strings.NewReader(strings.Repeat("x", 1<<20)), 0); !fault.Is(err, fault.Full) {
		t.Errorf("PutBlob: %v", err)
	}
	if staged, err := os.ReadDir(s.StagingDir()); err != nil || len(staged) != 0 {
		t.Errorf("staging holds %v, %v", staged, err)
	}
	before, ok := get(t, s.PinHead(), "before")
	if !ok {
		t.Fatal("nothing is there")
	}
	put := func(tx *Tx) error { return tx.Put("again", before) }
	head := s.Head()
	if _, err := s.Update(t.Context(), CommitInfo{}, put); !fault.Is(err, fault.Full) || !strings.Contains(err.Error(), "gc") {
		t.Errorf("Update: %v", err)
	}
	if s.Head() != head {
		t.Error("head moved")
	}
	// A full store closes and opens: it has set space aside for that.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(dir, Options{Logger: quiet}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Head() != head {
		t.Error("head was lost")
	}
	if _, err := s.GC(t.Context(), GCOptions{}, nil); err != nil {
		t.Errorf("GC: %v", err)
	}
	if err := os.Remove(dir + "/sessions/filler"); err != nil {
		t.Fatal(err)
	}
	if seq := update(t, s, put); seq <= head {
		t.Error("it did not recover")
	}
	if e, ok := get(t, s.PinHead(), "before"); !ok || readAll(t, s, e.Digest) != "content" {
		t.Error("content was lost")
	}
}

// fillDisk writes a file until nothing is free.
func fillDisk(t *testing.T, name string) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range [][]byte{make([]byte, 1<<20), make([]byte, 4096)} {
		for err = nil; err == nil; {
			_, err = f.Write(block)
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// When nothing is free, deletions, a collection and records of sessions are written from
// the reserve: else nothing would ever be free again. They leave enough of it to close
// and open the store.
func TestReserve(t *testing.T) {
	dir := mountTemp(t, "96m")
	s := openTest(t, dir)
	for i := range 6 {
		putFile(t, s, fmt.Sprintf("big%d", i), strings.Repeat(fmt.Sprint(i), 2<<20))
	}
	putFile(t, s, "kept", "content")
	filler := dir + "/sessions/filler"
	fillDisk(t, filler)
	e, ok := get(t, s.PinHead(), "kept")
	if !ok {
		t.Fatal("nothing is there")
	}
	data := func() error {
		_, err := s.Update(t.Context(), CommitInfo{}, func(tx *Tx) error { return tx.Put("data", e) })
		return err
	}
	if err := data(); !fault.Is(err, fault.Full) {
		t.Errorf("data on a full disk: %v", err)
	}
	// A client fills what is given back at once.
	records, err := 0, error(nil)
	for ; err == nil && records < 10_000; records++ {
		if err = s.PutSession(SessionRecord{ID: fmt.Sprint("s", records%7)}); records%10 == 0 {
			fillDisk(t, filler)
		}
	}
	if records < 20 || err != nil && !fault.Is(err, fault.Full) {
		t.Errorf("%d records could be written: %v", records, err)
	}
	t.Logf("%d records were written: %v", records, err)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, dir)
	fillDisk(t, filler)
	if err := data(); !fault.Is(err, fault.Full) {
		t.Errorf("data on a full disk, opened again: %v", err)
	}
	for i := range 6 {
		update(t, s, func(tx *Tx) error { return tx.Delete(fmt.Sprintf("big%d", i)) })
	}
	if r := collect(t, s); r.Blobs != 6 {
		t.Errorf("%+v", r)
	}
	// What was freed is enough, and the reserve is whole again.
	if err := data(); err != nil {
		t.Errorf("data when there is room: %v", err)
	}
	if fi, err := os.Stat(dir + "/" + reserveName); err != nil || fi.Size() < 2*reserveStep {
		t.Errorf("the reserve: %v, %v", fi, err)
	}
	if readAll(t, s, e.Digest) != "content" {
		t.Error("content was lost")
	}
}
