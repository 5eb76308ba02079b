package index

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"condafs/fault"
	"condafs/hashing"
	"condafs/internal/failpoint"

	"golang.org/x/sys/unix"
)

// A group takes further requests until it has that much to write or that many
// members; what comes later is the next group.
const (
	groupBytes   = maxTxnBytes / 2
	groupMembers = 256
)

// quietWrites is how many keys may be written without a commit before head moves by
// itself. Badger drops an old version only when head has left it behind, so the records
// of sessions that publish nothing would pile up.
const quietWrites = 1000

// committer is the only writer of the database. Requests queue; those that wait
// together are written together, with one syncfs and one transaction.
type committer struct {
	store  *Store
	syncfs func(fd int) error // unix.Syncfs; tests let it fail

	mu      sync.Mutex
	wake    sync.Cond
	queue   []*request
	stopped bool
	done    chan struct{} // closed when the goroutine has ended; nil before start

	// Of the goroutine alone:
	next    uint64 // the next version number
	quiet   int    // keys that were written since head has moved
	broken  error  // after a failed write: what is on disk is not known
	journal journal
}

// request is one writer that waits.
type request struct {
	prepare func(b *batch) error // adds to the group, or fails alone and adds nothing
	alone   bool                 // shares its group with nobody
	claimed atomic.Bool          // by the committer, or by the caller that gave up
	seq     Seq
	err     error
	done    chan struct{}
}

// op is a write of one key.
type op struct {
	key   []byte
	value []byte // nil deletes
}

// batch is what a group writes.
type batch struct {
	store   *Store
	entries *layer
	trees   map[hashing.Digest][]op
	records []op
	commits []CommitRecord
	moves   bool // head, also without a commit
	files   bool // entries refer to blobs, which must be durable first
	bytes   int
}

func newCommitter(s *Store, newest uint64) *committer {
	c := &committer{store: s, syncfs: unix.Syncfs, next: newest + 1}
	c.journal = journal{dir: s.dir, uuid: s.id.UUID, version: newest}
	c.wake.L = &c.mu
	return c
}

func (c *committer) start() {
	c.done = make(chan struct{})
	go c.run()
}

// stop waits until what was queued is written, and refuses the rest.
func (c *committer) stop() {
	c.mu.Lock()
	c.stopped = true
	c.wake.Signal()
	c.mu.Unlock()
	<-c.done
}

// do queues a request and waits for it. A context that ends takes it back if it was
// not begun.
func (c *committer) do(ctx context.Context, r *request) (Seq, error) {
	r.done = make(chan struct{})
	c.mu.Lock()
	if c.stopped {
		c.mu.Unlock()
		return 0, fault.New("write to store", c.store.dir, fault.Stale, errClosed)
	}
	c.queue = append(c.queue, r)
	c.wake.Signal()
	c.mu.Unlock()
	select {
	case <-r.done:
	case <-ctx.Done():
		if r.claimed.CompareAndSwap(false, true) {
			return 0, fault.New("write to store", c.store.dir, fault.Canceled, context.Cause(ctx))
		}
		<-r.done
	}
	return r.seq, r.err
}

func (c *committer) run() {
	defer close(c.done)
	for {
		first := c.take(true, false)
		if first == nil {
			return
		}
		c.group(first)
	}
}

// take returns the next request that nobody gave up. It waits for one, or returns nil
// if there is none or, with sociable, none that shares its group.
func (c *committer) take(wait, sociable bool) *request {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		for len(c.queue) == 0 {
			if !wait || c.stopped {
				return nil
			}
			c.wake.Wait()
		}
		r := c.queue[0]
		if sociable && r.alone {
			return nil
		}
		c.queue[0] = nil
		c.queue = c.queue[1:]
		if r.claimed.CompareAndSwap(false, true) {
			return r
		}
	}
}

func (c *committer) group(first *request) {
	b := &batch{store: c.store, entries: newLayer(c.store.at(c.store.Head())), trees: make(map[hashing.Digest][]op)}
	var members []*request
	for r := first; r != nil; {
		members = append(members, r)
		if r.err = c.broken; r.err == nil {
			r.err = r.prepare(b)
		}
		if r.alone || b.bytes >= groupBytes || len(members) >= groupMembers {
			break
		}
		r = c.take(false, true)
	}
	seq, err := c.write(b)
	for _, r := range members {
		if r.err == nil {
			r.seq, r.err = seq, err
		}
		close(r.done)
	}
}

