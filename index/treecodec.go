package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync"

	"condafs/fault"
	"condafs/hashing"
)

// A tree is encoded as
//
//	version, number of entries, then of each entry in order:
//	kind, mode, mtime, name,
//	   and of a file: size, digest
//	   and of a link: where to
//	   and of a directory: number of children
//
// Numbers are varints, mtime a signed one, strings have their length in front. Where
// the children of a directory are follows from the breadth-first order.
const treeVersion = 1

// maxTreeEntries bounds what a decoder takes: far more than any package has.
const maxTreeEntries = 1 << 24

// minEntryBytes is the least that one entry takes: it bounds the allocation that a
// lying count can cause.
const minEntryBytes = 5

// appendTreeEntry encodes an entry; count is the number of its children.
func appendTreeEntry(b []byte, e *TreeEntry, count int) []byte {
	b = append(b, byte(e.Kind))
	b = binary.AppendUvarint(b, uint64(e.Mode))
	b = binary.AppendVarint(b, e.Mtime)
	b = appendString(b, e.Name)
	switch e.Kind {
	case KindFile:
		b = binary.AppendUvarint(b, uint64(e.Size))
		b = append(b, e.Digest[:]...)
	case KindSymlink:
		b = appendString(b, e.Link)
	default:
		b = binary.AppendUvarint(b, uint64(count))
	}
	return b
}

// treeEntry is the inverse of appendTreeEntry.
func (d *decoder) treeEntry() (e TreeEntry, count uint64) {
	e.Kind = Kind(d.byte())
	e.Mode = d.mode()
	e.Mtime = d.varint()
	e.Name = d.string()
	switch e.Kind {
	case KindFile:
		e.Size = d.size()
		e.Digest = d.digest()
	case KindSymlink:
		e.Link = d.string()
	case KindDir:
		count = d.uvarint()
	}
	return e, count
}

// DecodeTree is the inverse of Encode. It takes nothing else: a tree that it returns
// encodes to the same bytes, and has only names that a directory can hold.
func DecodeTree(b []byte) (*Tree, error) {
	t, err := decodeTree(string(b))
	if err != nil {
		return nil, fault.New("decode tree", hashing.Sum(b).Short(), fault.Corrupt, err)
	}
	return t, nil
}

func decodeTree(encoded string) (*Tree, error) {
	if len(encoded) > math.MaxUint32 {
		return nil, fmt.Errorf("%d bytes", len(encoded))
	}
	d := decoder{rest: encoded}
	if v := d.byte(); d.err == nil && v != treeVersion {
		return nil, fmt.Errorf("version %d is not known", v)
	}
	n := d.uvarint()
	if d.err != nil {
		return nil, d.err
	}
	if n == 0 || n > maxTreeEntries || n > uint64(len(d.rest)/minEntryBytes+1) {
		return nil, fmt.Errorf("cannot hold %d entries", n)
	}
	numbers := make([]uint32, 2*n+1)
	t := &Tree{encoded: encoded, offsets: numbers[:n:n], next: numbers[n:]}
	next := uint64(1) // where the next directory's children begin
	for i := range n {
		t.offsets[i], t.next[i] = uint32(len(encoded)-len(d.rest)), uint32(next)
		e, count := d.treeEntry()
		if d.err != nil {
			return nil, d.err
		}
		if err := checkTreeEntry(&e, i == 0); err != nil {
			return nil, err
		}
		if count > n-next {
			return nil, fmt.Errorf("directory %q has more children than there are entries", e.Name)
		}
		next += count
		t.bytes += e.Size
	}
	t.next[n] = uint32(next)
	if len(d.rest) > 0 {
		return nil, errors.New("bytes after the last entry")
	}
	if next != n {
		return nil, errors.New("entries without a directory")
	}
	// A directory after its own children would be no tree. Breadth-first order makes
	// that impossible: children are numbered after every directory before them, and
	// all but the root have a parent because the counts add up, but a directory could
	// still come at or after its first child.
	for i := range t.Len() {
		lo, hi := t.Children(i)
		if lo < hi && lo <= i {
			return nil, fmt.Errorf("directory %q is inside itself", t.name(i))
		}
		last := ""
		for j := lo; j < hi; j++ {
			name := t.name(j)
			if name <= last {
				return nil, fmt.Errorf("%q and %q are not in order", last, name)
			}
			last = name
		}
	}
	t.digest = sync.OnceValue(func() hashing.Digest { return hashing.Sum([]byte(t.encoded)) })
	t.content = sync.OnceValue(func() hashing.Digest { return contentDigest(t) })
	return t, nil
}

