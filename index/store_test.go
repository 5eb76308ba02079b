package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"condafs/fault"
	"condafs/hashing"

	"golang.org/x/sys/unix"
)

var quiet = slog.New(slog.DiscardHandler)

func openTest(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(dir, Options{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func newStore(t testing.TB) *Store { return openTest(t, memDir(t)) }

// memDir returns a directory in memory where there is one: tests that open many
// stores would wait for the disk most of their time.
func memDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "condafs-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// putFile commits a file with this content.
func putFile(t testing.TB, s *Store, path, content string) Seq {
	t.Helper()
	h := s.NewHold()
	defer h.Release()
	sums, err := s.PutBlob(h, strings.NewReader(content), 0)
	if err != nil {
		t.Fatal(err)
	}
	return update(t, s, func(tx *Tx) error {
		return tx.Put(path, Entry{Kind: KindFile, Mode: 0o644, Size: sums.Size, Digest: sums.Blake3})
	})
}

func update(t testing.TB, s *Store, fn func(tx *Tx) error) Seq {
	t.Helper()
	seq, err := s.Update(t.Context(), CommitInfo{}, fn)
	if err != nil {
		t.Fatal(err)
	}
	return seq
}

// putPackage commits a tree of these files, with blobs of these contents.
func putPackage(t testing.TB, s *Store, path string, files map[string]string) *Tree {
	t.Helper()
	h := s.NewHold()
	defer h.Release()
	b := NewTreeBuilder(TreeEntry{Mode: 0o755})
	for name, content := range files {
		sums, err := s.PutBlob(h, strings.NewReader(content), 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Add(name, TreeEntry{Kind: KindFile, Mode: 0o644, Size: sums.Size, Digest: sums.Blake3}); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	update(t, s, func(tx *Tx) error {
		d, err := tx.PutTree(tree)
		if err != nil {
			return err
		}
		return tx.Put(path, Entry{Kind: KindTree, Mode: 0o755, Size: tree.Bytes(), Digest: d, Content: tree.ContentDigest()})
	})
	return tree
}

func readAll(t testing.TB, s *Store, d hashing.Digest) string {
	t.Helper()
	f, err := s.OpenBlob(d)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(f); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func get(t testing.TB, p *Snapshot, path string) (Entry, bool) {
	t.Helper()
	e, ok, err := p.Get(path)
	if err != nil {
		t.Fatal(err)
	}
	return e, ok
}

func TestSnapshotsStayAsTheyWere(t *testing.T) {
	s := newStore(t)
	first := putFile(t, s, "shared/pkgs/urls.txt", "one")
	old, err := s.Pin(first)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Release()
	second := putFile(t, s, "shared/pkgs/urls.txt", "two")
	if second <= first || s.Head() != second {
		t.Fatalf("seqs %d, %d, head %d", first, second, s.Head())
	}
	update(t, s, func(tx *Tx) error { return tx.Delete("shared") })

	e, ok := get(t, old, "shared/pkgs/urls.txt")
	if !ok || readAll(t, s, e.Digest) != "one" {
		t.Errorf("the old snapshot has %+v", e)
	}
	for dir, want := range map[string]string{"": "shared", "shared": "pkgs", "shared/pkgs": "urls.txt"} {
		list, err := old.List(dir)
		if err != nil || len(list) != 1 || list[0].Name != want {
			t.Errorf("List(%q) = %v, %v", dir, list, err)
		}
	}
	now := s.PinHead()
	defer now.Release()
	if _, ok := get(t, now, "shared/pkgs/urls.txt"); ok {
		t.Error("head still has it")
	}
	if list, err := now.List(""); err != nil || len(list) != 0 {
		t.Errorf("head lists %v, %v", list, err)
	}
	if _, err := s.Pin(second); !fault.Is(err, fault.Stale) {
		t.Errorf("a state that nobody pinned: %v", err)
	}
}

func TestUpdateIsAllOrNothing(t *testing.T) {
	s := newStore(t)
	before := putFile(t, s, "a/kept", "kept")
	boom := errors.New("boom")
	_, err := s.Update(t.Context(), CommitInfo{}, func(tx *Tx) error {
		if err := tx.Delete("a"); err != nil {
			return err
		}
		if _, ok, _ := tx.Get("a/kept"); ok {
			t.Error("the update does not see its own deletion")
		}
		return boom
	})
	if !errors.Is(err, boom) {
		t.Fatalf("err = %v", err)
	}
	if s.Head() != before {
		t.Errorf("head moved to %d", s.Head())
	}
	p := s.PinHead()
	defer p.Release()
	if _, ok := get(t, p, "a/kept"); !ok {
		t.Error("a failed update deleted something")
	}
}

func TestUpdateWithoutChangeLeavesHead(t *testing.T) {
	s := newStore(t)
	head := putFile(t, s, "a/b", "x")
	tests := map[string]func(tx *Tx) error{
		"nothing":           func(*Tx) error { return nil },
		"the same again":    func(tx *Tx) error { e, _, _ := tx.Get("a/b"); return tx.Put("a/b", e) },
		"delete what isn't": func(tx *Tx) error { return tx.Delete("a/none/at/all") },
		"there and back": func(tx *Tx) error {
			e, _, _ := tx.Get("a/b")
			return errors.Join(tx.Delete("a/b"), tx.Put("a/b", e))
		},
	}
	for name, fn := range tests {
		if got := update(t, s, fn); got != head {
			t.Errorf("%s: head moved from %d to %d", name, head, got)
		}
	}
	if log, err := s.Log(0); err != nil || len(log) != 1 {
		t.Errorf("log %v, %v", log, err)
	}
}

func TestPutAndDelete(t *testing.T) {
	s := newStore(t)
	file := func(tx *Tx, path string) error {
		return tx.Put(path, Entry{Kind: KindSymlink, Mode: 0o777, Link: "to"})
	}
	tests := []struct {
		name string
		do   func(tx *Tx) error
		kind fault.Kind // 0: no error
		want []string   // afterwards, everything
	}{
		{"parents are made", func(tx *Tx) error { return file(tx, "u1/a/b/c") }, 0, []string{"u1", "u1/a", "u1/a/b", "u1/a/b/c"}},
		{"siblings that share a prefix stay apart", func(tx *Tx) error {
			return errors.Join(file(tx, "u1/a2"), tx.Put("u1/a", Entry{Kind: KindDir, Mode: 0o700}), tx.Delete("u1/a/b"))
		}, 0, []string{"u1", "u1/a", "u1/a2"}},
		{"a file is no parent", func(tx *Tx) error { return file(tx, "u1/a2/x") }, fault.Exists, []string{"u1", "u1/a", "u1/a2"}},
		{"a file in a directory's place", func(tx *Tx) error { return errors.Join(file(tx, "u1/a/x/y"), file(tx, "u1/a")) }, 0, []string{"u1", "u1/a", "u1/a2"}},
		{"a directory goes with what is in it", func(tx *Tx) error { return tx.Delete("u1") }, 0, nil},
		{"names are bytes", func(tx *Tx) error { return file(tx, "\xff\xfe/\x01") }, 0, []string{"\xff\xfe", "\xff\xfe/\x01"}},
		{"no empty path", func(tx *Tx) error { return file(tx, "") }, fault.Usage, nil},
		{"no way up", func(tx *Tx) error { return file(tx, "a/../b") }, fault.Usage, nil},
		{"no double slash", func(tx *Tx) error { return file(tx, "a//b") }, fault.Usage, nil},
		{"no NUL", func(tx *Tx) error { return file(tx, "a\x00b") }, fault.Usage, nil},
		{"no long name", func(tx *Tx) error { return file(tx, strings.Repeat("x", 256)) }, fault.Usage, nil},
		{"no bad mode", func(tx *Tx) error { return tx.Put("x", Entry{Kind: KindDir, Mode: 1 << 20}) }, fault.Usage, nil},
		{"no missing blob", func(tx *Tx) error {
			return tx.Put("x", Entry{Kind: KindFile, Digest: hashing.Sum([]byte("none"))})
		}, fault.Corrupt, nil},
		{"no missing tree", func(tx *Tx) error {
			return tx.Put("x", Entry{Kind: KindTree, Digest: hashing.Sum([]byte("none"))})
		}, fault.Corrupt, nil},
	}
	var want []string
	for _, tt := range tests {
		_, err := s.Update(t.Context(), CommitInfo{}, tt.do)
		if tt.kind == 0 {
			want = tt.want
		}
		if (err == nil) != (tt.kind == 0) || err != nil && !fault.Is(err, tt.kind) {
			t.Errorf("%s: err = %v", tt.name, err)
		}
		if got := allPaths(t, s); strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("%s: got %q, want %q", tt.name, got, want)
		}
	}
}

func allPaths(t testing.TB, s *Store) []string {
	t.Helper()
	p := s.PinHead()
	defer p.Release()
	var out []string
	var walk func(dir string)
	walk = func(dir string) {
		list, err := p.List(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			path := joinPath(dir, e.Name)
			out = append(out, path)
			walk(path)
		}
	}
	walk("")
	return out
}

func TestReopen(t *testing.T) {
	dir := memDir(t)
	s := openTest(t, dir)
	tree := putPackage(t, s, "shared/pkgs/a-1-0", map[string]string{"info/index.json": "{}", "lib/a": "aaa"})
	old := putFile(t, s, "shared/pkgs/urls", "old")
	if err := s.PutSession(SessionRecord{ID: "s1", Seq: old, Label: "x"}); err != nil {
		t.Fatal(err)
	}
	head := putFile(t, s, "shared/pkgs/urls", "new")
	want, err := s.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Update(t.Context(), CommitInfo{}, func(*Tx) error { return nil }); !fault.Is(err, fault.Stale) {
		t.Errorf("update of a closed store: %v", err)
	}
	if _, err := s.Log(0); !fault.Is(err, fault.Stale) {
		t.Errorf("read of a closed store: %v", err)
	}

	s = openTest(t, dir)
	if got, err := s.Stats(); err != nil || got != want {
		t.Errorf("stats %+v, want %+v, %v", got, want, err)
	}
	if s.Head() != head {
		t.Errorf("head %d, want %d", s.Head(), head)
	}
	got, err := s.Tree(tree.Digest())
	if err != nil || got.Len() != tree.Len() {
		t.Errorf("tree %v, %v", got, err)
	}
	p, err := s.Pin(old) // a session's record kept it
	if err != nil {
		t.Fatal(err)
	}
	defer p.Release()
	if e, ok := get(t, p, "shared/pkgs/urls"); !ok || readAll(t, s, e.Digest) != "old" {
		t.Errorf("the session's state has %+v", e)
	}
	if next := putFile(t, s, "x", "y"); next <= head {
		t.Errorf("seq %d after %d", next, head)
	}
}

func TestRecords(t *testing.T) {
	s := newStore(t)
	for i := range 3 {
		_, err := s.Update(t.Context(), CommitInfo{Label: fmt.Sprint(i), What: []string{"+ x"}}, func(tx *Tx) error {
			tx.Note("noted")
			return tx.Put(fmt.Sprint("d", i), Entry{Kind: KindDir, Mode: 0o755})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	log, err := s.Log(2)
	if err != nil || len(log) != 2 || log[0].Label != "2" || log[1].Label != "1" || log[0].Seq != s.Head() || log[0].Time.IsZero() ||
		strings.Join(log[0].What, ",") != "+ x,noted" {
		t.Errorf("log %+v, %v", log, err)
	}
	for _, id := range []string{"b", "a"} {
		if err := errors.Join(s.PutSession(SessionRecord{ID: id, Seq: s.Head()}), s.AddQuarantine(QuarantineRecord{ID: id, Path: "p"})); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(s.QuarantineDir("a"), "below"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.DeleteSession("b"), s.DeleteSession("none"), s.RemoveQuarantine("a")); err != nil {
		t.Fatal(err)
	}
	sessions, err := s.Sessions()
	if err != nil || len(sessions) != 1 || sessions[0].ID != "a" {
		t.Errorf("sessions %v, %v", sessions, err)
	}
	quarantined, err := s.Quarantined()
	if err != nil || len(quarantined) != 1 || quarantined[0].ID != "b" {
		t.Errorf("quarantined %v, %v", quarantined, err)
	}
	if _, err := os.Stat(s.QuarantineDir("a")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its directory: %v", err)
	}
	bad := map[string]error{
		"id with a slash":      s.PutSession(SessionRecord{ID: "a/b"}),
		"id up":                s.RemoveQuarantine(".."),
		"unknown state":        s.PutSession(SessionRecord{ID: "c", Seq: s.Head() + 9}),
		"unknown quarantine":   s.RemoveQuarantine("zz"),
		"record without bound": s.AddQuarantine(QuarantineRecord{ID: "c", Reason: strings.Repeat("x", partSize)}),
	}
	for name, err := range bad {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestCommitRecordIsBounded(t *testing.T) {
	s := newStore(t)
	what := make([]string, 100_000)
	for i := range what {
		what[i] = fmt.Sprintf("+ package-%d", i)
	}
	_, err := s.Update(t.Context(), CommitInfo{What: what}, func(tx *Tx) error {
		return tx.Put("d", Entry{Kind: KindDir})
	})
	if err != nil {
		t.Fatal(err)
	}
	log, err := s.Log(1)
	if err != nil || len(log) != 1 {
		t.Fatalf("log %v, %v", log, err)
	}
	if last := log[0].What[len(log[0].What)-1]; !strings.Contains(last, "more") || len(log[0].What) > 10_000 {
		t.Errorf("%d lines, the last is %q", len(log[0].What), last)
	}
}

func TestCanceledUpdate(t *testing.T) {
	s := newStore(t)
	started, goOn := make(chan struct{}), make(chan struct{})
	first := make(chan error, 1)
	go func() {
		_, err := s.Update(context.Background(), CommitInfo{}, func(tx *Tx) error {
			close(started)
			<-goOn
			return tx.Put("first", Entry{Kind: KindDir})
		})
		first <- err
	}()
	<-started
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Update(ctx, CommitInfo{}, func(*Tx) error { t.Error("a canceled update ran"); return nil })
	if !fault.Is(err, fault.Canceled) {
		t.Errorf("err = %v", err)
	}
	close(goOn)
	if err := <-first; err != nil {
		t.Error(err)
	}
}

func TestWaitingUpdatesAreOneGroup(t *testing.T) {
	s := newStore(t)
	started, goOn := make(chan struct{}), make(chan struct{})
	boom := errors.New("boom")
	type result struct {
		seq Seq
		err error
	}
	results := make(chan result, 10)
	run := func(i int, before func()) {
		seq, err := s.Update(context.Background(), CommitInfo{}, func(tx *Tx) error {
			before()
			if err := tx.Put(fmt.Sprintf("d/%d", i), Entry{Kind: KindDir}); err != nil {
				return err
			}
			if i == 5 {
				return boom
			}
			return nil
		})
		results <- result{seq, err}
	}
	go run(0, func() { close(started); <-goOn })
	<-started
	for i := 1; i < 10; i++ {
		go run(i, func() {})
	}
	for queued := 0; queued < 9; { // until all of them wait
		s.commits.mu.Lock()
		queued = len(s.commits.queue)
		s.commits.mu.Unlock()
	}
	close(goOn)
	seqs, failed := map[Seq]int{}, 0
	for range 10 {
		r := <-results
		if errors.Is(r.err, boom) {
			failed++
		} else if r.err != nil {
			t.Error(r.err)
		} else {
			seqs[r.seq]++
		}
	}
	if failed != 1 || len(seqs) != 1 {
		t.Errorf("%d failed, seqs %v", failed, seqs)
	}
	if got := len(allPaths(t, s)); got != 10 { // d and nine below
		t.Errorf("%d entries", got)
	}
	if log, err := s.Log(0); err != nil || len(log) != 9 {
		t.Errorf("%d commits, %v", len(log), err)
	}
}

// After a failed sync nobody knows what is on disk: nothing more is written until the
// store is opened again, and that shows the old head.
func TestFailedSyncStopsAllWriting(t *testing.T) {
	dir := memDir(t)
	s := openTest(t, dir)
	head := putFile(t, s, "a", "a")
	s.commits.syncfs = func(int) error { return unix.EIO } // the committer is idle
	h := s.NewHold()
	defer h.Release()
	sums, err := s.PutBlob(h, strings.NewReader("b"), 0)
	if err != nil {
		t.Fatal(err)
	}
	put := func(tx *Tx) error { return tx.Put("b", Entry{Kind: KindFile, Size: 1, Digest: sums.Blake3}) }
	for range 2 {
		if _, err := s.Update(t.Context(), CommitInfo{}, put); !fault.Is(err, fault.IO) || !strings.Contains(err.Error(), "opened again") {
			t.Errorf("err = %v", err)
		}
		s.commits.syncfs = unix.Syncfs // works again, but it is too late
	}
	if s.Head() != head {
		t.Errorf("head moved to %d", s.Head())
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, dir)
	if s.Head() != head || putFile(t, s, "b", "b") <= head {
		t.Errorf("head %d", s.Head())
	}
}

// A group waits for the disk only if it refers to blobs.
func TestOnlyFilesAreSynced(t *testing.T) {
	s := newStore(t)
	syncs := 0
	s.commits.syncfs = func(fd int) error { syncs++; return unix.Syncfs(fd) }
	putFile(t, s, "a", "a")
	if syncs != 1 {
		t.Errorf("%d syncs for a file", syncs)
	}
	update(t, s, func(tx *Tx) error { return errors.Join(tx.Delete("a"), tx.Put("d", Entry{Kind: KindDir})) })
	if syncs != 1 {
		t.Errorf("%d syncs for a deletion", syncs-1)
	}
}

// Records of sessions that publish nothing do not pile up: head moves on now and then,
// so that Badger may drop what has been deleted, and no longer than a state is pinned.
func TestQuietRecordsMayBeDropped(t *testing.T) {
	s := newStore(t)
	before := putFile(t, s, "shared/a", "1")
	var dropped Seq
	discard := s.pins.discard
	s.pins.discard = func(seq Seq) {
		dropped = seq
		discard(seq)
	}
	pin := s.PinHead()
	for i := range quietWrites {
		id := fmt.Sprint("s", i)
		if err := s.PutSession(SessionRecord{ID: id}); err != nil {
			t.Fatal(err)
		}
		if err := s.DeleteSession(id); err != nil {
			t.Fatal(err)
		}
	}
	if s.Head() <= before || dropped != before {
		t.Errorf("head was %d and is %d, versions below %d may go", before, s.Head(), dropped)
	}
	if e, ok := get(t, pin, "shared/a"); !ok || readAll(t, s, e.Digest) != "1" {
		t.Error("a pinned state has lost something")
	}
	pin.Release()
	if dropped != s.Head() {
		t.Errorf("head is %d, versions below %d may go", s.Head(), dropped)
	}
	if log, err := s.Log(0); err != nil || len(log) != 1 {
		t.Errorf("the log has %+v, %v", log, err)
	}
}
