package index

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"condafs/fault"
	"condafs/hashing"
	"condafs/internal/failpoint"
)

// The journal is what the database can be made of again, should it be lost:
//
//	trees/HEX       the encoding of a tree that the index has, named by its digest
//	journal/NUMBER  segments: records of all changes, in the order in which they were made
//
// Each group of updates is written to it before the group's syncfs, and so is durable
// whenever head has moved. A record names what it puts and what it deletes, so what
// was deleted stays so. Records carry their own digests: of a damaged segment all but
// what is damaged can be read.
//
// The last record of a daemon that was killed may be of a group that the database
// does not have. That is decided when the store is opened (see settleJournal); until
// then both states are right. Each daemon begins a segment of its own, at its first
// change, which says up to where the records of earlier ones count.
//
// A checkpoint is a segment that holds a whole state, and takes the place of all
// segments before it: it keeps the journal from growing without end.
const (
	treesName   = "trees"
	journalName = "journal"
)

// Kinds of records.
const (
	recordBegin      = 'b' // the first of a segment: a journalHead
	recordCommit     = 'c' // a group that moved head
	recordNote       = 'n' // a group that did not: sessions, quarantine
	recordCheckpoint = 's' // the first of a checkpoint: a journalHead
	recordState      = 'p' // a part of its state
	recordEnd        = 'e' // its last record
)

// A record is
//
//	magic, kind, seq, length of the payload, digest, payload
//
// Numbers have a fixed size and are big-endian. The digest is the first half of a
// BLAKE3 of kind, seq, length and payload.
const (
	journalMagic  = "\x89cfj"
	journalDigest = 16
	journalFrame  = len(journalMagic) + 1 + 8 + 4 + journalDigest
	segmentBytes  = 4 << 20 // a larger segment gets a successor
)

// journalHead is the first record of a segment. Records of earlier segments count if
// they are commits of up to Last, or notes of up to Version.
type journalHead struct {
	UUID    string
	Last    uint64
	Version uint64
	Sum     headSum // of the entries after the commit Last
}

func (h *journalHead) encode() []byte {
	b := appendString(nil, h.UUID)
	b = binary.BigEndian.AppendUint64(b, h.Last)
	b = binary.BigEndian.AppendUint64(b, h.Version)
	return append(b, h.Sum.encode()...)
}

func decodeJournalHead(b []byte) (journalHead, error) {
	d := decoder{rest: string(b)}
	h := journalHead{UUID: d.string(), Last: d.fixed64(), Version: d.fixed64(), Sum: d.sum()}
	if d.err == nil && d.rest != "" {
		d.fail(errors.New("bytes after the end"))
	}
	return h, d.err
}

// encodeCommit is the payload of a recordCommit: the sum after it, who made it, and
// what it changed.
func encodeCommit(sum headSum, commits []CommitRecord, ops []op) ([]byte, error) {
	who, err := json.Marshal(commits)
	if err != nil {
		return nil, err
	}
	return append(appendString(sum.encode(), string(who)), encodeOps(ops)...), nil
}

func decodeCommit(b []byte) (sum headSum, commits []CommitRecord, ops []op, err error) {
	d := decoder{rest: string(b)}
	sum = d.sum()
	who := d.string()
	if d.err == nil {
		d.err = json.Unmarshal([]byte(who), &commits)
	}
	if d.err != nil {
		return sum, nil, nil, d.err
	}
	ops, err = decodeOps([]byte(d.rest))
	return sum, commits, ops, err
}

func (d *decoder) fixed64() uint64 {
	if s := d.take(8); s != "" {
		return binary.BigEndian.Uint64([]byte(s))
	}
	return 0
}

func (d *decoder) sum() (out headSum) {
	for i := range out {
		out[i] = d.fixed64()
	}
	return out
}

// appendRecord appends a whole record.
func appendRecord(b []byte, kind byte, seq uint64, payload []byte) []byte {
	b = append(b, journalMagic...)
	from := len(b)
	b = append(b, kind)
	b = binary.BigEndian.AppendUint64(b, seq)
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	digest := recordDigest(b[from:], payload)
	b = append(b, digest[:journalDigest]...)
	return append(b, payload...)
}