func checkTreeEntry(e *TreeEntry, root bool) error {
	if root {
		if e.Name != "" || e.Kind != KindDir {
			return errors.New("the root is no directory or has a name")
		}
	} else if err := checkName(e.Name); err != nil {
		return err
	}
	if e.Mode > 0o7777 {
		return fmt.Errorf("%q: mode %#o is more than permission bits", e.Name, e.Mode)
	}
	switch e.Kind {
	case KindDir:
	case KindFile:
		if e.Size < 0 || e.Digest.IsZero() {
			return fmt.Errorf("%q: a file without content", e.Name)
		}
	case KindSymlink:
		return checkLink(e.Name, e.Link)
	default:
		return fmt.Errorf("%q: kind %d in a tree", e.Name, e.Kind)
	}
	return nil
}

// contentDigest hashes the entries in path order, each with what ContentDigest
// promises to look at.
func contentDigest(t *Tree) hashing.Digest {
	h := hashing.New(0)
	var b []byte
	for path, e := range t.All() {
		if path == "info/repodata_record.json" {
			continue
		}
		b = append(b[:0], byte(e.Kind))
		b = appendString(b, path)
		switch e.Kind {
		case KindFile:
			b = append(b, byte(e.Mode>>6&1))
			b = append(b, e.Digest[:]...)
		case KindSymlink:
			b = appendString(b, e.Link)
		}
		h.Write(b)
	}
	return h.Sums().Blake3
}

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

var (
	errShort  = errors.New("ends too early")
	errVarint = errors.New("a number is not in its shortest form")
)

// decoder takes values off the front of rest. After the first error it returns zero
// values; the caller looks at err when it needs to.
type decoder struct {
	rest string
	err  error
}

func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
	d.rest = ""
}

func (d *decoder) take(n uint64) string {
	if n > uint64(len(d.rest)) {
		d.fail(errShort)
		return ""
	}
	s := d.rest[:n]
	d.rest = d.rest[n:]
	return s
}

func (d *decoder) byte() byte {
	if s := d.take(1); s != "" {
		return s[0]
	}
	return 0
}

func (d *decoder) uvarint() uint64 {
	var v uint64
	for shift := uint(0); shift < 64; shift += 7 {
		if d.rest == "" {
			d.fail(errShort)
			return 0
		}
		c := d.rest[0]
		d.rest = d.rest[1:]
		if shift == 63 && c > 1 || c == 0 && shift > 0 {
			break
		}
		v |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return v
		}
	}
	d.fail(errVarint)
	return 0
}

func (d *decoder) varint() int64 {
	u := d.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

func (d *decoder) size() int64 {
	v := d.uvarint()
	if v > math.MaxInt64 {
		d.fail(errors.New("a size is negative"))
		return 0
	}
	return int64(v)
}

func (d *decoder) uint32() uint32 {
	v := d.uvarint()
	if v > math.MaxUint32 {
		d.fail(errors.New("a number is too large"))
		return 0
	}
	return uint32(v)
}

func (d *decoder) mode() uint32 { return d.uint32() }

func (d *decoder) string() string { return d.take(d.uvarint()) }

func (d *decoder) digest() (out hashing.Digest) {
	copy(out[:], d.take(hashing.Size))
	return out
}
