package index

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"condafs/fault"
	"condafs/hashing"
	"condafs/internal/failpoint"

	"github.com/dgraph-io/badger/v4"
)

// Options are what a caller may choose. The zero value is fine.
type Options struct {
	Logger *slog.Logger // nil means slog.Default
	// Inherit is what another process that had the store open hands over, or nil.
	Inherit *Inheritance
}

// Inheritance is what must not be given up between two processes that have a store open
// one after the other.
type Inheritance struct {
	Lock *os.File // see Store.LockFile; the store's from then on
	Pins []Seq    // states that stay readable until Inherited takes them, each as often as it is here
}

// Store is an open store. Its methods are safe for concurrent use.
type Store struct {
	dir  string
	id   identity
	log  *slog.Logger
	lock *os.File
	root *os.File // dir itself, for syncfs
	db   *badger.DB
	says badgerLog

	damaged atomic.Pointer[func(d hashing.Digest)] // see OnDamaged
	inherit *Inheritance

	life   sync.RWMutex // read-held while the database is used
	closed bool
	ending context.Context // done when Close begins: long work stops
	end    context.CancelFunc

	pins    *pins
	held    *held
	naming  naming
	trees   *treeCache
	commits *committer
	space   space
	gc      sync.Mutex // one collection at a time
	trusted int64      // see lifetime.Since
	// interrupted: the store was not closed the last time.
	interrupted bool

	checkpointed checkpointed
	givenUp      sync.Map // digests of blobs that only older states need, and nobody has

	blobs atomic.Int64 // in objects/; exact after a collection, near otherwise
	bytes atomic.Int64
}

// Open opens the store in dir, and makes one if dir is missing or empty. Kinds of
// errors: Usage for a directory that is something else, Version for another format,
// Busy when another daemon holds it, ReadOnly, Permission, Full, Corrupt.
func Open(dir string, o Options) (*Store, error) {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fault.New("open store", dir, fault.Other, err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fault.New("open store", dir, fault.Other, err).WithHint(hintNoStore)
	}
	if err := checkOwner(dir); err != nil {
		return nil, err
	}
	// Before the lock file: nothing is made in a directory that is something else.
	if _, _, err := readIdentity(dir); err != nil {
		return nil, err
	}
	s := &Store{dir: dir, log: o.Logger, inherit: o.Inherit, held: newHeld(), trees: newTreeCache(), space: space{dir: dir}, says: newBadgerLog(o.Logger)}
	s.ending, s.end = context.WithCancel(context.Background())
	if err := s.open(); err != nil {
		s.end()
		return nil, errors.Join(err, s.release())
	}
	return s, nil
}

func (s *Store) open() (err error) {
	if in := s.inherit; in != nil {
		s.lock = in.Lock
	} else if s.lock, err = lockStore(s.dir); err != nil {
		return err
	}
	if s.root, err = os.Open(s.dir); err != nil {
		return fault.New("open store", s.dir, fault.Other, err)
	}
	id, ok, err := readIdentity(s.dir) // again, now that nobody else makes it
	if err == nil && !ok {
		id, err = writeIdentity(s.dir)
	}
	if err != nil {
		return err
	}
	s.id = id
	if err := s.checkDatabase(); err != nil {
		return err
	}
	if err := s.makeDirs(); err != nil {
		return err
	}
	failpoint.Hit(failpoint.OpenDirs, s.dir)
	if err := s.space.requireForOpening(); err != nil {
		return err
	}
	if s.db, err = openDB(s.dir, s.says); err != nil {
		return err
	}
	// Badger has made its own files durable. The name of their directory must be so before anything else can be: content without
	// a database is a store that has lost it. Each time, since whoever made it may have been killed here.
	if err := s.root.Sync(); err != nil {
		return fault.New("open store", s.dir, fault.Other, err)
	}
	failpoint.Hit(failpoint.OpenDatabase, s.dir)
	s.pins = newPins(func(seq Seq) { s.db.SetDiscardTs(uint64(seq)) })
	if in := s.inherit; in != nil {
		s.pins.inherit(in.Pins)
	}
	s.commits = newCommitter(s, s.db.MaxVersion())
	if err := s.recover(); err != nil {
		return err
	}
	work, err := s.settleJournal()
	if err != nil {
		return err
	}
	failpoint.Hit(failpoint.OpenRecovered, s.dir)
	if err := s.beginLifetime(); err != nil {
		return err
	}
	failpoint.Hit(failpoint.OpenMarked, s.dir)
	if err := s.space.makeReserve(); err != nil {
		return err
	}
	s.commits.start()
	if err := s.finishJournal(work); err != nil {
		s.commits.stop()
		return err
	}
	return nil
}

