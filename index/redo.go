package index

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"condafs/fault"
	"condafs/hashing"
	"condafs/internal/failpoint"

	"github.com/dgraph-io/badger/v4"
)

// A group that is too large for one Badger transaction is made atomic by a redo
// record. Its writes are first stored as data, in parts; then one transaction writes
// the record's head, and with that the group is decided. Then the writes are made, in
// as many transactions as it takes but all at one version, which no reader looks at
// before head moves to it; the last one moves head and deletes the record.
//
// A crash before the record's head leaves parts that mean nothing. A crash after it
// makes the next opening repeat the writes: they are the same at the same version.

// redoHead says what the parts are.
type redoHead struct {
	Seq     Seq            `json:"seq"`
	Digest  hashing.Digest `json:"digest"` // of the parts together
	Commits []CommitRecord `json:"commits"`
}

// redo writes a group at version c.next, which it moves past its own.
func (c *committer) redo(ops []op, commits []CommitRecord) error {
	data := encodeOps(ops)
	if err := c.transactions(splitParts([]byte{prefixRedo}, data)); err != nil {
		return err
	}
	failpoint.Hit(failpoint.RedoStored, c.store.dir)
	head := redoHead{Seq: Seq(c.next + 1), Digest: hashing.Sum(data), Commits: commits}
	b, err := json.Marshal(head)
	if err != nil {
		return err
	}
	if err := c.transaction(c.next, []op{{key: keyRedo, value: b}}); err != nil {
		return err
	}
	failpoint.Hit(failpoint.RedoDecided, c.store.dir)
	c.next = uint64(head.Seq)
	return c.applyRedo(head, ops, len(data))
}

func (c *committer) applyRedo(head redoHead, ops []op, size int) error {
	version := uint64(head.Seq)
	err := c.each(ops, func(part []op) error {
		err := c.transaction(version, part)
		failpoint.Hit(failpoint.RedoApplied, c.store.dir)
		return err
	})
	if err != nil {
		return err
	}
	failpoint.Hit(failpoint.RedoLast, c.store.dir)
	last := []op{{key: keyRedo}}
	for part := 0; part*partSize < size; part++ {
		last = append(last, op{key: partKey([]byte{prefixRedo}, part)})
	}
	if len(head.Commits) > 0 {
		last = append(last, commitOps(c.store, head.Commits, head.Seq)...)
	}
	return c.transaction(version, last)
}

// finishRedo repeats what a crash interrupted, or removes what was not decided.
func (c *committer) finishRedo() error {
	var head redoHead
	var data []byte
	var undecided []op
	found, err := c.store.getRecord(keyRedo, &head)
	if err == nil {
		err = c.store.view(latest, func(txn *badger.Txn) (err error) {
			if found {
				data, err = readParts(txn, []byte{prefixRedo})
			} else {
				undecided = keysOf(txn, prefixRedo)
			}
			return err
		})
	}
	if err != nil {
		return dbError("recover store", c.store.dir, err)
	}
	if found {
		return c.repeat(head, data)
	}
	if err := c.transactions(undecided); err != nil {
		return fault.New("recover store", c.store.dir, fault.Other, err)
	}
	return nil
}

func (c *committer) repeat(head redoHead, data []byte) error {
	failpoint.Hit(failpoint.RedoRepeat, c.store.dir)
	ops, err := decodeOps(data)
	if err == nil && hashing.Sum(data) != head.Digest {
		err = errors.New("its bytes are not what it says")
	}
	if err != nil {
		return fault.New("recover store", c.store.dir, fault.Corrupt, fmt.Errorf("its redo record: %w", err)).
			WithHint("restore db/ from a backup")
	}
	if err := c.applyRedo(head, ops, len(data)); err != nil {
		return fault.New("recover store", c.store.dir, fault.Other, err)
	}
	c.next = max(c.next, uint64(head.Seq)+1)
	return nil
}

// keysOf returns deletions of all keys of a kind.
func keysOf(txn *badger.Txn, prefix byte) []op {
	o := badger.DefaultIteratorOptions
	o.PrefetchValues = false
	o.Prefix = []byte{prefix}
	it := txn.NewIterator(o)
	defer it.Close()
	var ops []op
	for it.Rewind(); it.Valid(); it.Next() {
		ops = append(ops, op{key: it.Item().KeyCopy(nil)})
	}
	return ops
}

func encodeOps(ops []op) []byte {
	var b []byte
	for _, o := range ops {
		b = appendString(b, string(o.key))
		// A value is never empty, so that 0 can stand for a deletion.
		b = binary.AppendUvarint(b, uint64(len(o.value)))
		b = append(b, o.value...)
	}
	return b
}

func decodeOps(b []byte) ([]op, error) {
	d := decoder{rest: string(b)}
	var ops []op
	for d.err == nil && d.rest != "" {
		o := op{key: []byte(d.string())}
		if v := d.string(); v != "" {
			o.value = []byte(v)
		}
		ops = append(ops, o)
	}
	return ops, d.err
}
