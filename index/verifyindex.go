package index

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"condafs/fault"
	"condafs/hashing"

	"github.com/dgraph-io/badger/v4"
)

const (
	hintRebuild = "unmount, and run condafs rebuild"
	hintJournal = "condafs repair writes it anew"
)

var errHeadLost = fault.New("", "", fault.Corrupt, errors.New("head has lost entries, or has some that were deleted"))

// checkIndex looks for damage to the database.
func (v *verification) checkIndex(ctx context.Context) error {
	damage, err := v.store.checkDatabaseFiles(ctx, v.options.Full)
	if err != nil {
		return err
	}
	for _, d := range damage {
		v.add(damagedIndex(d.file, d.err))
	}
	whole, err := v.store.checkSum(ctx)
	if err == nil && !whole {
		err = errHeadLost
	}
	if fault.Is(err, fault.Corrupt) {
		v.add(damagedIndex(dbName, err))
		return nil
	}
	return err
}

// checkDatabaseFiles looks at the files of an open database: whether they are there
// and their ends are sound, and with full at every block. Badger changes them at any
// time, so damage counts only if it is there at the second look, too.
func (s *Store) checkDatabaseFiles(ctx context.Context, full bool) ([]tableDamage, error) {
	var before []tableDamage
	for look := range 2 {
		damage, err := s.databaseDamage(ctx, full)
		if err != nil || len(damage) == 0 {
			return nil, err
		}
		if look == 1 {
			return slices.DeleteFunc(damage, func(d tableDamage) bool {
				return !slices.ContainsFunc(before, func(b tableDamage) bool { return b.file == d.file })
			}), nil
		}
		before = damage
	}
	return nil, nil
}

func (s *Store) databaseDamage(ctx context.Context, full bool) (damage []tableDamage, err error) {
	if full {
		damage, err = verifyTables(ctx, s.dir, nil)
	} else {
		damage, err = checkTables(s.dir)
	}
	if err != nil {
		return nil, err
	}
	named, err := manifestTables(s.dir)
	if err != nil {
		return damage, nil // in damage already
	}
	for _, id := range s.openTables() {
		if _, ok := named[id]; !ok {
			damage = append(damage, tableDamage{dbName + "/" + badger.ManifestFilename, fmt.Errorf("it does not name table %d", id)})
		}
	}
	return damage, nil
}

// openTables lists the tables that the open database works with.
func (s *Store) openTables() []uint64 {
	s.life.RLock()
	defer s.life.RUnlock()
	if s.closed {
		return nil
	}
	var ids []uint64
	for _, t := range s.db.Tables() {
		ids = append(ids, t.ID)
	}
	return ids
}

// checkJournal looks for damage to the journal and the trees beside it.
func (v *verification) checkJournal(ctx context.Context) error {
	if err := v.checkSegments(ctx); err != nil {
		return err
	}
	if err := v.foreignIn(journalName, func(name string) bool {
		return strings.Trim(name, "0123456789abcdef") == "" && len(name) == len(segmentName(0))
	}); err != nil {
		return err
	}
	if err := v.foreignIn(treesName, func(name string) bool {
		_, err := hashing.ParseDigest(name)
		return err == nil
	}); err != nil {
		return err
	}
	return v.checkTreeFiles(ctx)
}

// checkSegments reads the journal as it is at one moment.
func (v *verification) checkSegments(ctx context.Context) error {
	s := v.store
	s.checkpointed.mu.Lock() // no segment goes meanwhile
	defer s.checkpointed.mu.Unlock()
	var now journal
	if _, err := s.commits.do(ctx, &request{alone: true, prepare: func(*batch) error {
		now = s.commits.journal
		return nil
	}}); err != nil {
		return err
	}
	numbers, err := segments(s.dir)
	if err != nil {
		return err
	}
	h := new(history)
	for _, n := range numbers {
		if err := ctx.Err(); err != nil {
			return err
		}
		if n > now.number {
			break
		}
		seg, err := readSegmentBy(v.readFile, s.dir, n)
		if err != nil {
			return err
		}
		h.add(seg)
	}
	for _, d := range h.damage {
		v.add(Problem{Kind: Journal, File: journalName + "/" + segmentName(d.number), Detail: d.what + "; " + hintJournal})
	}
	if h.before(now.last) != now.sum {
		v.add(Problem{Kind: Journal, File: journalName, Detail: "its last records are lost; " + hintJournal})
	}
	return nil
}

func (v *verification) foreignIn(dir string, ours func(name string) bool) error {
	names, err := os.ReadDir(filepath.Join(v.store.dir, dir))
	if errors.Is(err, fs.ErrNotExist) {
		v.add(Problem{Kind: Journal, File: dir, Detail: "the directory is not there; " + hintJournal})
		return nil
	}
	if err != nil {
		return fault.New("list", dir, fault.Other, err)
	}
	for _, e := range names {
		if !e.Type().IsRegular() || !ours(e.Name()) {
			v.add(foreign(dir + "/" + e.Name()))
		}
	}
	return nil
}

// checkTreeFiles looks whether the trees of head are beside the journal.
func (v *verification) checkTreeFiles(ctx context.Context) error {
	for d := range v.headTrees {
		if err := ctx.Err(); err != nil {
			return err
		}
		file := treesName + "/" + d.String()
		if !v.options.Full {
			if _, err := os.Lstat(filepath.Join(v.store.dir, file)); errors.Is(err, fs.ErrNotExist) {
				v.add(Problem{Kind: Journal, Digest: d, File: file, Detail: "it is not there; " + hintJournal})
			}
			continue
		}
		_, err := v.store.readTreeFileBy(v.readFile, d)
		if fault.Is(err, fault.Corrupt) {
			v.add(Problem{Kind: Journal, Digest: d, File: file, Detail: err.Error() + "; " + hintJournal})
		} else if err != nil {
			return err
		}
	}
	return nil
}