// write makes a group durable and moves head. When it fails, either nothing of the
// group is visible or the store takes no more writes.
func (c *committer) write(b *batch) (Seq, error) {
	ops := b.ops()
	head := c.store.Head()
	trees := b.treeOps()
	if len(ops) == 0 && len(trees) == 0 && len(b.commits) == 0 {
		return head, nil
	}
	failpoint.Hit(failpoint.CommitBegin, c.store.dir)
	if err := c.makeRoom(int64(b.bytes), !b.files && len(trees) == 0); err != nil {
		return 0, err
	}
	if c.quiet += len(ops); c.quiet >= quietWrites {
		b.moves = true
	}
	seq := c.next // of the record: trees may count it up before the commit
	ops, sum, err := c.record(b, ops)
	if err != nil {
		if fault.Is(err, fault.IO) {
			return 0, c.breakDown(err)
		}
		return 0, err
	}
	if err := c.sync(b); err != nil {
		return 0, c.breakDown(errors.Join(err, c.journal.takeBack()))
	}
	if err = c.decide(b, ops, trees); err != nil {
		err = errors.Join(err, c.journal.takeBack())
	} else if len(b.commits) > 0 {
		c.journal.committed(seq, sum)
	}
	return c.finish(b.moves || len(b.commits) > 0, err)
}

// sync makes what a commit refers to durable, and its record in the journal.
func (c *committer) sync(b *batch) error {
	switch {
	case b.files:
		failpoint.Hit(failpoint.CommitSync, c.store.dir)
		if err := c.syncfs(int(c.store.root.Fd())); err != nil {
			return fmt.Errorf("syncfs: %w", err)
		}
		failpoint.Hit(failpoint.CommitSynced, c.store.dir)
	case len(b.commits) > 0:
		if err := c.journal.sync(); err != nil {
			return fmt.Errorf("sync journal: %w", err)
		}
	}
	return nil
}

// decide writes a group to the database, all of it or nothing.
func (c *committer) decide(b *batch, ops, trees []op) error {
	if together := append(trees, c.ops(b, ops, Seq(c.next))...); c.fits(together) {
		return c.transaction(c.next, together)
	}
	// Trees may be there before anybody refers to them.
	if err := c.transactions(trees); err != nil {
		return err
	}
	failpoint.Hit(failpoint.CommitTrees, c.store.dir)
	if last := c.ops(b, ops, Seq(c.next)); c.fits(last) {
		return c.transaction(c.next, last)
	}
	return c.redo(ops, b.commits)
}

// ops completes a group's writes with what depends on its version number.
func (c *committer) ops(b *batch, ops []op, seq Seq) []op {
	if !b.moves && len(b.commits) == 0 {
		return ops
	}
	return append(ops[:len(ops):len(ops)], commitOps(c.store, b.commits, seq)...)
}

// commitOps moves head and records who moved it.
func commitOps(s *Store, commits []CommitRecord, seq Seq) []op {
	ops := []op{
		{key: keyHead, value: putNumbers(uint64(seq))},
		{key: keyCounts, value: putNumbers(uint64(s.blobs.Load()), uint64(s.bytes.Load()))},
	}
	return append(ops, commitRecordOps(commits, seq)...)
}

func commitRecordOps(commits []CommitRecord, seq Seq) []op {
	var ops []op
	for i, r := range commits {
		r.Seq = seq
		value, err := json.Marshal(r)
		if err != nil { // a struct of strings and numbers always marshals
			value = []byte("{}")
		}
		ops = append(ops, op{key: commitKey(seq, i), value: value})
	}
	return ops
}

// finish counts a version up and shows it.
func (c *committer) finish(commits bool, err error) (Seq, error) {
	if err != nil {
		return 0, c.breakDown(err)
	}
	failpoint.Hit(failpoint.CommitWritten, c.store.dir)
	seq := Seq(c.next)
	c.next++
	if commits {
		c.quiet = 0
		c.store.pins.setHead(seq)
		failpoint.Hit(failpoint.CommitShown, c.store.dir)
	}
	return c.store.Head(), nil
}

