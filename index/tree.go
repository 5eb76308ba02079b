package index

import (
	"iter"
	"sort"
	"strings"
	"sync"

	"condafs/hashing"
)

// TreeEntry is one file, directory or link of a Tree.
type TreeEntry struct {
	Name   string // one component; empty for the root
	Kind   Kind   // KindDir, KindFile or KindSymlink
	Mode   uint32 // permission bits, at most 07777
	Mtime  int64  // nanoseconds since 1970
	Size   int64  // files: bytes
	Digest hashing.Digest
	Link   string // symbolic links: where to

	first, count int32 // directories: where the children are
}

// Tree is the manifest of one package directory. It is immutable and safe for
// concurrent use.
//
// Entries stand in breadth-first order: entry 0 is the root, and the children of a
// directory are contiguous and sorted by name. A lookup is a binary search, a
// listing is a slice, and the encoding needs no pointers.
type Tree struct {
	entries []TreeEntry
	digest  func() hashing.Digest
	content func() hashing.Digest
	bytes   int64 // the sum of the files' sizes
}

func newTree(entries []TreeEntry) *Tree {
	t := &Tree{entries: entries}
	for i := range entries {
		if entries[i].Kind == KindFile {
			t.bytes += entries[i].Size
		}
	}
	t.digest = sync.OnceValue(func() hashing.Digest { return hashing.Sum(t.Encode()) })
	t.content = sync.OnceValue(func() hashing.Digest { return contentDigest(t) })
	return t
}

// Len returns the number of entries, the root included.
func (t *Tree) Len() int { return len(t.entries) }

// At returns entry i. The caller must not change it.
func (t *Tree) At(i int) *TreeEntry { return &t.entries[i] }

// Bytes returns the sum of the sizes of the files, duplicates counted each time.
func (t *Tree) Bytes() int64 { return t.bytes }

// Children returns the range [lo, hi) of the children of directory i. It is empty
// for what is no directory.
func (t *Tree) Children(i int) (lo, hi int) {
	e := &t.entries[i]
	return int(e.first), int(e.first + e.count)
}

// Child returns the child of directory i that has this name.
func (t *Tree) Child(i int, name string) (int, bool) {
	lo, hi := t.Children(i)
	j := lo + sort.Search(hi-lo, func(k int) bool { return t.entries[lo+k].Name >= name })
	if j < hi && t.entries[j].Name == name {
		return j, true
	}
	return 0, false
}

// Find returns the entry at a slash-separated path; "" is the root. Links are not
// followed.
func (t *Tree) Find(path string) (int, bool) {
	i, more := 0, path != ""
	for more {
		var name string
		name, path, more = strings.Cut(path, "/")
		next, ok := t.Child(i, name)
		if !ok {
			return 0, false
		}
		i = next
	}
	return i, true
}

// All yields every entry but the root with its path, a directory before what is
// in it and names in order.
func (t *Tree) All() iter.Seq2[string, *TreeEntry] {
	return func(yield func(string, *TreeEntry) bool) { t.walk(0, "", yield) }
}

func (t *Tree) walk(dir int, prefix string, yield func(string, *TreeEntry) bool) bool {
	lo, hi := t.Children(dir)
	for i := lo; i < hi; i++ {
		path := prefix + t.entries[i].Name
		if !yield(path, &t.entries[i]) {
			return false
		}
		if t.entries[i].count > 0 && !t.walk(i, path+"/", yield) {
			return false
		}
	}
	return true
}

// Encode returns the canonical encoding: equal trees have equal bytes.
func (t *Tree) Encode() []byte { return encodeTree(t.entries) }

// Digest names the tree: it is the digest of Encode.
func (t *Tree) Digest() hashing.Digest { return t.digest() }

// ContentDigest is equal for two trees that are the same package to a client: it
// leaves out times, the modes of directories, all mode bits of files but the
// owner's execute bit (a umask is no content), and info/repodata_record.json, which
// tells where a package was downloaded from.
func (t *Tree) ContentDigest() hashing.Digest { return t.content() }
