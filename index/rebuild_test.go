package index

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"condafs/fault"
	"condafs/hashing"
	"condafs/internal/longrun"

	"pgregory.net/rapid"
)

// copyStore copies the directory of a store that may be open, as a kill of its daemon
// would leave it: nobody writes to it at this moment.
func copyStore(t testing.TB, from string) string {
	t.Helper()
	to := filepath.Join(memDir(t), "store")
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("cp: %s", out)
	}
	return to
}

func rebuild(t testing.TB, dir string) *RebuildReport {
	t.Helper()
	r, err := Rebuild(t.Context(), dir, quiet, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A database that is made anew has what was committed, deletions included, the
// sessions, and what is in quarantine, whatever was done before and however the
// daemon ended.
func TestRebuildModel(t *testing.T) {
	longrun.Checks(t, 12)
	rapid.Check(t, func(rt *rapid.T) {
		m := &rebuildModel{model: model{t: t, dir: memDir(t), head: map[string]string{}}}
		m.open(rt)
		defer func() {
			if err := errors.Join(m.s.Close(), os.RemoveAll(m.dir)); err != nil {
				rt.Fatal(err)
			}
		}()
		rt.Repeat(map[string]func(*rapid.T){
			"update":     m.update,
			"updateMore": m.update,
			"fail":       m.fail,
			"session":    m.session,
			"release":    m.release,
			"quarantine": m.quarantine,
			"gc":         m.gc,
			"reopen":     m.reopen,
			"checkpoint": m.checkpoint,
			"rebuild":    m.rebuild,
			"":           m.check,
		})
	})
}

type rebuildModel struct {
	model
	quarantined int
}

func (m *rebuildModel) quarantine(t *rapid.T) {
	m.quarantined++
	if err := m.s.AddQuarantine(QuarantineRecord{ID: fmt.Sprint("q", m.quarantined)}); err != nil {
		t.Fatal(err)
	}
}

func (m *rebuildModel) checkpoint(t *rapid.T) {
	if err := m.s.checkpoint(m.t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (m *rebuildModel) rebuild(t *rapid.T) {
	if rapid.Bool().Draw(t, "killed") {
		killed := copyStore(m.t, m.dir)
		if err := errors.Join(m.s.Close(), os.RemoveAll(m.dir)); err != nil {
			t.Fatal(err)
		}
		m.dir = killed
	} else if err := m.s.Close(); err != nil {
		t.Fatal(err)
	}
	numbers, err := segments(m.dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(numbers) == 0 { // nothing was ever committed
		m.reopen(t)
		return
	}
	lost := rapid.Bool().Draw(t, "database lost")
	if lost {
		if err := os.RemoveAll(filepath.Join(m.dir, dbName)); err != nil {
			t.Fatal(err)
		}
	}
	r := rebuild(m.t, m.dir)
	if !r.Exact || len(r.Damage) > 0 || len(r.LostTrees) > 0 || lost != (r.Aside == "") {
		t.Fatalf("%+v", r)
	}
	m.open(t)
	if m.s.Head() != r.Head {
		t.Fatalf("head %d, not %d", m.s.Head(), r.Head)
	}
	kept := m.pins[:0]
	for _, pin := range m.pins {
		if pin.session == "" {
			continue
		}
		// A session goes on over the new head, unless it began with nothing.
		if pin.p.Seq() != 0 {
			pin.p, pin.content = m.s.PinHead(), m.head
		} else if pin.p, err = m.s.Pin(0); err != nil {
			t.Fatal(err)
		}
		kept = append(kept, pin)
	}
	m.pins = kept
	sessions, err := m.s.Sessions()
	if err != nil || len(sessions) != len(m.pins) {
		t.Fatalf("sessions %+v, %v", sessions, err)
	}
	q, err := m.s.Quarantined()
	if err != nil || len(q) != m.quarantined {
		t.Fatalf("quarantined %+v, %v", q, err)
	}
	v, err := m.s.Verify(m.t.Context(), VerifyOptions{Full: true}, nil)
	if err != nil || len(v.Problems) > 0 {
		t.Fatalf("%+v, %v", v, err)
	}
}

// fillRebuild commits a few packages and deletions, with names that tell what is what.
func fillRebuild(t testing.TB, s *Store, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		putPackage(t, s, fmt.Sprintf("shared/pkgs/p%d-1-0", i), map[string]string{"a": fmt.Sprint("a", i), "common": "common"})
		if i%3 == 2 {
			update(t, s, func(tx *Tx) error { return tx.Delete(fmt.Sprintf("shared/pkgs/p%d-1-0", i-1)) })
		}
	}
}

func TestRebuildLargeCommit(t *testing.T) {
	dir := memDir(t)
	s := openTest(t, dir)
	putFile(t, s, "before", "x")
	update(t, s, func(tx *Tx) error { // by a redo record
		for i := range manyEntries {
			if err := tx.Put(fmt.Sprintf("d/%d", i), Entry{Kind: KindSymlink, Link: "x"}); err != nil {
				return err
			}
		}
		return nil
	})
	update(t, s, func(tx *Tx) error { return tx.Delete("d/7") })
	want := allPaths(t, s)
	log, err := s.Log(0)
	if err := errors.Join(err, s.Close(), os.RemoveAll(filepath.Join(dir, dbName))); err != nil {
		t.Fatal(err)
	}
	if r := rebuild(t, dir); !r.Exact || r.Commits != int64(len(log)) {
		t.Errorf("%+v", r)
	}
	s = openTest(t, dir)
	if got := allPaths(t, s); len(got) != len(want) {
		t.Errorf("%d entries, not %d", len(got), len(want))
	}
	if again, err := s.Log(0); err != nil || len(again) != len(log) {
		t.Errorf("%d commits in the log, not %d, %v", len(again), len(log), err)
	}
}

// Of a journal that is damaged itself, all but the damaged records is used; what they
// had is told, and the next opening writes a journal that is whole.
func TestRebuildFromDamagedJournal(t *testing.T) {
	dir := memDir(t)
	s := openTest(t, dir)
	fillRebuild(t, s, 0, 9)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, journalName, segmentName(1))
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	at := strings.Index(string(b), "p3-1-0") // within the record that puts it
	b[at] ^= 1
	if err := errors.Join(os.WriteFile(name, b, 0o600), os.RemoveAll(filepath.Join(dir, dbName))); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{Logger: quiet}); !fault.Is(err, fault.Corrupt) || !strings.Contains(err.Error(), "condafs rebuild") {
		t.Fatalf("err = %v", err)
	}
	r := rebuild(t, dir)
	if r.Exact || len(r.Damage) != 1 {
		t.Errorf("%+v", r)
	}
	s = openTest(t, dir)
	want := "p0-1-0 p2-1-0 p5-1-0 p6-1-0 p8-1-0"
	if got := packages(t, s); got != want {
		t.Errorf("packages %s, not %s", got, want)
	}
	if v, err := s.Verify(t.Context(), VerifyOptions{Full: true}, nil); err != nil || len(v.Problems) > 0 {
		t.Errorf("%+v, %v", v, err)
	}
}

func packages(t testing.TB, s *Store) string {
	t.Helper()
	p := s.PinHead()
	defer p.Release()
	list, err := p.List("shared/pkgs")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name)
	}
	return strings.Join(names, " ")
}

