package index

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"condafs/fault"
	"condafs/hashing"
	"condafs/internal/failpoint"

	"golang.org/x/sys/unix"
)

// RebuildReport tells what a rebuilt database is made of.
type RebuildReport struct {
	Commits int64  `json:"commits"` // read from the journal, a checkpoint apart
	Entries int64  `json:"entries"` // of the new head
	Trees   int64  `json:"trees"`
	Blobs   int64  `json:"blobs"` // in objects/, not looked into
	Head    Seq    `json:"head"`
	Aside   string `json:"aside,omitempty"` // where the old database is now, relative to the store
	// Exact says that head is, entry by entry, what the last commit in the journal
	// had made it.
	Exact  bool     `json:"exact"`
	Damage []string `json:"damage,omitempty"` // what could not be read of the journal
	// LostTrees are entries whose manifest is lost. They are in head until a repair
	// takes them out.
	LostTrees []string `json:"lost_trees,omitempty"`
}

const newDBName = dbName + ".new"

// Rebuild makes the database of the store in dir anew from its journal. The old one
// is put aside; nothing else is changed, and no blob is looked into: Verify does that.
// It fails as fault.Busy if somebody has the store open, and as fault.Corrupt if there
// is no journal. A rebuild that was interrupted is begun again from the start.
//
// Sessions that were recorded go on over the new head, as the snapshots that they had
// are not in the journal.
func Rebuild(ctx context.Context, dir string, log *slog.Logger, progress func(phase string, done, total int64)) (*RebuildReport, error) {
	if log == nil {
		log = slog.Default()
	}
	if progress == nil {
		progress = func(string, int64, int64) {}
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fault.New("rebuild store", dir, fault.Other, err)
	}
	numbers, err := segments(dir)
	if err == nil && len(numbers) == 0 {
		err = fault.New("rebuild store", dir, fault.Corrupt, errors.New("it has no journal")).WithHint(rebuildHint(dir))
	}
	if err != nil {
		return nil, err
	}
	lock, err := lockStore(dir)
	if err != nil {
		return nil, err
	}
	r := &rebuilding{ctx: ctx, dir: dir, log: log, progress: progress}
	err = r.run()
	if cerr := lock.Close(); err == nil && cerr != nil {
		err = cerr
	}
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, fault.New("rebuild store", dir, fault.Canceled, context.Cause(ctx)).WithHint("nothing is changed yet")
	case err != nil:
		return nil, fault.New("rebuild store", dir, fault.Other, err)
	}
	return &r.report, nil
}

type rebuilding struct {
	ctx      context.Context
	dir      string
	log      *slog.Logger
	progress func(phase string, done, total int64)
	history  *history
	store    *Store // over the new database; nobody else knows it
	report   RebuildReport
}

func (r *rebuilding) run() (err error) {
	r.history, err = readHistory(r.dir, func(done, total int64) { r.progress("reading the journal", done, total) })
	if err != nil {
		return err
	}
	for _, d := range r.history.damage {
		r.report.Damage = append(r.report.Damage, d.String())
	}
	if len(r.history.records) == 0 && r.history.uuid == "" {
		return fault.New("read journal", r.dir, fault.Corrupt, errors.New("nothing in it can be read")).
			WithHint("restore the store from a backup, or import the packages into a new one")
	}
	if err := r.identify(); err != nil {
		return err
	}
	fresh := filepath.Join(r.dir, newDBName)
	if err := os.RemoveAll(fresh); err != nil { // of a rebuild that was interrupted
		return err
	}
	if err := r.fill(fresh); err != nil {
		return errors.Join(err, os.RemoveAll(fresh))
	}
	return r.place(fresh)
}

// identify makes sure that the store says what it is: the journal knows, too.
func (r *rebuilding) identify() error {
	id, ok, err := readIdentity(r.dir)
	switch {
	case fault.Is(err, fault.Version):
		return err
	case err == nil && ok && (r.history.uuid == "" || id.UUID == r.history.uuid):
		return nil
	case err == nil && ok:
		return fault.New("read journal", r.dir, fault.Corrupt, fmt.Errorf("it is that of another store, %s", r.history.uuid))
	case r.history.uuid == "":
		return err
	}
	r.log.Warn("the file that says which store it is was lost", "store", r.dir, "uuid", r.history.uuid)
	_, err = writeIdentityOf(r.dir, r.history.uuid)
	return err
}

// fill makes the new database.
func (r *rebuilding) fill(fresh string) (err error) {
	s := &Store{dir: r.dir, log: r.log, held: newHeld(), trees: newTreeCache(), space: space{dir: r.dir}, says: newBadgerLog(r.log)}
	s.ending, s.end = context.WithCancel(context.Background())
	defer s.end()
	var bytes int64
	for _, rec := range r.history.records {
		bytes += int64(len(rec.payload))
	}
	if err := s.space.freeReserve(); err != nil {
		return err
	}
	if err := s.space.require(4*bytes + reserveSize); err != nil {
		return err
	}
	// Synced as a whole, at the end.
	if s.db, err = openBadger(dbOptions(fresh, s.says).WithSyncWrites(false), s.says); err != nil {
		return err
	}
	defer func() {
		if s.db != nil {
			err = errors.Join(err, s.says.unlessStuck(s.db.Close))
		}
	}()
	failpoint.Hit(failpoint.RebuildBegun, r.dir)
	s.commits = newCommitter(s, 0)
	s.pins = newPins(func(Seq) {})
	r.store = s
	for _, step := range []func() error{r.replay, r.bringTrees, r.count, r.finish} {
		if err := step(); err != nil {
			return err
		}
	}
	db := s.db
	s.db = nil
	if err := s.says.unlessStuck(db.Close); err != nil {
		return err
	}
	root, err := os.Open(r.dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(root.Fd())), root.Close())
}

