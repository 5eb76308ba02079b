package index

import (
	"iter"
	"sort"
	"strings"

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
}

// Tree is the manifest of one package directory. It is immutable and safe for
// concurrent use.
//
// Entries stand in breadth-first order: entry 0 is the root, and the children of a
// directory are contiguous and sorted by name. A lookup is a binary search, a
// listing is a range, and the encoding needs no pointers.
//
// A tree in memory is its encoding and where the entries begin in there: packages
// have so many files that decoded entries would be most of what a daemon holds.
type Tree struct {
	encoded string
	offsets []uint32 // where entry i begins in encoded
	// next[i] is where the children of the first directory from entry i on begin;
	// so the children of i are from next[i] up to next[i+1].
	next    []uint32
	digest  func() hashing.Digest
	content func() hashing.Digest
	bytes   int64 // the sum of the files' sizes
}

// Len returns the number of entries, the root included.
func (t *Tree) Len() int { return len(t.offsets) }

// At returns entry i. Its strings share the memory of the tree: who keeps one for
// long, and not the tree, should copy it.
func (t *Tree) At(i int) TreeEntry {
	d := decoder{rest: t.encoded[t.offsets[i]:]}
	e, _ := d.treeEntry()
	return e
}

// name is At(i).Name.
func (t *Tree) name(i int) string {
	d := decoder{rest: t.encoded[t.offsets[i]:]}
	d.byte()
	d.uvarint()
	d.uvarint()
	return d.string()
}

// Bytes returns the sum of the sizes of the files, duplicates counted each time.
func (t *Tree) Bytes() int64 { return t.bytes }

// Children returns the range [lo, hi) of the children of directory i. It is empty
// for what is no directory.
func (t *Tree) Children(i int) (lo, hi int) { return int(t.next[i]), int(t.next[i+1]) }

// Child returns the child of directory i that has this name.
func (t *Tree) Child(i int, name string) (int, bool) {
	lo, hi := t.Children(i)
	j := lo + sort.Search(hi-lo, func(k int) bool { return t.name(lo+k) >= name })
	if j < hi && t.name(j) == name {
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
func (t *Tree) All() iter.Seq2[string, TreeEntry] {
	return func(yield func(string, TreeEntry) bool) { t.walk(0, "", yield) }
}

func (t *Tree) walk(dir int, prefix string, yield func(string, TreeEntry) bool) bool {
	lo, hi := t.Children(dir)
	for i := lo; i < hi; i++ {
		e := t.At(i)
		path := prefix + e.Name
		if !yield(path, e) {
			return false
		}
		if e.Kind == KindDir && !t.walk(i, path+"/", yield) {
			return false
		}
	}
	return true
}

// files yields the regular files, in the order of the entries.
func (t *Tree) files() iter.Seq[TreeEntry] {
	return func(yield func(TreeEntry) bool) {
		for i := range t.Len() {
			if e := t.At(i); e.Kind == KindFile && !yield(e) {
				return
			}
		}
	}
}

// memory is about what the tree takes, in bytes.
func (t *Tree) memory() int64 { return int64(len(t.encoded) + 8*len(t.offsets) + 256) }

// Encode returns the canonical encoding: equal trees have equal bytes.
func (t *Tree) Encode() []byte { return []byte(t.encoded) }

// Digest names the tree: it is the digest of Encode.
func (t *Tree) Digest() hashing.Digest { return t.digest() }

// ContentDigest is equal for two trees that are the same package to a client: it
// leaves out times, the modes of directories, all mode bits of files but the
// owner's execute bit (a umask is no content), and info/repodata_record.json, which
// tells where a package was downloaded from.
func (t *Tree) ContentDigest() hashing.Digest { return t.content() }
