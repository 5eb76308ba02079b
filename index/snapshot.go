package index

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"condafs/fault"

	"github.com/dgraph-io/badger/v4"
)

// Snapshot is a pinned state of the store. What it reaches, trees and blobs
// included, stays until Release. It is safe for concurrent use.
type Snapshot struct {
	store   *Store
	seq     Seq
	release sync.Once
}

// Seq returns which state it is.
func (p *Snapshot) Seq() Seq { return p.seq }

// Release gives the pin back. Calls after the first do nothing. The snapshot must
// not be read any more.
func (p *Snapshot) Release() {
	p.release.Do(func() { p.store.pins.remove(p.seq) })
}

// Get returns the entry at a path. The root, "", is a directory.
func (p *Snapshot) Get(path string) (Entry, bool, error) {
	return getPath(p.store.at(p.seq), path)
}

// List returns what is in a directory, sorted by name. What is no directory has
// nothing in it.
func (p *Snapshot) List(dir string) ([]DirEntry, error) {
	return listPath(p.store.at(p.seq), dir)
}

func getPath(r reader, path string) (Entry, bool, error) {
	if path == "" {
		return Entry{Kind: KindDir, Mode: 0o755}, true, nil
	}
	dir, name, err := splitPath(path)
	if err != nil {
		return Entry{}, false, badPath("look up", path, err)
	}
	return r.get(dir, name)
}

func listPath(r reader, dir string) ([]DirEntry, error) {
	if dir != "" {
		if _, _, err := splitPath(dir); err != nil {
			return nil, badPath("list", dir, err)
		}
	}
	return r.list(dir)
}

func badPath(op, path string, err error) error {
	return fault.New(op, fmt.Sprintf("%.200q", path), fault.Usage, err)
}

// state reads the entries at one Seq.
type state struct {
	store *Store
	seq   Seq
}

func (s *Store) at(seq Seq) state { return state{store: s, seq: seq} }

func (v state) get(dir, name string) (e Entry, ok bool, err error) {
	err = v.store.view(uint64(v.seq), func(txn *badger.Txn) error {
		item, err := txn.Get(entryKey(dir, name))
		if errors.Is(err, badger.ErrKeyNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		ok = true
		return item.Value(func(b []byte) error {
			e, err = decodeEntry(b)
			return err
		})
	})
	if err != nil {
		return Entry{}, false, dbError("look up", joinPath(dir, name), err)
	}
	return e, ok, nil
}

func (v state) list(dir string) ([]DirEntry, error) {
	var out []DirEntry
	prefix := dirPrefix(nil, dir)
	err := v.store.view(uint64(v.seq), func(txn *badger.Txn) error {
		o := badger.DefaultIteratorOptions
		o.Prefix = prefix
		it := txn.NewIterator(o)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			item := it.Item()
			err := item.Value(func(b []byte) error {
				e, err := decodeEntry(b)
				out = append(out, DirEntry{Name: string(item.Key()[len(prefix):]), Entry: e})
				return err
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, dbError("list", dir, err)
	}
	return out, nil
}

// splitEntryKey is the inverse of entryKey.
func splitEntryKey(key []byte) (path string, ok bool) {
	dir, name, ok := strings.Cut(string(key[1:]), "\x00")
	return joinPath(dir, name), ok
}
