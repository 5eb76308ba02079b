package shelf

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"condafs/fault"
	"condafs/hashing"
	"condafs/index"
)

// Mode says whether there is a shelf, and how its files get their bytes.
type Mode string

const (
	Auto    Mode = "auto" // Reflink where the file system can, else Link
	Off     Mode = "off"
	Link    Mode = "link"
	Reflink Mode = "reflink"
	Copy    Mode = "copy"
)

// Modes are the values of Mode, the default first.
var Modes = []Mode{Auto, Off, Link, Reflink, Copy}

// Options say what belongs on the shelf.
type Options struct {
	Mode Mode
	// Name is the shelf's directory in the store.
	Name string
	// From is the directory of the index whose packages go onto the shelf.
	From string
	// Wanted tells which of them do.
	Wanted func(e *index.Entry) bool
	// AllUsers lets every user of the host read the shelf; otherwise only the owner
	// of the store can.
	AllUsers bool
	Logger   *slog.Logger
	// Image, if not nil, is what another program knew of the shelf. Until Continue
	// nothing changes on it.
	Image *Image
}

// Shelf is the directory of published packages. It is safe for concurrent use.
type Shelf struct {
	store   *index.Store
	o       Options
	log     *slog.Logger
	sharing index.Sharing
	dir     string

	ctx  context.Context
	stop context.CancelFunc
	done chan struct{}
	wake chan struct{}
	turn sync.Mutex // held by who compares all of the shelf with the head; before work
	work sync.Mutex // held for each single change of what is on the shelf

	mu      sync.Mutex
	known   map[string]*shelved // by name
	gen     uint64              // counts up with each change
	tickets map[*Ticket]struct{}
	all     bool // look at everything
	ready   bool // what an earlier daemon had shelved is known
	full    bool // the last try to shelve failed, and was logged
}

// shelved is a package on the shelf.
type shelved struct {
	tree    hashing.Digest
	since   uint64 // generation
	leaving uint64 // generation; 0 while it stays
}

const (
	pkgsName  = "pkgs"
	treesName = "trees"
	newName   = "new"
	graveName = "grave"
	bootName  = "boot" // the run of the machine in which all of the shelf was written or synced
	urlsName  = "urls.txt"
)

// Open takes up the shelf of a store, and makes one if there is none. What changes on
// it changes in the background until Close. With mode Off it removes the shelf, and
// returns nil.
func Open(store *index.Store, o Options) (*Shelf, error) {
	s := &Shelf{
		store: store, o: o, log: o.Logger, dir: filepath.Join(store.Dir(), o.Name),
		wake:  make(chan struct{}, 1),
		known: make(map[string]*shelved), tickets: make(map[*Ticket]struct{}), all: true,
	}
	if o.Mode == Off {
		return nil, s.demolish()
	}
	var err error
	if s.sharing, err = s.choose(); err != nil {
		return nil, err
	}
	if err := s.distrust(); err != nil {
		return nil, err
	}
	if err := s.build(); err != nil {
		return nil, err
	}
	if o.Image != nil {
		s.restore(o.Image)
		return s, nil
	}
	s.Continue()
	return s, nil
}

// choose finds how files get their bytes.
func (s *Shelf) choose() (index.Sharing, error) {
	switch s.o.Mode {
	case Copy:
		return index.Copy, nil
	case Link:
		return index.Link, nil
	}
	can, err := s.store.CanReflink()
	switch {
	case err != nil:
		return 0, err
	case can:
		return index.Reflink, nil
	case s.o.Mode == Reflink:
		return 0, fault.New("open shelf", s.dir, fault.Unsupported, errors.New("its file system has no reflinks")).WithHint("use --shelf=auto")
	}
	return index.Link, nil
}