func recordDigest(head, payload []byte) hashing.Digest {
	h := hashing.New(0)
	h.Write(head)
	h.Write(payload)
	return h.Sums().Blake3
}

// journal is the end that is written to. It belongs to the committer's goroutine.
type journal struct {
	dir     string // the store's
	uuid    string
	f       *os.File // the segment that grows; nil before the first record
	size    int64    // its
	before  int64    // its size without the last record
	named   bool     // its name is durable
	number  uint64   // of the newest file
	version uint64   // what the next segment's head says, as last
	last    uint64   // seq of the last commit
	sum     headSum  // after it
	due     int64    // bytes since the last checkpoint
	base    int64    // bytes of the last checkpoint
	buf     []byte
}

func segmentName(number uint64) string { return fmt.Sprintf("%016x", number) }

// segmentCost is what a segment counts beside its bytes: many small ones are a burden
// too.
const segmentCost = 64 << 10

// found takes up the segments of earlier daemons. The oldest is the last checkpoint,
// if there was one.
func (j *journal) found(numbers []uint64) error {
	for i, n := range numbers {
		fi, err := os.Lstat(filepath.Join(j.dir, journalName, segmentName(n)))
		if err != nil {
			return fault.New("open journal", j.dir, fault.Other, err)
		}
		if i == 0 {
			j.base = fi.Size()
		} else {
			j.due += fi.Size() + segmentCost
		}
		j.number = n
	}
	return nil
}

// append adds a record; if there is no segment, it begins one. After an error the
// record is not there, or the journal is broken, which is fault.IO.
func (j *journal) append(kind byte, seq uint64, payload []byte) error {
	j.buf = j.buf[:0]
	if j.f == nil {
		if err := j.begin(); err != nil {
			return journalError(j.dir, err)
		}
	}
	if j.size == 0 {
		h := journalHead{UUID: j.uuid, Last: j.last, Version: j.version, Sum: j.sum}
		j.buf = appendRecord(j.buf, recordBegin, seq, h.encode())
	}
	j.buf = appendRecord(j.buf, kind, seq, payload)
	n, err := j.f.Write(j.buf)
	if err != nil {
		if n > 0 {
			// A part of a record would only be read over, but takes room on a full disk.
			if terr := j.f.Truncate(j.size); terr != nil {
				return fault.New("write journal", j.dir, fault.IO, errors.Join(err, terr))
			}
		}
		return journalError(j.dir, err)
	}
	j.before = j.size
	j.size += int64(n)
	j.due += int64(n)
	if cap(j.buf) > segmentBytes {
		j.buf = nil
	}
	return nil
}

func journalError(dir string, err error) error {
	e := fault.New("write journal", dir, fault.Other, err)
	if fault.Is(err, fault.Full) {
		return e.WithHint(hintFull)
	}
	return e
}

func (j *journal) begin() error {
	name := filepath.Join(j.dir, journalName, segmentName(j.number+1))
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	j.f, j.size, j.before, j.named = f, 0, 0, false
	j.number++
	failpoint.Hit(failpoint.JournalBegun, j.dir)
	return nil
}

// takeBack removes the last record, of a group that failed: nobody was told that it
// was made, and its content may not be on disk. Should this fail too, the record is
// judged when the store is opened again.
func (j *journal) takeBack() error {
	if j.f == nil || j.before == j.size {
		return nil
	}
	if err := j.f.Truncate(j.before); err != nil {
		return journalError(j.dir, err)
	}
	j.size = j.before
	return nil
}

// committed notes that the database has a commit.
func (j *journal) committed(seq uint64, sum headSum) { j.last, j.sum = seq, sum }

// rotate ends the segment: the next record begins another one. version is the newest
// that the database has.
func (j *journal) rotate(version uint64) error {
	j.version = version
	if j.f == nil {
		return nil
	}
	err := j.f.Close()
	j.f = nil
	if err != nil {
		return fault.New("close journal", j.dir, fault.IO, err)
	}
	return nil
}