// replay writes the records, each at its own version.
func (r *rebuilding) replay() error {
	c := r.store.commits
	total := int64(len(r.history.records))
	for i, rec := range r.history.records {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		ops, err := r.opsOf(rec)
		if err != nil {
			r.report.Damage = append(r.report.Damage, err.Error())
			continue
		}
		if rec.seq < c.next {
			return fmt.Errorf("record %d of %d is out of order", i, total)
		}
		c.next = rec.seq
		if err := c.each(ops, func(part []op) error { return c.transaction(rec.seq, part) }); err != nil {
			return err
		}
		r.progress("reading the journal", int64(i+1), total)
	}
	c.next++
	return nil
}

func (r *rebuilding) opsOf(rec record) ([]op, error) {
	if rec.kind != recordCommit {
		return decodeOps(rec.payload)
	}
	_, commits, ops, err := decodeCommit(rec.payload)
	if err != nil {
		return nil, err
	}
	r.report.Commits++
	return append(ops, commitRecordOps(commits, Seq(rec.seq))...), nil
}

// bringTrees takes the manifests of packages from their files.
func (r *rebuilding) bringTrees() error {
	c := r.store.commits
	paths := make(map[hashing.Digest][]string)
	err := r.store.eachVersion(r.ctx, []Seq{Seq(c.next)}, func(path string, e *Entry) error {
		r.report.Entries++
		if e.Kind == KindTree {
			paths[e.Digest] = append(paths[e.Digest], path)
		}
		return nil
	})
	if err != nil {
		return err
	}
	done := int64(0)
	for d, at := range paths {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		b, err := r.store.readTreeFile(d)
		if err == nil {
			_, err = DecodeTree(b)
		}
		switch {
		case fault.Is(err, fault.Corrupt):
			r.report.LostTrees = append(r.report.LostTrees, at...)
		case err != nil:
			return err
		default:
			if err := c.transactions(splitParts(treePrefix(d), b)); err != nil {
				return err
			}
			r.report.Trees++
		}
		done++
		r.progress("reading manifests", done, int64(len(paths)))
	}
	slices.Sort(r.report.LostTrees)
	return nil
}

func (r *rebuilding) count() error {
	var bytes int64
	err := r.store.eachObject(r.ctx, func(f objectFile) error {
		if !f.foreign {
			r.report.Blobs++
			bytes += f.info.Size()
		}
		return nil
	})
	r.store.blobs.Store(r.report.Blobs)
	r.store.bytes.Store(bytes)
	return err
}

// finish writes what makes it the database of a store.
func (r *rebuilding) finish() error {
	s, c := r.store, r.store.commits
	head := Seq(c.next)
	sum, err := s.sumOf(r.ctx, head)
	if err != nil {
		return err
	}
	r.report.Head = head
	r.report.Exact = sum == r.history.sum
	ops := append(commitOps(s, nil, head), op{key: keySum, value: sum.encode()})
	if r.report.Exact && len(r.report.Damage) == 0 {
		// Else it is left out, and the next opening writes a journal that is whole.
		ops = append(ops, op{key: keyJournal, value: putNumbers(r.history.last)})
	}
	// Blobs are not looked into here, so none is trusted before somebody has.
	l, err := json.Marshal(lifetime{Boot: bootID(), Since: time.Now().UnixNano()})
	if err != nil {
		return err
	}
	ops = append(ops, op{key: keyLifetime, value: l})
	sessions, err := s.Sessions()
	if err != nil {
		return err
	}
	for _, rec := range sessions {
		if rec.Seq != 0 {
			rec.Seq = head
		}
		o, err := recordOp(prefixSession, rec.ID, rec)
		if err != nil {
			return err
		}
		ops = append(ops, o)
	}
	return c.each(ops, func(part []op) error { return c.transaction(uint64(head), part) })
}

// place gives the new database its name, and the old one another.
func (r *rebuilding) place(fresh string) error {
	if err := failpoint.Err(failpoint.RebuildWritten, r.dir); err != nil {
		return err
	}
	old := filepath.Join(r.dir, dbName)
	aside, err := r.asideName()
	if err != nil {
		return err
	}
	err = os.Rename(old, filepath.Join(r.dir, aside))
	switch {
	case err == nil:
		r.report.Aside = aside
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := failpoint.Err(failpoint.RebuildAside, r.dir); err != nil {
		return err
	}
	if err := os.Rename(fresh, old); err != nil {
		return err
	}
	if err := failpoint.Err(failpoint.RebuildPlaced, r.dir); err != nil {
		return err
	}
	return syncDir(r.dir)
}

const asidePrefix = dbName + ".damaged-"

func (r *rebuilding) asideName() (string, error) {
	name := asidePrefix + time.Now().UTC().Format("20060102-150405")
	names, err := os.ReadDir(r.dir)
	if err != nil {
		return "", err
	}
	n := 0
	for _, e := range names {
		if strings.HasPrefix(e.Name(), name) {
			n++
		}
	}
	if n > 0 {
		name += fmt.Sprintf("-%d", n+1)
	}
	return name, nil
}