// build makes the directories.
func (s *Shelf) build() error {
	outer := fs.FileMode(0o700)
	if s.o.AllUsers {
		outer = 0o711
		if err := s.store.LetThrough(); err != nil {
			return err
		}
	}
	for name, mode := range map[string]fs.FileMode{"": outer, pkgsName: 0o755, treesName: 0o700, newName: 0o700, graveName: 0o700} {
		dir := filepath.Join(s.dir, name)
		err := os.Mkdir(dir, 0o700)
		if errors.Is(err, fs.ErrNotExist) {
			err = os.MkdirAll(dir, 0o700)
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return fault.New("make shelf", dir, fault.Other, err)
		}
		if err := os.Chmod(dir, mode); err != nil {
			return fault.New("make shelf", dir, fault.Other, err)
		}
	}
	if err := os.WriteFile(filepath.Join(s.dir, bootName), []byte(index.BootID()), 0o600); err != nil {
		return fault.New("make shelf", s.dir, fault.Other, err)
	}
	return s.forbid()
}

// Path is the package directory that clients are given.
func (s *Shelf) Path() string { return filepath.Join(s.dir, pkgsName) }

// From is the directory of the index whose packages go onto the shelf.
func (s *Shelf) From() string { return s.o.From }

// Sharing tells how new files get their bytes.
func (s *Shelf) Sharing() index.Sharing { return s.sharing }

// Count returns how many packages are on the shelf.
func (s *Shelf) Count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.known)
}

// Offer says that packages of the head may belong on the shelf. When it returns they are
// there, or never will be, or a later try will put them there.
func (s *Shelf) Offer(names ...string) {
	err := s.load()
	if err == nil {
		head := s.store.PinHead()
		err = s.take(head, names)
		head.Release()
	}
	if err != nil {
		s.complain(err)
		s.Sync()
	}
}

// Sync has the shelf compared with the head, after more than single offers: an import,
// a collection.
func (s *Shelf) Sync() {
	s.mu.Lock()
	s.all = true
	s.mu.Unlock()
	s.nudge()
}

func (s *Shelf) nudge() {
	select {
	case s.wake <- struct{}{}:
	default: // it is awake, or about to be
	}
}

// retry is how long to wait before what failed, on a full disk say, is tried again.
const retry = time.Minute

func (s *Shelf) run() {
	defer close(s.done)
	for {
		err := s.Settled()
		if err != nil && s.ctx.Err() == nil {
			s.complain(err)
		}
		var again <-chan time.Time
		if err != nil {
			again = time.After(retry)
		}
		select {
		case <-s.wake:
		case <-again:
			s.Sync()
		case <-s.ctx.Done():
			return
		}
	}
}

// complain logs the first of the failures that come one after the other.
func (s *Shelf) complain(err error) {
	s.mu.Lock()
	first := !s.full
	s.full = true
	s.mu.Unlock()
	if first {
		s.log.Warn("packages could not be put on the shelf; clients find them on the mount", "error", err)
	}
}

// Settled brings the shelf up to date, as is done in the background, too, and returns
// when it is.
func (s *Shelf) Settled() error {
	s.turn.Lock()
	defer s.turn.Unlock()
	if err := s.load(); err != nil {
		return err
	}
	for {
		s.mu.Lock()
		all := s.all
		s.all = false
		s.mu.Unlock()
		var err error
		if all {
			head := s.store.PinHead()
			err = s.compare(head)
			head.Release()
			s.mu.Lock()
			s.full = s.full && err != nil
			s.mu.Unlock()
		}
		// A full disk is no reason to keep what may go.
		left, leaveErr := s.leave()
		if err = errors.Join(err, leaveErr); err != nil || !left {
			return err
		}
		// What has left may have come back to the head meanwhile.
		s.Sync()
	}
}