// A manifest that is lost costs its package, and nothing else.
func TestRebuildWithoutATree(t *testing.T) {
	dir := memDir(t)
	s := openTest(t, dir)
	fillRebuild(t, s, 0, 3)
	p := s.PinHead()
	e, _ := get(t, p, "shared/pkgs/p2-1-0")
	p.Release()
	if err := errors.Join(s.Close(), os.RemoveAll(filepath.Join(dir, dbName)), os.WriteFile(s.treeFile(e.Digest)+"x", nil, 0o600), os.Remove(s.treeFile(e.Digest))); err != nil {
		t.Fatal(err)
	}
	r := rebuild(t, dir)
	if !r.Exact || len(r.LostTrees) != 1 || r.LostTrees[0] != "shared/pkgs/p2-1-0" {
		t.Errorf("%+v", r)
	}
	s = openTest(t, dir)
	v, err := s.Verify(t.Context(), VerifyOptions{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	kinds := make(map[ProblemKind]int)
	for _, p := range v.Problems {
		kinds[p.Kind]++
	}
	if kinds[BadTree] != 1 || kinds[Journal] != 1 || kinds[Foreign] != 1 || len(v.Problems) != 3 {
		t.Errorf("%+v", v.Problems)
	}
}

// The file that makes a directory a store is in the journal, too.
func TestRebuildIdentity(t *testing.T) {
	dir := memDir(t)
	s := openTest(t, dir)
	uuid := s.UUID()
	fillRebuild(t, s, 0, 2)
	if err := errors.Join(s.Close(), os.Remove(filepath.Join(dir, formatName))); err != nil {
		t.Fatal(err)
	}
	rebuild(t, dir)
	if s = openTest(t, dir); s.UUID() != uuid || packages(t, s) != "p0-1-0 p1-1-0" {
		t.Errorf("uuid %s, packages %s", s.UUID(), packages(t, s))
	}
}

func TestRebuildRefuses(t *testing.T) {
	dir := memDir(t)
	s := openTest(t, dir)
	if _, err := Rebuild(t.Context(), dir, quiet, nil); !fault.Is(err, fault.Corrupt) {
		t.Errorf("without a journal: %v", err)
	}
	fillRebuild(t, s, 0, 1)
	if _, err := Rebuild(t.Context(), dir, quiet, nil); !fault.Is(err, fault.Busy) {
		t.Errorf("an open store: %v", err)
	}
}

// The journal is written before the database: a crash in between leaves a commit that
// only the journal has. The next daemon makes it, unless some of its content is gone.
func TestInterruptedCommit(t *testing.T) {
	for _, whole := range []bool{true, false} {
		t.Run(fmt.Sprint("whole ", whole), func(t *testing.T) {
			dir := memDir(t)
			s := openTest(t, dir)
			fillRebuild(t, s, 0, 3)
			before := packages(t, s)
			var killed string
			s.commits.syncfs = func(int) error { // the committer is idle
				killed = copyStore(t, dir)
				return nil
			}
			putPackage(t, s, "shared/pkgs/new-1-0", map[string]string{"a": "new", "b": "common"})
			after := packages(t, s)
			want := after
			if !whole {
				want = before
				if err := os.Remove(filepath.Join(killed, blobName(hashing.Sum([]byte("new"))))); err != nil {
					t.Fatal(err)
				}
			}
			// Twice: what the first daemon decided holds.
			for range 2 {
				k := openTest(t, killed)
				if got := packages(t, k); got != want {
					t.Errorf("packages %s, not %s", got, want)
				}
				if v, err := k.Verify(t.Context(), VerifyOptions{Full: true}, nil); err != nil || len(v.Problems) > 0 {
					t.Errorf("%+v, %v", v, err)
				}
				putFile(t, k, "shared/x", "x")
				if err := errors.Join(k.Close(), os.RemoveAll(filepath.Join(killed, dbName))); err != nil {
					t.Fatal(err)
				}
				rebuild(t, killed)
			}
		})
	}
}

// A store of a condafs without a journal gets one when it is opened; so does one whose
// journal was lost.
func TestJournalIsBegun(t *testing.T) {
	losses := map[string]func(s *Store) error{
		"the journal was lost": func(s *Store) error {
			return errors.Join(os.RemoveAll(filepath.Join(s.dir, journalName)), os.RemoveAll(filepath.Join(s.dir, treesName)))
		},
		"its newest segment was lost": func(s *Store) error {
			numbers, err := segments(s.dir)
			return errors.Join(err, os.Remove(filepath.Join(s.dir, journalName, segmentName(numbers[len(numbers)-1]))))
		},
		"a condafs without a journal was here": func(s *Store) error {
			// It moved head, deleted a package, and knew neither sum nor journal.
			c := s.commits
			return c.transaction(c.next, []op{
				{key: entryKey("shared/pkgs", "p0-1-0")},
				{key: keyHead, value: putNumbers(c.next)},
			})
		},
	}
	for name, lose := range losses {
		t.Run(name, func(t *testing.T) {
			dir := memDir(t)
			s := openTest(t, dir)
			fillRebuild(t, s, 0, 4)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = openTest(t, dir)
			fillRebuild(t, s, 4, 6)
			if err := lose(s); err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = openTest(t, dir)
			want := packages(t, s)
			if v, err := s.Verify(t.Context(), VerifyOptions{Full: true}, nil); err != nil || len(v.Problems) > 0 {
				t.Errorf("%+v, %v", v, err)
			}
			if err := errors.Join(s.Close(), os.RemoveAll(filepath.Join(dir, dbName))); err != nil {
				t.Fatal(err)
			}
			if r := rebuild(t, dir); !r.Exact {
				t.Errorf("%+v", r)
			}
			if s = openTest(t, dir); packages(t, s) != want {
				t.Errorf("packages %s, not %s", packages(t, s), want)
			}
		})
	}
}

// The journal does not grow without end, and neither do the manifests beside it.
func TestCollectionShortensTheJournal(t *testing.T) {
	dir := memDir(t)
	s := openTest(t, dir)
	long := strings.Repeat("x", 4000)
	for i := range 400 {
		update(t, s, func(tx *Tx) error { return tx.Put("link", Entry{Kind: KindSymlink, Link: fmt.Sprint(long, i)}) })
	}
	fillRebuild(t, s, 0, 3)
	update(t, s, func(tx *Tx) error { return tx.Delete("shared") })
	collect(t, s)
	numbers, err := segments(dir)
	if err != nil || len(numbers) != 1 {
		t.Fatalf("segments %v, %v", numbers, err)
	}
	fi, err := os.Stat(filepath.Join(dir, journalName, segmentName(numbers[0])))
	if err != nil || fi.Size() > 1<<18 {
		t.Errorf("it has %d bytes, %v", fi.Size(), err)
	}
	if trees, err := os.ReadDir(filepath.Join(dir, treesName)); err != nil || len(trees) != 0 {
		t.Errorf("trees %v, %v", trees, err)
	}
	putFile(t, s, "later", "later")
	if err := errors.Join(s.Close(), os.RemoveAll(filepath.Join(dir, dbName))); err != nil {
		t.Fatal(err)
	}
	if r := rebuild(t, dir); !r.Exact || r.Commits != 1 {
		t.Errorf("%+v", r)
	}
}
