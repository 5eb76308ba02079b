package index

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
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
	tableSize    = 2 << 20                    // see dbOptions
	partSize     = 256 << 10                  // a larger value is stored in parts
	logBytes     = memTableSize + maxTxnBytes // what a log is written to before the next one
)

// dbOptions are those of the database in a directory.
func dbOptions(path string, log badgerLog) badger.Options {
	o := badger.DefaultOptions(path).
		WithLogger(log).
		WithSyncWrites(true).
		WithDetectConflicts(false). // there is one writer
		WithNumVersionsToKeep(1).   // below what is pinned, see SetDiscardTs
		WithMemTableSize(memTableSize).
		WithNumMemtables(3).
		WithBaseTableSize(tableSize).
		WithNumCompactors(2).
		WithBlockCacheSize(4 << 20).
		WithChecksumVerificationMode(options.OnBlockRead).
		WithMetricsEnabled(false).
		// No value is larger than a part, so that none goes to the value log and
		// nothing there has to be collected. The file is there nevertheless.
		WithValueThreshold(partSize + 1<<10).
		WithValueLogFileSize(1 << 20)
	// A compaction writes up to 13 tables at the same time, in buffers that begin with twice a table's size. By default, tables get
	// larger with each level.
	o.TableSizeMultiplier = 1
	return o
}

func openDB(dir string, log badgerLog) (db *badger.DB, err error) {
	if err := dropEmptyLogs(filepath.Join(dir, dbName)); err != nil {
		return nil, fault.New("open store", dir, fault.Other, err)
	}
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
	db, err = openBadger(dbOptions(filepath.Join(dir, dbName), log), log)
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
func openBadger(o badger.Options, log badgerLog) (*badger.DB, error) {
	if err := makeDiscardFile(o.ValueDir); err != nil {
		return nil, err
	}
	var db *badger.DB
	err := log.unlessStuck(func() (err error) {
		defer func() {
			if r := recover(); r != nil {
				err = fmt.Errorf("%v", r)
			}
		}()
		db, err = badger.OpenManaged(o)
		return err
	})
	if err != nil {
		return nil, err // and db may be written to still
	}
	return db, nil
}

// discardName is where Badger counts what its value log could free, and discardSize that file's size.
const (
	discardName = "DISCARD"
	discardSize = 1 << 20
)

// makeDiscardFile makes the one file whose absence Badger does not report when it can't make it: it ends the process. The file has
// all its blocks, as Badger maps it: to write to a hole of it would be a SIGBUS on a full disk.
func makeDiscardFile(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, discardName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	fi, err := f.Stat()
	if err == nil && fi.Size() == 0 {
		if err = allocate(f, discardSize); err == nil {
			err = f.Truncate(discardSize)
		}
	}
	return errors.Join(err, f.Close())
}

// dropEmptyLogs removes logs without a byte. Badger makes a log and then gives it its
// size: a power failure in between leaves the name alone, which Badger refuses to open.
func dropEmptyLogs(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); ext != ".mem" && ext != ".vlog" {
			continue
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		if fi.Size() == 0 {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
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
//
// Badger writes a full log to a table in the background, and where that fails tries again
// for ever; opening and closing wait for it. It says so only here. Nothing is lost when
// nobody waits, as the log is still there.
type badgerLog struct {
	log   *slog.Logger
	stuck chan error // has room for one
}

func newBadgerLog(log *slog.Logger) badgerLog { return badgerLog{log, make(chan error, 1)} }

// errStuck says that a table cannot be written.
var errStuck = errors.New("a log cannot be written to a table")

// unlessStuck waits for f, which opens or closes a database, as long as tables can be
// written. Otherwise f goes on, to no end.
func (b badgerLog) unlessStuck(f func() error) error {
	select {
	case <-b.stuck: // earlier, and perhaps not any more
	default:
	}
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case err := <-b.stuck:
		return errors.Join(errStuck, err)
	}
}

func (b badgerLog) at(level slog.Level, format string, args []any) {
	if b.log.Enabled(context.Background(), level) {
		b.log.Log(context.Background(), level, strings.TrimSpace(fmt.Sprintf(format, args...)), "from", "badger")
	}
}

func (b badgerLog) Errorf(format string, args ...any) {
	b.at(slog.LevelWarn, format, args)
	if !strings.HasPrefix(format, "error flushing memtable") {
		return
	}
	for _, a := range args {
		if err, ok := a.(error); ok {
			select {
			case b.stuck <- err:
			default: // one is enough
			}
		}
	}
}
func (b badgerLog) Warningf(format string, args ...any) { b.at(slog.LevelDebug, format, args) }
func (b badgerLog) Infof(format string, args ...any)    { b.at(slog.LevelDebug, format, args) }
func (b badgerLog) Debugf(format string, args ...any)   { b.at(slog.LevelDebug, format, args) }