// makeRoom fails while nothing was written yet, so that a full disk does no harm.
func (c *committer) makeRoom(bytes int64, metadata bool) error {
	// Once for the log, once for the table it becomes, once for a redo record, once
	// for the journal and the trees beside it.
	return c.store.space.forCommit(bytes, 4*bytes, metadata && bytes < groupBytes/2)
}

// breakDown stops all writing: after a failed write or sync nobody knows what is on
// disk, and the kernel reports such a failure only once.
func (c *committer) breakDown(err error) error {
	c.broken = fault.New("write to store", c.store.dir, fault.KindOf(err), err).
		WithHint("the store takes no more writes until it is opened again")
	c.store.log.Error("a write to the store failed", "err", err)
	return c.broken
}

// failure returns what has stopped all writing, if anything has.
func (c *committer) failure() error {
	_, err := c.do(context.Background(), &request{alone: true, prepare: func(*batch) error { return nil }})
	return err
}

// fits tells whether Badger takes these in one transaction. It counts as Badger does,
// with some to spare.
func (c *committer) fits(ops []op) bool {
	bytes := 0
	for _, o := range ops {
		bytes += o.cost()
	}
	return bytes < maxTxnBytes && int64(len(ops)) < c.store.db.MaxBatchCount()*9/10
}

func (o *op) cost() int { return len(o.key) + len(o.value) + 32 }

func (c *committer) transaction(version uint64, ops []op) error {
	txn := c.store.db.NewTransactionAt(version, true)
	defer txn.Discard()
	for _, o := range ops {
		var err error
		if o.value == nil {
			err = txn.Delete(o.key)
		} else {
			err = txn.Set(o.key, o.value)
		}
		if err != nil {
			return err
		}
	}
	return txn.CommitAt(version, nil)
}

// transactions writes what need not be atomic, in as many as it takes, each at a
// version of its own.
func (c *committer) transactions(ops []op) error {
	return c.each(ops, func(part []op) error {
		err := c.transaction(c.next, part)
		c.next++
		return err
	})
}

// each cuts writes into pieces that fit.
func (c *committer) each(ops []op, write func(part []op) error) error {
	for len(ops) > 0 {
		n, bytes := 0, 0
		for n < len(ops) && int64(n) < c.store.db.MaxBatchCount()/2 && (n == 0 || bytes+ops[n].cost() < maxTxnBytes/2) {
			bytes += ops[n].cost()
			n++
		}
		if err := write(ops[:n]); err != nil {
			return err
		}
		ops = ops[n:]
	}
	return nil
}

// ops returns the group's writes, trees and head apart.
func (b *batch) ops() []op {
	ops := b.records
	for dir, names := range b.entries.dirs {
		for name, e := range names {
			o := op{key: entryKey(dir, name)}
			if e != nil {
				o.value = encodeEntry(e)
			}
			ops = append(ops, o)
		}
	}
	return ops
}

func (b *batch) treeOps() []op {
	var ops []op
	for _, parts := range b.trees {
		ops = append(ops, parts...)
	}
	return ops
}

// record adds a write of one key that has no history.
func (b *batch) record(o op) {
	b.records = append(b.records, o)
	b.bytes += o.cost()
}

// Update changes the index: it calls fn, which sees head, and makes what fn put and
// deleted the new head, all of it or nothing. It returns the Seq of a state that has
// the changes in it; if there are none, head stays. It returns when the changes are
// durable.
//
// Updates are made one after the other, and fn runs on the goroutine that makes them:
// it must be quick and must not call a method of the store that writes. An error of
// fn is returned as it is. A ctx that ends gives up while the update still waits for
// its turn.
func (s *Store) Update(ctx context.Context, info CommitInfo, fn func(tx *Tx) error) (Seq, error) {
	hold := s.NewHold() // until head has moved
	defer hold.Release()
	return s.commits.do(ctx, &request{prepare: func(b *batch) error {
		tx := &Tx{batch: b, hold: hold, layer: newLayer(b.entries), trees: make(map[hashing.Digest][]op), checked: make(map[hashing.Digest]bool)}
		if err := fn(tx); err != nil {
			return err
		}
		return tx.merge(info)
	}})
}
