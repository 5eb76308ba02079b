package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"condafs/fault"
	"condafs/hashing"

	"github.com/dgraph-io/badger/v4"
)

// journalWork is what opening a store finds out about its journal and leaves to be
// done once it takes writes.
type journalWork struct {
	repeat     *record // a commit that the database may have lost, or never had
	checkpoint string  // why the journal must be made anew
}

// settleJournal compares journal and database. The journal is written first, so it
// can be ahead by one commit: a crash came in between. That commit is made again if
// all that it refers to is there, since the database cannot tell whether it never had
// it or lost it. A journal that is further ahead shows that the database has lost
// commits that were promised.
func (s *Store) settleJournal() (w journalWork, err error) {
	numbers, err := segments(s.dir)
	if err != nil {
		return w, err
	}
	j := &s.commits.journal
	if err := j.found(numbers); err != nil {
		return w, err
	}
	last, lastVersion, err := s.versioned(keyJournal, 1)
	if err != nil {
		return w, err
	}
	_, headVersion, err := s.versioned(keyHead, 1)
	if err != nil {
		return w, err
	}
	if lastVersion != headVersion {
		w.checkpoint = "a condafs without a journal has used the store"
		return w, s.adopt(headVersion)
	}
	if j.sum, err = s.sumAt(Seq(latest)); err != nil {
		return w, err
	}
	j.last = last[0]
	t, err := readTail(s.dir, numbers)
	if err != nil {
		return w, err
	}
	var lost []record
	newest := t.known
	for _, r := range t.beyond {
		newest = max(newest, r.seq)
		if r.seq > j.last {
			lost = append(lost, r)
		}
	}
	if len(lost) == 1 {
		w.repeat = &lost[0]
	}
	switch {
	case t.known > j.last || len(lost) > 1:
		return w, fault.New("open store", s.dir, fault.Corrupt, errors.New("its database has lost commits that its journal has")).
			WithHint(rebuildHint(s.dir))
	case newest < j.last:
		w.checkpoint = "the journal has lost commits that the database has"
	case headVersion > 0 && !t.whole:
		w.checkpoint = "the journal is damaged"
	}
	return w, nil
}

// rebuildHint tells what to do about a database that is lost.
func rebuildHint(dir string) string {
	if numbers, err := segments(dir); err == nil && len(numbers) == 0 {
		return "restore db/ from a backup, or import the packages into a new store"
	}
	return "`condafs rebuild --store " + dir + "` makes it anew"
}

// finishJournal does what settleJournal has found.
func (s *Store) finishJournal(w journalWork) error {
	if w.repeat != nil {
		if err := s.repeatCommit(*w.repeat); err != nil {
			return err
		}
	}
	if w.checkpoint == "" {
		return nil
	}
	s.log.Warn("writing the journal anew", "why", w.checkpoint)
	return s.checkpoint(s.ending)
}

// repeatCommit makes a commit again that was interrupted. It is given up if some of
// its content is not there: then nobody was told that it was made.
func (s *Store) repeatCommit(r record) error {
	_, commits, ops, err := decodeCommit(r.payload)
	if err != nil {
		return fault.New("repeat commit", s.dir, fault.Corrupt, err)
	}
	var info CommitInfo
	for i, c := range commits {
		if i == 0 {
			info = c.CommitInfo
			continue
		}
		info.What = append(info.What, c.What...)
	}
	_, err = s.Update(context.Background(), info, func(tx *Tx) error { return s.repeatOps(tx, ops) })
	if err != nil {
		s.log.Warn("a commit that was interrupted is given up", "what", info.What, "err", err)
		return s.commits.failure()
	}
	s.log.Info("a commit that was interrupted is made", "what", info.What)
	return nil
}

func (s *Store) repeatOps(tx *Tx, ops []op) error {
	// Parents before what is in them, and deletions first: a directory goes before
	// what takes its place is put.
	slices.SortFunc(ops, func(a, b op) int { return bytes.Compare(a.key, b.key) })
	for _, put := range []bool{false, true} {
		for _, o := range ops {
			if o.key[0] != prefixEntry || put != (o.value != nil) {
				continue
			}
			path, ok := splitEntryKey(o.key)
			if !ok {
				return fault.New("repeat commit", s.dir, fault.Corrupt, fmt.Errorf("key %q", o.key))
			}
			if !put {
				if err := tx.Delete(path); err != nil {
					return err
				}
				continue
			}
			e, err := decodeEntry(o.value)
			if err == nil && e.Kind == KindTree {
				err = s.repeatTree(tx, e.Digest)
			}
			if err == nil {
				err = tx.Put(path, e)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// repeatTree puts a tree that only its file may have.
func (s *Store) repeatTree(tx *Tx, d hashing.Digest) error {
	found, err := s.hasTree(d)
	if err != nil || found {
		return err
	}
	b, err := s.readTreeFile(d)
	if err != nil {
		return err
	}
	t, err := DecodeTree(b)
	if err == nil {
		_, err = tx.PutTree(t)
	}
	return err
}

// adopt makes head one that the journal knows: its sum is written at its own version.
func (s *Store) adopt(head uint64) error {
	sum, err := s.sumOf(s.ending, Seq(head))
	if err == nil {
		err = s.space.allocateLog()
	}
	if err == nil {
		err = s.commits.transaction(head, []op{{key: keySum, value: sum.encode()}, {key: keyJournal, value: putNumbers(head)}})
	}
	if err != nil {
		return fault.New("begin journal", s.dir, fault.Other, err)
	}
	s.commits.journal.committed(head, sum)
	return nil
}

// versioned reads a value of n numbers, and its version; both are 0 if it was never
// written.
func (s *Store) versioned(key []byte, n int) (ns []uint64, version uint64, err error) {
	err = s.view(latest, func(txn *badger.Txn) error {
		item, err := txn.Get(key)
		if errors.Is(err, badger.ErrKeyNotFound) {
			return nil
		}
		if err == nil {
			version = item.Version()
		}
		return err
	})
	if err != nil {
		return nil, 0, dbError("open store", s.dir, err)
	}
	ns, err = s.numbersAt(latest, key, n)
	return ns, version, err
}

// checkDatabase finds a store that lost its database: Badger would quietly make an
// empty one, and the next collection would remove every blob.
func (s *Store) checkDatabase() error {
	if _, err := os.Stat(filepath.Join(s.dir, dbName, "MANIFEST")); err == nil {
		return nil
	}
	lost := fault.New("open store", s.dir, fault.Corrupt, errors.New("it has content but no database in db/")).WithHint(rebuildHint(s.dir))
	if numbers, err := segments(s.dir); err != nil || len(numbers) > 0 {
		return errors.Join(err, lost)
	}
	shards, err := os.ReadDir(filepath.Join(s.dir, objectsName))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fault.New("open store", s.dir, fault.Other, err)
	}
	for _, d := range shards {
		blobs, err := os.ReadDir(filepath.Join(s.dir, objectsName, d.Name()))
		if err != nil || len(blobs) > 0 {
			return lost
		}
	}
	return nil
}
