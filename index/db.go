package index

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"condafs/fault"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
)

const dbName = "db"

// The sizes keep the daemon small: a memory table is allocated whole, and a
// transaction may be 15 % of it.
const (
	memTableSize = 8 << 20
	maxTxnBytes  = memTableSize * 15 / 100
	partSize     = 256 << 10                  // a larger value is stored in parts
	logBytes     = memTableSize + maxTxnBytes // what a log is written to before the next one
)

// dbOptions are those of the database in a directory.
func dbOptions(path string, log *slog.Logger) badger.Options {
	return badger.DefaultOptions(path).
		WithLogger(badgerLog{log}).
		WithSyncWrites(true).
		WithDetectConflicts(false). // there is one writer
		WithNumVersionsToKeep(1).   // below what is pinned, see SetDiscardTs
		WithMemTableSize(memTableSize).
		WithNumMemtables(3).
		WithBaseTableSize(memTableSize).
		WithNumCompactors(2).
		WithBlockCacheSize(4 << 20).
		WithChecksumVerificationMode(options.OnBlockRead).
		WithMetricsEnabled(false).
		// No value is larger than a part, so that none goes to the value log and
		// nothing there has to be collected. The file is there nevertheless.
		WithValueThreshold(partSize + 1<<10).
		WithValueLogFileSize(1 << 20)
}

func openDB(dir string, log *slog.Logger) (db *badger.DB, err error) {
	if _, err := os.Stat(filepath.Join(dir, dbName, badger.ManifestFilename)); err == nil {
		damage, err := checkTables(dir)
		if err != nil {
			return nil, err
		}
		if len(damage) > 0 {
			return nil, fault.New("open store", dir, fault.Corrupt, fmt.Errorf("its database is damaged: %w", damage[0])).
				WithHint(rebuildHint(dir))
		}
	}
	db, err = openBadger(dbOptions(filepath.Join(dir, dbName), log))
	if err != nil {
		e := fault.New("open store", dir, fault.KindOf(err), fmt.Errorf("its database: %w", err))
		switch e.Kind {
		case fault.Full:
			return nil, e.WithHint(hintFull)
		case fault.Busy, fault.Permission, fault.ReadOnly, fault.TooMany:
			return nil, e
		}
		// It says what it does not find or cannot decode in many ways.
		e.Kind = fault.Corrupt
		return nil, e.WithHint(rebuildHint(dir))
	}
	return db, nil
}

// openBadger opens a database. What Badger does not expect makes it panic.
func openBadger(o badger.Options) (db *badger.DB, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	return badger.OpenManaged(o)
}

// view runs fn on what is visible at a timestamp. It keeps Close away meanwhile, so
// fn must not call anything that does the same.
func (s *Store) view(ts uint64, fn func(txn *badger.Txn) error) error {
	s.life.RLock()
	defer s.life.RUnlock()
	if s.closed {
		return errClosed
	}
	txn := s.db.NewTransactionAt(ts, false)
	defer txn.Discard()
	return fn(txn)
}

var errClosed = errors.New("the store is closed")

// dbError tells what could not be read. What Badger cannot decode is corrupt.
func dbError(op, name string, err error) error {
	if errors.Is(err, errClosed) || errors.Is(err, badger.ErrDBClosed) {
		return fault.New(op, name, fault.Stale, errClosed)
	}
	k := fault.KindOf(err)
	if k == fault.Other {
		k = fault.Corrupt
	}
	return fault.New(op, name, k, err)
}

// badgerLog passes on what Badger says. All of it is for those who look into Badger,
// errors apart.
type badgerLog struct{ log *slog.Logger }

func (b badgerLog) at(level slog.Level, format string, args []any) {
	if b.log.Enabled(context.Background(), level) {
		b.log.Log(context.Background(), level, strings.TrimSpace(fmt.Sprintf(format, args...)), "from", "badger")
	}
}

func (b badgerLog) Errorf(format string, args ...any)   { b.at(slog.LevelWarn, format, args) }
func (b badgerLog) Warningf(format string, args ...any) { b.at(slog.LevelDebug, format, args) }
func (b badgerLog) Infof(format string, args ...any)    { b.at(slog.LevelDebug, format, args) }
func (b badgerLog) Debugf(format string, args ...any)   { b.at(slog.LevelDebug, format, args) }
