package index

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"condafs/fault"
	"condafs/hashing"
	"condafs/internal/failpoint"

	"github.com/dgraph-io/badger/v4"
	"golang.org/x/sys/unix"
)

// partBytes is about what a part of a checkpoint holds: little, so that damage to one
// loses little.
const partBytes = 4 << 10

// A checkpoint is worth its cost when more was written since the last one than it
// holds itself.
const minDue = 1 << 20

// checkpointed orders checkpoints.
type checkpointed struct {
	mu sync.Mutex
}

// checkpointIfDue makes one if the journal has grown enough.
func (s *Store) checkpointIfDue(ctx context.Context) error {
	var due bool
	_, err := s.commits.do(ctx, &request{alone: true, prepare: func(*batch) error {
		j := &s.commits.journal
		due = j.due > max(minDue, j.base)
		return nil
	}})
	if err != nil || !due {
		return err
	}
	return s.checkpoint(ctx)
}

// checkpoint writes a new segment with all that the index has at present, and removes
// those before it. Commits go on meanwhile.
func (s *Store) checkpoint(ctx context.Context) error {
	s.checkpointed.mu.Lock()
	defer s.checkpointed.mu.Unlock()
	ctx, cancel := s.untilClose(ctx)
	defer cancel()
	c := &checkpointing{store: s}
	_, err := s.commits.do(ctx, &request{alone: true, prepare: c.begin})
	if c.head != nil {
		defer c.head.Release()
	}
	if err != nil {
		return err
	}
	failpoint.Hit(failpoint.CheckpointBegun, s.dir)
	if err := c.write(ctx); err != nil {
		if ctx.Err() != nil {
			return fault.New("write checkpoint", s.dir, fault.Canceled, context.Cause(ctx))
		}
		return fault.New("write checkpoint", s.dir, fault.Other, err)
	}
	return nil
}

type checkpointing struct {
	store   *Store
	head    *Snapshot // keeps what is read
	version uint64    // it is read at
	number  uint64
	first   journalHead
	w       *bufio.Writer
	records int
	bytes   int64
}

// begin runs on the committer's goroutine: what was committed before is in the
// checkpoint, and what comes later goes into segments after it.
func (c *checkpointing) begin(*batch) error {
	j := &c.store.commits.journal
	c.version = c.store.commits.next - 1
	if err := j.rotate(c.version); err != nil {
		return err
	}
	c.head = c.store.PinHead()
	j.number++
	j.due = 0
	c.number = j.number
	c.first = journalHead{UUID: j.uuid, Last: j.last, Version: c.version, Sum: j.sum}
	return nil
}

func (c *checkpointing) write(ctx context.Context) (err error) {
	if err := c.writeTrees(ctx); err != nil {
		return err
	}
	dir := filepath.Join(c.store.dir, journalName)
	name := filepath.Join(dir, segmentName(c.number))
	temp := filepath.Join(c.store.StagingDir(), "checkpoint") // there is one at a time
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	c.w = bufio.NewWriterSize(f, 1<<20)
	err = c.writeState(ctx)
	if err == nil {
		err = c.w.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	failpoint.Hit(failpoint.CheckpointWritten, c.store.dir)
	if err := os.Rename(temp, name); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	if err := syncDir(dir); err != nil {
		return err
	}
	failpoint.Hit(failpoint.CheckpointRenamed, c.store.dir)
	if err := c.removeOlder(dir); err != nil {
		return err
	}
	_, err = c.store.commits.do(ctx, &request{alone: true, prepare: func(*batch) error {
		c.store.commits.journal.base = c.bytes
		return nil
	}})
	return err
}

// writeTrees makes sure that every tree of head is beside the journal, durably. One
// that the database has lost, too, is for Verify to find.
func (c *checkpointing) writeTrees(ctx context.Context) error {
	seen := make(map[hashing.Digest]bool)
	wrote := false
	err := c.store.eachVersion(ctx, []Seq{c.head.Seq()}, func(_ string, e *Entry) error {
		if e.Kind == KindTree {
			seen[e.Digest] = true
		}
		return nil
	})
	if err != nil {
		return err
	}
	for d := range seen {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := os.Lstat(c.store.treeFile(d)); err == nil {
			continue
		}
		t, err := c.store.loadTree(d)
		if fault.Is(err, fault.Corrupt) {
			continue
		}
		if err != nil {
			return err
		}
		if err := c.store.writeTreeFile(d, t.Encode()); err != nil {
			return err
		}
		wrote = true
	}
	if !wrote {
		return nil
	}
	// By a descriptor of its own: the committer must not miss a failure that only the
	// first who asks is told.
	root, err := os.Open(c.store.dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(root.Fd())), root.Close())
}

