package index

import (
	"container/list"
	"errors"
	"sync"

	"condafs/fault"
	"condafs/hashing"

	"github.com/dgraph-io/badger/v4"
)

// Tree returns a tree. One that is not there, or is not what its digest says, is
// fault.Corrupt.
func (s *Store) Tree(d hashing.Digest) (*Tree, error) {
	if t := s.trees.get(d); t != nil {
		return t, nil
	}
	t, err := s.loadTree(d)
	if err != nil {
		return nil, err
	}
	s.trees.put(d, t)
	return t, nil
}

func (s *Store) loadTree(d hashing.Digest) (t *Tree, err error) {
	var b []byte
	err = s.view(latest, func(txn *badger.Txn) error {
		b, err = readParts(txn, treePrefix(d))
		return err
	})
	switch {
	case err != nil:
		return nil, dbError("read tree", d.String(), err)
	case len(b) == 0:
		err = errors.New("it is missing from the store")
	case hashing.Sum(b) != d:
		err = errors.New("its bytes are not what its digest says")
	default:
		t, err = DecodeTree(b)
	}
	if err != nil {
		return nil, fault.New("read tree", d.String(), fault.Corrupt, err).WithHint(hintVerify)
	}
	return t, nil
}

func treePrefix(d hashing.Digest) []byte { return append([]byte{prefixTree}, d[:]...) }

// hasTree looks at the database, not at the cache, which may know more.
func (s *Store) hasTree(d hashing.Digest) (found bool, err error) {
	err = s.view(latest, func(txn *badger.Txn) error {
		_, err := txn.Get(partKey(treePrefix(d), 0))
		if errors.Is(err, badger.ErrKeyNotFound) {
			return nil
		}
		found = err == nil
		return err
	})
	if err != nil {
		return false, dbError("look up tree", d.String(), err)
	}
	return found, nil
}

// splitParts cuts a value that may be long into keys of its own.
func splitParts(prefix, value []byte) []op {
	var ops []op
	for part := 0; len(value) > 0; part++ {
		n := min(len(value), partSize)
		ops = append(ops, op{key: partKey(prefix, part), value: value[:n]})
		value = value[n:]
	}
	return ops
}

// readParts puts them together again.
func readParts(txn *badger.Txn, prefix []byte) ([]byte, error) {
	var b []byte
	for part := 0; ; part++ {
		item, err := txn.Get(partKey(prefix, part))
		if errors.Is(err, badger.ErrKeyNotFound) {
			return b, nil
		}
		if err != nil {
			return nil, err
		}
		n := len(b)
		if err := item.Value(func(v []byte) error { b = append(b, v...); return nil }); err != nil {
			return nil, err
		}
		if len(b)-n < partSize {
			return b, nil
		}
	}
}

// treeCacheBytes bounds what the decoded trees take that nobody may be using.
const treeCacheBytes = 8 << 20

// treeCache keeps the trees that were used last.
type treeCache struct {
	mu    sync.Mutex
	byKey map[hashing.Digest]*list.Element
	order *list.List // of cached, the last used in front
	bytes int64
	hits  int64
	asked int64
}

type cached struct {
	digest hashing.Digest
	tree   *Tree
	bytes  int64
}

func newTreeCache() *treeCache {
	return &treeCache{byKey: make(map[hashing.Digest]*list.Element), order: list.New()}
}

func (c *treeCache) get(d hashing.Digest) *Tree {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked++
	e := c.byKey[d]
	if e == nil {
		return nil
	}
	c.hits++
	c.order.MoveToFront(e)
	return e.Value.(cached).tree
}

func (c *treeCache) figures() (asked, hits int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked, c.hits
}

func (c *treeCache) put(d hashing.Digest, t *Tree) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byKey[d] != nil {
		return
	}
	v := cached{digest: d, tree: t, bytes: t.memory()}
	c.byKey[d] = c.order.PushFront(v)
	c.bytes += v.bytes
	for c.bytes > treeCacheBytes && c.order.Len() > 1 {
		old := c.order.Remove(c.order.Back()).(cached)
		delete(c.byKey, old.digest)
		c.bytes -= old.bytes
	}
}
