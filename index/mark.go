package index

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sort"

	"condafs/fault"
	"condafs/hashing"

	"github.com/dgraph-io/badger/v4"
)

// marks is what live states refer to.
type marks struct {
	trees map[hashing.Digest]struct{}
	blobs map[uint64]struct{} // by shortMark: a store can have millions
}

// shortMark keeps 8 of a digest's bytes. Should two blobs ever agree in them, garbage
// stays; nothing is lost.
func shortMark(d hashing.Digest) uint64 {
	return uint64(d[0])<<56 | uint64(d[1])<<48 | uint64(d[2])<<40 | uint64(d[3])<<32 |
		uint64(d[4])<<24 | uint64(d[5])<<16 | uint64(d[6])<<8 | uint64(d[7])
}

func (m *marks) hasTree(d hashing.Digest) bool { _, ok := m.trees[d]; return ok }
func (m *marks) hasBlob(d hashing.Digest) bool { _, ok := m.blobs[shortMark(d)]; return ok }

// mark finds everything that live states and holds of trees refer to.
func (s *Store) mark(ctx context.Context) (*marks, error) {
	m := &marks{trees: make(map[hashing.Digest]struct{}), blobs: make(map[uint64]struct{})}
	var live []Seq
	for seq := range s.pins.live() {
		live = append(live, seq)
	}
	slices.Sort(live)
	for _, d := range s.held.trees.all() {
		// One that is held before its Update wrote it has its blobs held too.
		if found, err := s.hasTree(d); err != nil {
			return nil, err
		} else if found {
			m.trees[d] = struct{}{}
		}
	}
	err := s.eachVersion(ctx, live, func(_ string, e *Entry) error {
		switch e.Kind {
		case KindFile:
			m.blobs[shortMark(e.Digest)] = struct{}{}
		case KindTree:
			m.trees[e.Digest] = struct{}{}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for d := range m.trees {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		t, err := s.loadTree(d)
		if err != nil {
			return nil, fault.New("collect garbage", s.dir, fault.Other, err).
				WithHint("delete the package that condafs verify names, then collect again")
		}
		for e := range t.files() {
			m.blobs[shortMark(e.Digest)] = struct{}{}
		}
	}
	return m, nil
}

// eachVersion calls fn for every version of every entry that one of the states sees,
// once each. The states are sorted. It takes one pass, however many states there are.
func (s *Store) eachVersion(ctx context.Context, states []Seq, fn func(path string, e *Entry) error) error {
	newest := states[len(states)-1]
	err := s.view(uint64(newest), func(txn *badger.Txn) error {
		o := badger.DefaultIteratorOptions
		o.Prefix = []byte{prefixEntry}
		o.AllVersions = true
		it := txn.NewIterator(o)
		defer it.Close()
		var key []byte
		newer := uint64(math.MaxUint64) // the version of this key that came after
		for it.Rewind(); it.Valid(); it.Next() {
			if err := ctx.Err(); err != nil {
				return err
			}
			item := it.Item()
			if !slices.Equal(item.Key(), key) {
				key = item.KeyCopy(key)
				newer = math.MaxUint64
			}
			version := item.Version()
			i := sort.Search(len(states), func(i int) bool { return uint64(states[i]) >= version })
			seen := i < len(states) && uint64(states[i]) < newer
			newer = version
			if !seen || item.IsDeletedOrExpired() {
				continue
			}
			path, ok := splitEntryKey(key)
			if !ok {
				return fmt.Errorf("key %q", key)
			}
			err := item.Value(func(b []byte) error {
				e, err := decodeEntry(b)
				if err != nil {
					return fmt.Errorf("%q: %w", path, err)
				}
				return fn(path, &e)
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil && ctx.Err() == nil {
		return dbError("read entries", s.dir, err)
	}
	return err
}