func (c *checkpointing) writeState(ctx context.Context) error {
	if err := c.put(recordCheckpoint, c.first.encode()); err != nil {
		return err
	}
	for _, prefix := range append(journaled[:len(journaled):len(journaled)], prefixCommit) {
		if err := c.writeKind(ctx, prefix); err != nil {
			return err
		}
	}
	return c.put(recordEnd, binary.BigEndian.AppendUint64(nil, uint64(c.records)))
}

func (c *checkpointing) writeKind(ctx context.Context, prefix byte) error {
	return c.store.view(c.version, func(txn *badger.Txn) error {
		o := badger.DefaultIteratorOptions
		o.Prefix = []byte{prefix}
		it := txn.NewIterator(o)
		defer it.Close()
		var part []op
		bytes := 0
		for it.Rewind(); it.Valid(); it.Next() {
			if err := ctx.Err(); err != nil {
				return err
			}
			value, err := it.Item().ValueCopy(nil)
			if err != nil {
				return err
			}
			o := op{key: it.Item().KeyCopy(nil), value: value}
			part = append(part, o)
			if bytes += o.cost(); bytes >= partBytes {
				if err := c.put(recordState, encodeOps(part)); err != nil {
					return err
				}
				part, bytes = part[:0], 0
			}
		}
		if len(part) == 0 {
			return nil
		}
		return c.put(recordState, encodeOps(part))
	})
}

func (c *checkpointing) put(kind byte, payload []byte) error {
	b := appendRecord(nil, kind, c.version, payload)
	c.records++
	c.bytes += int64(len(b))
	_, err := c.w.Write(b)
	return err
}

// removeOlder removes what the checkpoint takes the place of.
func (c *checkpointing) removeOlder(dir string) error {
	numbers, err := segments(c.store.dir)
	if err != nil {
		return err
	}
	for _, n := range numbers {
		if n >= c.number {
			continue
		}
		if err := os.Remove(filepath.Join(dir, segmentName(n))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// sweepTreeFiles removes the files of trees that the index does not have any more.
func (s *Store) sweepTreeFiles(ctx context.Context) error {
	names, err := os.ReadDir(filepath.Join(s.dir, treesName))
	if err != nil {
		return fault.New("list trees", s.dir, fault.Other, err)
	}
	var gone []hashing.Digest
	for _, e := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		d, err := hashing.ParseDigest(e.Name())
		if err != nil {
			continue // not ours: Verify names it
		}
		if found, err := s.hasTree(d); err != nil {
			return err
		} else if !found {
			gone = append(gone, d)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	// Alone and on the writer's goroutine: who puts such a tree again comes before, and
	// then the database has it, or later, and writes the file again.
	_, err = s.commits.do(ctx, &request{alone: true, prepare: func(*batch) error {
		for _, d := range gone {
			found, err := s.hasTree(d)
			if err != nil {
				return err
			}
			if found {
				continue
			}
			if err := os.Remove(s.treeFile(d)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fault.New("remove tree", d.String(), fault.Other, err)
			}
		}
		return nil
	}})
	return err
}
