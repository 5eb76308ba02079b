package index

import (
	"encoding/json"
	"fmt"
	"testing"

	"condafs/fault"
	"condafs/hashing"
)

// manyEntries is more than one Badger transaction takes.
const manyEntries = 18_000

func TestLargeUpdate(t *testing.T) {
	dir := memDir(t)
	s := openTest(t, dir)
	before := putFile(t, s, "before", "x")
	seq := update(t, s, func(tx *Tx) error {
		for i := range manyEntries {
			if err := tx.Put(fmt.Sprintf("d/%d", i), Entry{Kind: KindSymlink, Link: "x"}); err != nil {
				return err
			}
		}
		return nil
	})
	if seq <= before || s.Head() != seq {
		t.Fatalf("seq %d after %d, head %d", seq, before, s.Head())
	}
	putFile(t, s, "after", "y")
	check := func() {
		t.Helper()
		p := s.PinHead()
		defer p.Release()
		if list, err := p.List("d"); err != nil || len(list) != manyEntries {
			t.Errorf("%d entries, %v", len(list), err)
		}
		if log, err := s.Log(0); err != nil || len(log) != 3 || log[1].Seq != seq {
			t.Errorf("log %+v, %v", log, err)
		}
	}
	check()
	if found, err := s.getRecord(keyRedo, new(redoHead)); err != nil || found {
		t.Errorf("a redo record is left: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, dir)
	check()
}

func TestLargeTree(t *testing.T) {
	s := newStore(t)
	putFile(t, s, "f", "content")
	entries := make(map[string]TreeEntry)
	for i := range 50_000 {
		e := fileEntry("content")
		e.Mtime = int64(i) * 1e12 // times do not compress
		entries[fmt.Sprintf("lib/dir%d/file-%d", i/100, i)] = e
	}
	tree := buildTree(t, entries)
	if len(tree.Encode()) < 2*maxTxnBytes {
		t.Fatalf("only %d bytes", len(tree.Encode()))
	}
	update(t, s, func(tx *Tx) error {
		d, err := tx.PutTree(tree)
		if err != nil {
			return err
		}
		return tx.Put("big", Entry{Kind: KindTree, Digest: d})
	})
	got, err := s.loadTree(tree.Digest())
	if err != nil || got.Len() != tree.Len() {
		t.Fatal(err)
	}
	update(t, s, func(tx *Tx) error { return tx.Delete("big") })
	if r := collect(t, s); r.Trees != 1 {
		t.Errorf("%+v", r)
	}
	if _, err := s.loadTree(tree.Digest()); !fault.Is(err, fault.Corrupt) {
		t.Errorf("err = %v", err)
	}
}

// A crash at each step of a redo leaves the old head before the decision, and the new
// one after it.
func TestRedoAfterCrash(t *testing.T) {
	var ops []op
	for i := range 1000 {
		e := Entry{Kind: KindSymlink, Link: fmt.Sprint(i)}
		ops = append(ops, op{key: entryKey("d", fmt.Sprint(i)), value: encodeEntry(&e)})
	}
	d := Entry{Kind: KindDir}
	ops = append(ops, op{key: entryKey("", "d"), value: encodeEntry(&d)}, op{key: entryKey("", "old")}) // a deletion
	steps := []struct {
		name    string
		steps   int
		decided bool
	}{
		{"before the decision", 1, false},
		{"after the decision", 2, true},
		{"half-way through the writes", 3, true},
		{"after all writes but the last", 4, true},
	}
	for _, tt := range steps {
		t.Run(tt.name, func(t *testing.T) {
			dir := memDir(t)
			s := openTest(t, dir)
			old := putFile(t, s, "old", "old")
			c := s.commits // idle: nobody else uses it
			data := encodeOps(ops)
			var head redoHead
			for step := range tt.steps {
				var err error
				switch step {
				case 0:
					err = c.transactions(splitParts([]byte{prefixRedo}, data))
				case 1:
					head = redoHead{Seq: Seq(c.next + 1), Digest: hashing.Sum(data), Commits: []CommitRecord{{}}}
					b, _ := json.Marshal(head)
					err = c.transaction(c.next, []op{{key: keyRedo, value: b}})
				case 2:
					err = c.transaction(uint64(head.Seq), ops[:500])
				case 3:
					err = c.transaction(uint64(head.Seq), ops[500:])
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = openTest(t, dir)
			p := s.PinHead()
			list, err := p.List("d")
			p.Release()
			if err != nil {
				t.Fatal(err)
			}
			if tt.decided && (s.Head() != head.Seq || len(list) != 1000) || !tt.decided && (s.Head() != old || len(list) != 0) {
				t.Errorf("head %d, %d entries", s.Head(), len(list))
			}
			if next := putFile(t, s, "next", "x"); next <= head.Seq {
				t.Errorf("seq %d after %d", next, head.Seq)
			}
			want := 2 // old, next
			if tt.decided {
				want = 1002 // d, what is in it, next
			}
			if got := len(allPaths(t, s)); got != want {
				t.Errorf("%d entries, want %d", got, want)
			}
		})
	}
}