// load finds what an earlier daemon has left.
func (s *Shelf) load() error {
	s.work.Lock()
	defer s.work.Unlock()
	if s.ready {
		return nil
	}
	for _, name := range []string{newName, graveName} {
		if err := s.empty(name); err != nil {
			return err
		}
	}
	trees, err := os.ReadDir(filepath.Join(s.dir, treesName))
	if err != nil {
		return fault.New("read shelf", s.dir, fault.Other, err)
	}
	found, leaving := make(map[string]*shelved), make(map[string]bool)
	for _, t := range trees {
		link, err := os.Readlink(filepath.Join(s.dir, treesName, t.Name()))
		if err != nil {
			return fault.New("read shelf", t.Name(), fault.Other, err)
		}
		link, leaving[t.Name()] = strings.CutPrefix(link, leavingMark)
		if d, err := hashing.ParseDigest(link); err == nil {
			found[t.Name()] = &shelved{tree: d}
		}
	}
	list, err := os.ReadDir(s.Path())
	if err != nil {
		return fault.New("read shelf", s.dir, fault.Other, err)
	}
	there := make(map[string]bool)
	for _, e := range list {
		there[e.Name()] = true
		if e.Name() != urlsName && found[e.Name()] == nil {
			// Not ours, or its mark was lost.
			s.log.Warn("removed from the shelf: it was not put there by condafs", "name", e.Name())
			if err := s.bury(e.Name()); err != nil {
				return err
			}
		}
	}
	for name := range found {
		if !there[name] {
			delete(found, name)
			if err := s.forget(name); err != nil {
				return err
			}
		} else if leaving[name] {
			if err := s.takeRecord(name); err != nil {
				return fault.New("take from shelf", name, fault.Other, err)
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// Sessions that an earlier daemon began see everything on the mount. They have tickets of an earlier generation: their processes may
	// use what leaves.
	s.gen++
	for name, k := range found {
		k.since = s.gen
		if leaving[name] {
			k.leaving = s.gen
		}
		s.known[name] = k
	}
	s.ready = true
	return nil
}

// Close waits for what goes on in the background. The shelf stays as it is.
func (s *Shelf) Close() {
	if s.stop != nil {
		s.stop()
		<-s.done
	}
}

// distrust removes a shelf that the machine may have lost a part of: names and bytes
// on it are not synced before the store is closed.
func (s *Shelf) distrust() error {
	boot, err := os.ReadFile(filepath.Join(s.dir, bootName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.New("open shelf", s.dir, fault.Other, err)
	}
	if err == nil && (!s.store.Interrupted() || string(boot) == index.BootID()) {
		return s.clear()
	}
	return s.demolish()
}

// demolish takes the shelf away, at once and whole, and removes it.
func (s *Shelf) demolish() error {
	if err := s.clear(); err != nil {
		return err
	}
	if err := os.Rename(s.dir, s.dir+oldSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.New("remove shelf", s.dir, fault.Other, err)
	}
	return s.clear()
}

const oldSuffix = ".old"

// clear removes what demolish has left when it was interrupted.
func (s *Shelf) clear() error {
	old := s.dir + oldSuffix
	if err := removeAll(old); err != nil {
		return fault.New("remove shelf", old, fault.Other, err)
	}
	return nil
}

// removeAll is os.RemoveAll for trees of read-only directories.
func removeAll(dir string) error {
	err := os.RemoveAll(dir)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	walk := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return os.Chmod(path, 0o700)
	})
	return errors.Join(walk, os.RemoveAll(dir))
}

// empty removes what is in a directory of the shelf.
func (s *Shelf) empty(name string) error {
	dir := filepath.Join(s.dir, name)
	list, err := os.ReadDir(dir)
	if err != nil {
		return fault.New("empty", dir, fault.Other, err)
	}
	for _, e := range list {
		if err := removeAll(filepath.Join(dir, e.Name())); err != nil {
			return fault.New("empty", dir, fault.Other, err)
		}
	}
	return nil
}

// fresh returns an unused name in new/ or grave/.
func (s *Shelf) fresh(in string) string {
	return filepath.Join(s.dir, in, fmt.Sprintf("%x", time.Now().UnixNano()))
}
