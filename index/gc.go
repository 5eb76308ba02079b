package index

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"condafs/fault"
	"condafs/hashing"
	"condafs/internal/failpoint"

	"github.com/dgraph-io/badger/v4"
)

// GCOptions are what a caller of GC may choose.
type GCOptions struct {
	DryRun bool // only count what would go
}

// GCReport tells what a collection removed, or would.
type GCReport struct {
	Blobs     int64 `json:"blobs"` // removed
	Bytes     int64 `json:"bytes"` // theirs
	Trees     int64 `json:"trees"` // removed
	KeptBlobs int64 `json:"kept_blobs"`
	KeptBytes int64 `json:"kept_bytes"`
}

// keptCommits is how many commit records a collection leaves.
const keptCommits = 10_000

// GC removes every blob and tree that neither head, nor a pinned state, nor a hold
// refers to. Commits go on meanwhile. progress, if not nil, is told how many blobs
// were looked at and about how many there are. A second call waits for the first.
func (s *Store) GC(ctx context.Context, o GCOptions, progress func(done, total int64)) (GCReport, error) {
	s.gc.Lock()
	defer s.gc.Unlock()
	ctx, cancel := s.untilClose(ctx)
	defer cancel()

	s.held.beginKeeping() // before the states are read: see Hold
	defer s.held.endKeeping()
	var r GCReport
	// What the database has lost in silence would be garbage.
	if whole, err := s.checkSum(ctx); err != nil || !whole {
		return r, s.notWhole(ctx, err)
	}
	m, err := s.mark(ctx)
	failpoint.Hit(failpoint.GCMarked, s.dir)
	if err == nil {
		err = s.sweepBlobs(ctx, m, o, &r, progress)
	}
	if err == nil {
		failpoint.Hit(failpoint.GCSwept, s.dir)
		err = s.sweepTrees(ctx, m, o, &r)
	}
	if err == nil && !o.DryRun {
		failpoint.Hit(failpoint.GCForget, s.dir)
		err = s.forgetCommits()
		failpoint.Hit(failpoint.GCForgot, s.dir)
		if err == nil {
			err = s.sweepTreeFiles(ctx)
		}
		if err == nil {
			err = s.checkpointIfDue(ctx)
		}
	}
	if err != nil && ctx.Err() != nil {
		return r, fault.New("collect garbage", s.dir, fault.Canceled, context.Cause(ctx))
	}
	return r, err
}

func (s *Store) notWhole(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return fault.New("collect garbage", s.dir, fault.Canceled, context.Cause(ctx))
	case err == nil:
		err = fault.New("collect garbage", s.dir, fault.Corrupt, errors.New("its database has lost entries")).WithHint(rebuildHint(s.dir))
	}
	return err
}

// untilClose ends a context also when Close begins.
func (s *Store) untilClose(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(s.ending, func() { cancel(errClosed) })
	return ctx, func() { stop(); cancel(nil) }
}

func (s *Store) sweepBlobs(ctx context.Context, m *marks, o GCOptions, r *GCReport, progress func(done, total int64)) error {
	done, total := int64(0), s.blobs.Load()
	blobsBefore, bytesBefore := total, s.bytes.Load()
	err := s.eachObject(ctx, func(f objectFile) error {
		if done++; progress != nil {
			progress(done, max(done, total))
		}
		if f.foreign {
			return nil // Verify names it
		}
		if !m.hasBlob(f.digest) {
			gone, err := s.held.blob(f.digest).free(f.digest, func() error {
				if o.DryRun {
					return nil
				}
				failpoint.Hit(failpoint.GCRemove, s.dir)
				return os.Remove(filepath.Join(s.dir, f.name))
			})
			if err != nil {
				return fault.New("remove blob", f.name, fault.Other, err)
			}
			if gone {
				r.Blobs++
				r.Bytes += f.info.Size()
				return nil
			}
		}
		r.KeptBlobs++
		r.KeptBytes += f.info.Size()
		return nil
	})
	if err != nil || o.DryRun {
		return err
	}
	// Now they are known exactly, but for what was adopted meanwhile.
	s.blobs.Add(r.KeptBlobs - blobsBefore)
	s.bytes.Add(r.KeptBytes - bytesBefore)
	return nil
}

// objectFile is something in objects/.
type objectFile struct {
	name    string // relative to the store
	digest  hashing.Digest
	info    fs.FileInfo
	foreign bool // it is not what condafs puts there
}

// eachObject calls fn for everything in objects/, in order.
func (s *Store) eachObject(ctx context.Context, fn func(f objectFile) error) error {
	shards, err := os.ReadDir(filepath.Join(s.dir, objectsName))
	if err != nil {
		return fault.New("list objects", s.dir, fault.Other, err)
	}
	for _, shard := range shards {
		dir := objectsName + "/" + shard.Name()
		if !shard.IsDir() || len(shard.Name()) != 2 {
			info, err := shard.Info()
			if err == nil {
				err = fn(objectFile{name: dir, info: info, foreign: true})
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			continue
		}
		if err := s.eachInShard(ctx, shard.Name(), fn); err != nil {
			return err
		}
	}
	return nil
}

// eachInShard calls fn for everything in a directory of objects/, in order.
func (s *Store) eachInShard(ctx context.Context, shard string, fn func(f objectFile) error) error {
	dir := objectsName + "/" + shard
	files, err := os.ReadDir(filepath.Join(s.dir, dir))
	if err != nil {
		return fault.New("list objects", dir, fault.Other, err)
	}
	for _, file := range files {
		if err := ctx.Err(); err != nil {
			return err
		}
		info, err := file.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fault.New("list objects", dir, fault.Other, err)
		}
		d, err := hashing.ParseDigest(shard + file.Name())
		f := objectFile{name: dir + "/" + file.Name(), digest: d, info: info, foreign: err != nil || !info.Mode().IsRegular()}
		if err := fn(f); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) sweepTrees(ctx context.Context, m *marks, o GCOptions, r *GCReport) error {
	garbage := make(map[hashing.Digest][]op)
	err := s.view(latest, func(txn *badger.Txn) error {
		for _, o := range keysOf(txn, prefixTree) {
			d := hashing.Digest(o.key[1 : 1+hashing.Size])
			if !m.hasTree(d) {
				garbage[d] = append(garbage[d], o)
			}
		}
		return nil
	})
	if err != nil {
		return dbError("list trees", s.dir, err)
	}
	// Alone in its group and on the writer's goroutine: an Update that comes later
	// finds such a tree gone and writes it again; one that came before holds it.
	_, err = s.commits.do(ctx, &request{alone: true, prepare: func(b *batch) error {
		for d, ops := range garbage {
			_, err := s.held.trees.free(d, func() error {
				r.Trees++
				if !o.DryRun {
					for _, op := range ops {
						b.record(op)
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	}})
	return err
}

// forgetCommits removes the oldest commit records.
func (s *Store) forgetCommits() error {
	var old []op
	err := s.view(latest, func(txn *badger.Txn) error {
		if all := keysOf(txn, prefixCommit); len(all) > keptCommits {
			old = all[keptCommits:]
		}
		return nil
	})
	if err != nil {
		return dbError("list commits", s.dir, err)
	}
	if len(old) == 0 {
		return nil
	}
	s.log.Debug("forgot old commit records", "records", len(old))
	_, err = s.commits.do(context.Background(), &request{alone: true, prepare: func(b *batch) error {
		for _, o := range old {
			b.record(o)
		}
		return nil
	}})
	return err
}