// sync makes it durable by itself, for groups without a syncfs.
func (j *journal) sync() error {
	if j.f == nil {
		return nil
	}
	if err := j.f.Sync(); err != nil || j.named {
		return err
	}
	err := syncDir(filepath.Join(j.dir, journalName))
	j.named = err == nil
	return err
}

// journaled are the prefixes of keys that the journal keeps.
var journaled = []byte{prefixEntry, prefixSession, prefixQuarantine, prefixNote}

// record writes a group into the journal, and its trees beside it. What the group
// writes to the database is completed by what the next daemon finds out from it.
func (c *committer) record(b *batch, ops []op) ([]op, headSum, error) {
	c.journal.before = c.journal.size // nothing to take back yet
	for d, parts := range b.trees {
		if err := c.store.writeTreeFile(d, joinParts(parts)); err != nil {
			return nil, headSum{}, err
		}
	}
	var kept []op
	for _, o := range ops {
		if slices.Contains(journaled, o.key[0]) {
			kept = append(kept, o)
		}
	}
	failpoint.Hit(failpoint.JournalWrite, c.store.dir)
	last, sum := c.journal.last, c.journal.sum
	if len(b.commits) > 0 {
		var err error
		if sum, err = b.sumAfter(sum); err != nil {
			return nil, sum, err
		}
		payload, err := encodeCommit(sum, b.commits, kept)
		if err != nil {
			return nil, sum, fault.New("write journal", c.store.dir, fault.Other, err)
		}
		if err := c.journal.append(recordCommit, c.next, payload); err != nil {
			return nil, sum, err
		}
		last = c.next
	} else if len(kept) > 0 {
		if err := c.journal.append(recordNote, c.next, encodeOps(kept)); err != nil {
			return nil, sum, err
		}
	}
	if b.moves || len(b.commits) > 0 {
		ops = append(ops[:len(ops):len(ops)],
			op{key: keySum, value: sum.encode()},
			op{key: keyJournal, value: putNumbers(last)})
	}
	return ops, sum, nil
}

func joinParts(parts []op) []byte {
	if len(parts) == 1 {
		return parts[0].value
	}
	var b []byte
	for _, p := range parts {
		b = append(b, p.value...)
	}
	return b
}

func (s *Store) treeFile(d hashing.Digest) string {
	return filepath.Join(s.dir, treesName, d.String())
}

// writeTreeFile writes a tree's encoding beside the journal. It is durable after the
// next syncfs. A file of that name that is there already is replaced whole, since
// head may rely on it.
func (s *Store) writeTreeFile(d hashing.Digest, encoded []byte) error {
	name := s.treeFile(d)
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o400)
	replace := errors.Is(err, fs.ErrExist)
	if replace {
		f, err = os.CreateTemp(s.StagingDir(), "tree-*")
	}
	if err != nil {
		return journalError(name, err)
	}
	_, err = f.Write(encoded)
	if err = errors.Join(err, f.Close()); err == nil && replace {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return journalError(name, errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}

// readTreeFile is the inverse. A file that is not there or damaged is fault.Corrupt.
func (s *Store) readTreeFile(d hashing.Digest) (encoded []byte, err error) {
	return s.readTreeFileBy(os.ReadFile, d)
}

func (s *Store) readTreeFileBy(readFile func(name string) ([]byte, error), d hashing.Digest) (encoded []byte, err error) {
	encoded, err = readFile(s.treeFile(d))
	if err == nil && hashing.Sum(encoded) != d {
		err = errors.New("its bytes are not what its name says")
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) && !fault.Is(err, fault.IO) {
		return nil, fault.New("read tree", d.String(), fault.Other, err)
	}
	if err != nil {
		return nil, fault.New("read tree", d.String(), fault.Corrupt, err)
	}
	return encoded, nil
}

// segments lists the journal's files, oldest first.
func segments(dir string) ([]uint64, error) {
	names, err := os.ReadDir(filepath.Join(dir, journalName))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return nil, fault.New("list journal", dir, fault.Other, err)
	}
	var out []uint64
	for _, e := range names {
		n, err := strconv.ParseUint(e.Name(), 16, 64)
		if err == nil && segmentName(n) == e.Name() && e.Type().IsRegular() {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out, nil
}
