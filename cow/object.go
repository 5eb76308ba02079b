package cow

import (
	"strings"

	"golang.org/x/sys/unix"

	"condafs/hashing"
	"condafs/index"
)

// lowerIno marks the inode numbers that objects from below show, so that they
// can't be one of the native numbers that new files show.
const lowerIno = 1 << 62

// object is something below the overlay. It is immutable.
//
// Views hold one for each node that the kernel knows, a million of them perhaps, so
// an object refers to a package by its digest and shares no memory with its manifest.
type object struct {
	index.TreeEntry // Kind is never KindTree: the root of a package is a directory
	ino             uint64

	// A directory is either merged from entries of the index, and path is where
	// they are, or it is directory at of a package, and path is where in there.
	path string
	pkg  *packageDir
	at   int
}

// packageDir is a package directory. Its manifest is asked for whenever somebody
// looks into it: the source keeps those that are in use.
type packageDir struct {
	digest hashing.Digest
	seed   uint64 // of the inode numbers
}

// newObject returns the object that an entry of the index stands for.
func newObject(path, name string, e *index.Entry) *object {
	o := &object{
		TreeEntry: index.TreeEntry{Name: name, Kind: e.Kind, Mode: e.Mode, Mtime: e.Mtime, Size: e.Size, Digest: e.Digest, Link: e.Link},
		ino:       pathIno(path, e.Digest),
	}
	switch e.Kind {
	case index.KindDir:
		o.path = path
	case index.KindTree:
		o.Kind = index.KindDir
		o.Size = 0
		o.pkg = &packageDir{digest: e.Digest, seed: o.ino}
	}
	return o
}

// inPackage returns entry at of a package, which is called name and lies in dir, a
// path in the package.
func inPackage(p *packageDir, t *index.Tree, at int, dir, name string) *object {
	o := &object{TreeEntry: t.At(at), ino: treeIno(p.seed, at), pkg: p, at: at}
	o.Name, o.Link = name, strings.Clone(o.Link)
	if o.isDir() {
		o.path = join(dir, name)
	}
	return o
}

func (o *object) isDir() bool { return o.Kind == index.KindDir }

// typ returns the type bits of its mode.
func (o *object) typ() uint32 { return typeBits(o.Kind) }

func typeBits(k index.Kind) uint32 {
	switch k {
	case index.KindFile:
		return unix.S_IFREG
	case index.KindSymlink:
		return unix.S_IFLNK
	}
	return unix.S_IFDIR
}

// same reports whether two objects look alike to a client, who may hold either.
func (o *object) same(p *object) bool {
	if o.Kind != p.Kind || (o.pkg == nil) != (p.pkg == nil) {
		return false
	}
	if o.isDir() {
		return o.pkg == nil || o.pkg.digest == p.pkg.digest && o.at == p.at
	}
	return o.Digest == p.Digest && o.Size == p.Size && o.Mode == p.Mode && o.Mtime == p.Mtime && o.Link == p.Link
}

// pathIno hashes by FNV-1a, so that a number outlives the process.
func pathIno(path string, d hashing.Digest) uint64 {
	const prime = 0x100000001b3
	x := uint64(0xcbf29ce484222325)
	for i := range len(path) {
		x = (x ^ uint64(path[i])) * prime
	}
	for _, b := range d {
		x = (x ^ uint64(b)) * prime
	}
	return treeIno(x, 0)
}

func treeIno(seed uint64, at int) uint64 {
	x := seed + uint64(at)*0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return maskIno(x ^ x>>31)
}

func maskIno(x uint64) uint64 { return x&(lowerIno-1) | lowerIno }
