package index

import (
	"condafs/hashing"
)

// Kind is what an entry is.
type Kind uint8

const (
	KindDir     Kind = iota + 1 // a directory of the index: its children are entries of their own
	KindFile                    // a regular file: one blob
	KindSymlink                 // a symbolic link
	KindTree                    // a directory whose whole content is one Tree: a package
)

// String names the kind in lower case.
func (k Kind) String() string {
	switch k {
	case KindDir:
		return "dir"
	case KindFile:
		return "file"
	case KindSymlink:
		return "symlink"
	case KindTree:
		return "tree"
	}
	return "invalid"
}

// Entry is what a snapshot knows of one path. It is a plain value.
type Entry struct {
	Kind    Kind
	Trust   uint8          // cow's trust level
	Mode    uint32         // permission bits, at most 07777
	Owner   uint32         // uid that published it
	Mtime   int64          // nanoseconds since 1970
	Size    int64          // bytes; of a tree: the sum of its files
	Digest  hashing.Digest // the blob or the tree; zero for directories and links
	Content hashing.Digest // trees: Tree.ContentDigest
	Link    string         // symbolic links: where to
	SHA256  string         // the archive's, lower case hex, when it is known
}

// DirEntry is an entry with its name, as a listing gives it.
type DirEntry struct {
	Name string
	Entry
}