func (s *Store) makeDirs() error {
	// What is in staging belonged to a daemon that is gone.
	if err := os.RemoveAll(s.StagingDir()); err != nil {
		return fault.New("empty staging", s.dir, fault.Other, err)
	}
	for _, name := range []string{objectsName, treesName, journalName, stagingName, sessionsName, quarantineName} {
		if err := os.Mkdir(filepath.Join(s.dir, name), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return fault.New("make store", s.dir, fault.Other, err)
		}
	}
	if _, err := os.Lstat(filepath.Join(s.dir, objectsName, "ff")); err == nil {
		return nil // the last of them is there
	}
	for i := range 256 {
		err := os.Mkdir(filepath.Join(s.dir, objectsName, fmt.Sprintf("%02x", i)), 0o700)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return fault.New("make store", s.dir, fault.Other, err)
		}
	}
	return nil
}

// recover takes up what the last daemon left in the database.
func (s *Store) recover() error {
	counts, err := s.numbers(keyCounts, 2)
	if err != nil {
		return err
	}
	s.blobs.Store(int64(counts[0]))
	s.bytes.Store(int64(counts[1]))
	if err := s.commits.finishRedo(); err != nil {
		return err
	}
	head, err := s.numbers(keyHead, 1)
	if err != nil {
		return err
	}
	sessions, err := s.Sessions()
	if err != nil {
		return err
	}
	for _, r := range sessions {
		s.pins.sessions[r.ID] = r.Seq // nobody else is here yet
	}
	s.pins.setHead(Seq(head[0]))
	return nil
}

// numbers reads the newest value of n numbers; they are 0 if it was never written.
func (s *Store) numbers(key []byte, n int) ([]uint64, error) { return s.numbersAt(latest, key, n) }

func (s *Store) numbersAt(ts uint64, key []byte, n int) ([]uint64, error) {
	out := make([]uint64, n)
	err := s.view(ts, func(txn *badger.Txn) error {
		item, err := txn.Get(key)
		if errors.Is(err, badger.ErrKeyNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		return item.Value(func(b []byte) error {
			if len(b) != 8*n {
				return fmt.Errorf("%q has %d bytes", key, len(b))
			}
			for i := range out {
				out[i] = binary.BigEndian.Uint64(b[8*i:])
			}
			return nil
		})
	})
	if err != nil {
		return nil, dbError("open store", s.dir, err)
	}
	return out, nil
}

func putNumbers(ns ...uint64) []byte {
	b := make([]byte, 0, 8*len(ns))
	for _, n := range ns {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return b
}

// Close waits for the updates that were queued, and closes the store. Afterwards
// every method fails as fault.Stale. A second Close does nothing.
func (s *Store) Close() error {
	s.end()
	s.commits.stop()
	failpoint.Hit(failpoint.CloseDrained, s.dir)
	s.life.Lock()
	defer s.life.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	errReserve := s.space.freeReserve()
	return errors.Join(errReserve, s.endLifetime(), s.release())
}

// release gives back whatever was taken.
func (s *Store) release() error {
	var errs []error
	if s.commits != nil {
		errs = append(errs, s.commits.journal.rotate(0))
	}
	if s.db != nil {
		err := s.says.unlessStuck(s.db.Close)
		if err != nil {
			errs = append(errs, fault.New("close store", s.dir, fault.Other, err))
		}
		if errors.Is(err, errStuck) {
			return errors.Join(errs...) // and so keeps the lock as long as this process lives
		}
	}
	for _, f := range []*os.File{s.root, s.lock} {
		if f == nil {
			continue
		}
		if err := f.Close(); err != nil {
			errs = append(errs, fault.New("close store", s.dir, fault.Other, err))
		}
	}
	return errors.Join(errs...)
}

// LockFile is what keeps other processes from opening the store. A process that gets
// a copy of it, and opens the store with that, takes its place.
func (s *Store) LockFile() *os.File { return s.lock }

// Dir returns the store's directory, absolute.
func (s *Store) Dir() string { return s.dir }

// LetThrough lets other users of the host pass through the store's directory, to what
// in it is for them. They can't list it, and all of condafs's own directories in it
// stay closed.
func (s *Store) LetThrough() error {
	fi, err := os.Stat(s.dir)
	if err == nil {
		err = os.Chmod(s.dir, fi.Mode().Perm()|0o011)
	}
	if err != nil {
		return fault.New("open store", s.dir, fault.Other, err)
	}
	return nil
}

// UUID returns what tells this store from every other.
func (s *Store) UUID() string { return s.id.UUID }

const (
	objectsName    = "objects"
	stagingName    = "staging"
	sessionsName   = "sessions"
	quarantineName = "quarantine"
)

// StagingDir is where files can be written that AdoptFile takes. It is emptied when
// the store is opened.
func (s *Store) StagingDir() string { return filepath.Join(s.dir, stagingName) }

// SessionDir is where a session keeps its overlay. The caller makes and removes it.
func (s *Store) SessionDir(id string) string { return filepath.Join(s.dir, sessionsName, id) }

// QuarantineDir is where the content of a quarantine record goes. The caller makes
// it; RemoveQuarantine removes it.
func (s *Store) QuarantineDir(id string) string { return filepath.Join(s.dir, quarantineName, id) }
