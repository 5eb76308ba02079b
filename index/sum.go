package index

import (
	"context"
	"encoding/binary"

	"condafs/hashing"

	"github.com/dgraph-io/badger/v4"
)

// headSum is the sum of the digests of all entries of head. Sums know no order, so a
// commit changes it by what it changes, and the whole can be compared with it at any
// time: entries that the database has lost, or has again, without any error show.
// It is no proof against somebody who makes entries up.
type headSum [4]uint64

// keySum has no history of its own: its version is head's.
var keySum = []byte("u")

func (h *headSum) add(key, value []byte) {
	for i, n := range entryDigest(key, value) {
		h[i] += n
	}
}

func (h *headSum) remove(key, value []byte) {
	for i, n := range entryDigest(key, value) {
		h[i] -= n
	}
}

func entryDigest(key, value []byte) (out [4]uint64) {
	b := make([]byte, 0, len(key)+len(value)+4)
	b = appendString(b, string(key))
	d := hashing.Sum(append(b, value...))
	for i := range out {
		out[i] = binary.BigEndian.Uint64(d[8*i:])
	}
	return out
}

func (h headSum) encode() []byte { return putNumbers(h[:]...) }

// sumAfter returns head's sum once the batch is written.
func (b *batch) sumAfter(sum headSum) (headSum, error) {
	for dir, names := range b.entries.dirs {
		for name, e := range names {
			key := entryKey(dir, name)
			old, had, err := b.entries.below.get(dir, name)
			if err != nil {
				return sum, err
			}
			if had {
				sum.remove(key, encodeEntry(&old))
			}
			if e != nil {
				sum.add(key, encodeEntry(e))
			}
		}
	}
	return sum, nil
}

// sumOf adds up the entries that a state has.
func (s *Store) sumOf(ctx context.Context, seq Seq) (sum headSum, err error) {
	err = s.view(uint64(seq), func(txn *badger.Txn) error {
		o := badger.DefaultIteratorOptions
		o.Prefix = []byte{prefixEntry}
		it := txn.NewIterator(o)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			if err := ctx.Err(); err != nil {
				return err
			}
			key := it.Item().Key()
			if err := it.Item().Value(func(v []byte) error { sum.add(key, v); return nil }); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil && ctx.Err() == nil {
		err = dbError("add up entries", s.dir, err)
	}
	return sum, err
}

// sumAt returns the sum that a state, which is pinned, says it has.
func (s *Store) sumAt(seq Seq) (sum headSum, err error) {
	ns, err := s.numbersAt(uint64(seq), keySum, len(sum))
	copy(sum[:], ns)
	return sum, err
}

// checkSum tells whether head has all its entries, and no other.
func (s *Store) checkSum(ctx context.Context) (whole bool, err error) {
	head := s.PinHead()
	defer head.Release()
	want, err := s.sumAt(head.Seq())
	if err != nil {
		return false, err
	}
	is, err := s.sumOf(ctx, head.Seq())
	return err == nil && is == want, err
}
