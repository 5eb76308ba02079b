package index

import (
	"errors"
	"fmt"
	"time"

	"condafs/fault"
	"condafs/hashing"
)

// Tx is what the function of an Update works with: head, with the changes that were
// put so far. It is valid only during that call, on its goroutine.
type Tx struct {
	batch   *batch
	layer   *layer
	hold    *Hold
	trees   map[hashing.Digest][]op // new ones
	checked map[hashing.Digest]bool // trees whose blobs are there and held
	notes   []string
	files   bool // something was put that refers to blobs
	bytes   int
}

// Head returns the state that the update starts from. Updates of the same group that
// came before are visible too.
func (t *Tx) Head() Seq { return t.batch.store.Head() }

// Get returns the entry at a path, as Snapshot.Get does.
func (t *Tx) Get(path string) (Entry, bool, error) { return getPath(t.layer, path) }

// List returns what is in a directory, as Snapshot.List does.
func (t *Tx) List(dir string) ([]DirEntry, error) { return listPath(t.layer, dir) }

// Note adds a line to What of the commit record, for outcomes that are known only here.
func (t *Tx) Note(line string) { t.notes = append(t.notes, line) }

// Put sets the entry at a path. Missing parents become directories of mode 0755 with
// the entry's time and owner. An entry that takes a directory's place removes what
// was below. The blob of a file must be in the store, with the entry's size; the tree
// of a tree must be there or have been given to PutTree.
func (t *Tx) Put(path string, e Entry) error {
	dir, name, err := splitPath(path)
	if err != nil {
		return badPath("put", path, err)
	}
	if err := checkEntry(&e); err != nil {
		return fault.New("put", path, fault.Usage, err)
	}
	old, had, err := t.layer.get(dir, name)
	if err != nil {
		return err
	}
	if had && old == e {
		return nil
	}
	if err := t.require(&e); err != nil {
		return fault.New("put", path, fault.Other, err)
	}
	if err := t.putParents(dir, e); err != nil {
		return err
	}
	if had && old.Kind == KindDir && e.Kind != KindDir {
		if err := t.layer.removeBelow(path); err != nil {
			return err
		}
	}
	t.set(dir, name, &e)
	return nil
}

// require makes sure that an entry refers to what is there, and that it stays until
// head has moved.
func (t *Tx) require(e *Entry) error {
	s := t.batch.store
	switch e.Kind {
	case KindFile:
		t.files = true
		t.hold.Blob(e.Digest)
		return s.findBlob(e.Digest, e.Size)
	case KindTree:
		t.files = true
		if t.checked[e.Digest] || t.batch.trees[e.Digest] != nil {
			return nil
		}
		t.hold.Tree(e.Digest)
		if found, err := s.hasTree(e.Digest); err != nil {
			return err
		} else if !found {
			return fault.New("refer to tree", e.Digest.String(), fault.Corrupt, errors.New("it is not in the store"))
		}
		tree, err := s.Tree(e.Digest)
		if err != nil {
			return err
		}
		return t.requireBlobs(tree)
	}
	return nil
}

// requireBlobs makes sure that what a tree consists of is there and stays.
func (t *Tx) requireBlobs(tree *Tree) error {
	blobs := make([]hashing.Digest, 0, tree.Len())
	for e := range tree.files() {
		blobs = append(blobs, e.Digest)
	}
	t.hold.Blob(blobs...)
	for path, e := range tree.All() {
		if e.Kind != KindFile {
			continue
		}
		if err := t.batch.store.findBlob(e.Digest, e.Size); err != nil {
			return fault.New("refer to", path, fault.Other, err)
		}
	}
	t.checked[tree.Digest()] = true
	return nil
}

func (t *Tx) putParents(dir string, e Entry) error {
	if dir == "" {
		return nil
	}
	up, name, err := splitPath(dir)
	if err != nil {
		return badPath("put", dir, err)
	}
	old, had, err := t.layer.get(up, name)
	if err != nil {
		return err
	}
	if had && old.Kind == KindDir {
		return nil
	}
	if had {
		return fault.New("put", dir, fault.Exists, fmt.Errorf("it is a %v and no directory", old.Kind))
	}
	if err := t.putParents(up, e); err != nil {
		return err
	}
	t.set(up, name, &Entry{Kind: KindDir, Mode: 0o755, Mtime: e.Mtime, Owner: e.Owner})
	return nil
}

func (t *Tx) set(dir, name string, e *Entry) {
	t.layer.set(dir, name, e)
	t.bytes += len(dir) + len(name) + 160
}

// Delete removes the entry at a path and everything below it. A path that is not
// there is no error.
func (t *Tx) Delete(path string) error {
	dir, name, err := splitPath(path)
	if err != nil {
		return badPath("delete", path, err)
	}
	old, had, err := t.layer.get(dir, name)
	if err != nil || !had {
		return err
	}
	if old.Kind == KindDir {
		if err := t.layer.removeBelow(path); err != nil {
			return err
		}
	}
	t.set(dir, name, nil)
	return nil
}

// PutTree stores a tree for a Put that refers to it. Its blobs must be in the store,
// with the sizes that the tree gives.
func (t *Tx) PutTree(tree *Tree) (hashing.Digest, error) {
	d := tree.Digest()
	if t.checked[d] {
		return d, nil
	}
	s := t.batch.store
	t.hold.Tree(d)
	if err := t.requireBlobs(tree); err != nil {
		return d, err
	}
	if t.batch.trees[d] != nil {
		return d, nil
	}
	found, err := s.hasTree(d)
	if err != nil || found {
		return d, err
	}
	encoded := tree.Encode()
	t.trees[d] = splitParts(treePrefix(d), encoded)
	t.bytes += len(encoded)
	s.trees.put(d, tree)
	return d, nil
}

// merge gives the changes to the group. After an error the group has none of them.
func (t *Tx) merge(info CommitInfo) error {
	changes, err := t.layer.mergeInto(t.batch.entries)
	if err != nil || changes == 0 {
		return err
	}
	info.What = append(info.What[:len(info.What):len(info.What)], t.notes...)
	r := CommitRecord{Time: time.Now().UTC(), CommitInfo: info.bounded()}
	for d, ops := range t.trees {
		t.batch.trees[d] = ops
	}
	t.batch.commits = append(t.batch.commits, r)
	t.batch.files = t.batch.files || t.files
	t.batch.bytes += t.bytes
	return nil
}
