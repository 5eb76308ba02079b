package index

import (
	"encoding/binary"
	"math"
)

// Seq numbers the states of a store. A later state has a greater one; numbers in
// between may never have been a state. The empty state of a new store is Seq 0.
type Seq uint64

// latest reads whatever is newest. Trees and records are read so: a tree is named by
// its content, and records have no history.
const latest = math.MaxUint64

// Badger's keys. Entries are versioned by Seq, all else only has a newest value.
//
//	e DIR \0 NAME     → entry
//	t DIGEST PART     → a part of a tree's encoding
//	c ^SEQ ^INDEX     → commit record; inverted, so that the newest comes first
//	s ID, q ID        → session record, quarantine record
//	r PART, R         → redo record: its parts, and its head, which makes it valid
//	h                 → head
//	n                 → counters
//	l                 → lifetime
//	m NAME            → note
//	u                 → sum of head's entries
//	j                 → the last commit in the journal
const (
	prefixEntry      = 'e'
	prefixTree       = 't'
	prefixCommit     = 'c'
	prefixSession    = 's'
	prefixQuarantine = 'q'
	prefixRedo       = 'r'
	prefixNote       = 'm'
)

var (
	keyRedo   = []byte("R")
	keyHead   = []byte("h")
	keyCounts = []byte("n")
	// keyJournal says which record of the journal made head what it is. Its version
	// is head's, unless a condafs that knew no journal has moved head since.
	keyJournal = []byte("j")
)

func entryKey(dir, name string) []byte {
	k := make([]byte, 0, len(dir)+len(name)+2)
	return append(dirPrefix(k, dir), name...)
}

// dirPrefix appends what the keys of all entries of a directory begin with. NUL ends
// it, which no path contains, so that "a" does not cover "ab" or "a/b".
func dirPrefix(k []byte, dir string) []byte {
	k = append(k, prefixEntry)
	k = append(k, dir...)
	return append(k, 0)
}

func commitKey(seq Seq, i int) []byte {
	k := make([]byte, 0, 13)
	k = append(k, prefixCommit)
	k = binary.BigEndian.AppendUint64(k, ^uint64(seq))
	return binary.BigEndian.AppendUint32(k, ^uint32(i))
}

func idKey(prefix byte, id string) []byte { return append([]byte{prefix}, id...) }

func partKey(prefix []byte, part int) []byte {
	k := make([]byte, 0, len(prefix)+4)
	k = append(k, prefix...)
	return binary.BigEndian.AppendUint32(k, uint32(part))
}
