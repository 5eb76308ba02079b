package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"condafs/fault"
)

// record is one that was read, and is whole.
type record struct {
	kind    byte
	seq     uint64
	payload []byte
	sum     headSum // of a commit that was decoded
}

// segment is what could be read of a journal file.
type segment struct {
	number  uint64
	records []record
	damage  []string // what could not, for people
	torn    bool     // it ends in the middle of a record, as a crash leaves it
}

func readSegment(dir string, number uint64) (*segment, error) {
	return readSegmentBy(os.ReadFile, dir, number)
}

func readSegmentBy(readFile func(name string) ([]byte, error), dir string, number uint64) (*segment, error) {
	name := filepath.Join(dir, journalName, segmentName(number))
	b, err := readFile(name)
	if err != nil {
		if fault.Is(err, fault.IO) { // of the device: as good as damaged
			return &segment{number: number, damage: []string{err.Error()}}, nil
		}
		return nil, fault.New("read journal", name, fault.Other, err)
	}
	s := &segment{number: number}
	s.parse(b)
	return s, nil
}

// parse reads all records that are whole. After one that isn't it looks for the next
// that is.
func (s *segment) parse(b []byte) {
	for at := 0; at < len(b); {
		r, n, err := parseRecord(b[at:])
		if err == nil {
			s.records = append(s.records, r)
			at += n
			continue
		}
		next := nextRecord(b, at+1)
		if next < 0 {
			// Nothing whole comes after: what a crash leaves.
			s.torn = true
			return
		}
		s.damage = append(s.damage, fmt.Sprintf("bytes %d to %d: %v", at, next, err))
		at = next
	}
}

func nextRecord(b []byte, from int) int {
	for from < len(b) {
		i := bytes.Index(b[from:], []byte(journalMagic))
		if i < 0 {
			return -1
		}
		if _, _, err := parseRecord(b[from+i:]); err == nil {
			return from + i
		}
		from += i + 1
	}
	return -1
}

func parseRecord(b []byte) (r record, n int, err error) {
	if len(b) < journalFrame {
		return r, 0, errShort
	}
	if string(b[:len(journalMagic)]) != journalMagic {
		return r, 0, errors.New("no record begins there")
	}
	head := b[len(journalMagic) : journalFrame-journalDigest]
	length := int64(binary.BigEndian.Uint32(head[9:]))
	if length > int64(len(b)-journalFrame) {
		return r, 0, errShort
	}
	n = journalFrame + int(length)
	payload := b[journalFrame:n]
	if d := recordDigest(head, payload); !bytes.Equal(d[:journalDigest], b[journalFrame-journalDigest:journalFrame]) {
		return r, 0, errors.New("a record is damaged")
	}
	return record{kind: head[0], seq: binary.BigEndian.Uint64(head[1:]), payload: payload}, n, nil
}

// isCheckpoint tells whether it holds a whole state, or what is left of one.
func (s *segment) isCheckpoint() bool {
	return slices.ContainsFunc(s.records, func(r record) bool {
		return r.kind == recordCheckpoint || r.kind == recordState || r.kind == recordEnd
	})
}

// head returns what the segment says about those before it.
func (s *segment) head() (journalHead, bool) {
	if len(s.records) == 0 || s.records[0].kind != recordBegin && s.records[0].kind != recordCheckpoint {
		return journalHead{}, false
	}
	h, err := decodeJournalHead(s.records[0].payload)
	return h, err == nil
}

// tail is the end of a journal.
type tail struct {
	known  uint64   // the last commit that the database must have
	beyond []record // commits after that; the last of them may have been given up
	whole  bool     // nothing of it is damaged
}

// readTail looks at the newest segment. One whose first record is torn never had
// anything durable in it, so the one before it counts.
func readTail(dir string, numbers []uint64) (tail, error) {
	for _, n := range slices.Backward(numbers) {
		seg, err := readSegment(dir, n)
		if err != nil {
			return tail{}, err
		}
		h, ok := seg.head()
		if !ok && len(seg.records) == 0 && len(seg.damage) == 0 {
			continue
		}
		t := tail{known: h.Last, whole: ok && len(seg.damage) == 0}
		for _, r := range seg.records {
			if r.kind == recordCommit {
				t.beyond = append(t.beyond, r)
			}
		}
		return t, nil
	}
	return tail{}, nil
}

// history is the journal as a whole.
type history struct {
	uuid    string
	records []record // those that count, in order
	damage  []problemIn

	last uint64  // the last commit, also when only a checkpoint has it
	sum  headSum // what it made of head
	base journalHead
}

// problemIn is what is wrong with a segment.
type problemIn struct {
	number uint64
	what   string
}

func (p problemIn) String() string { return "segment " + segmentName(p.number) + ": " + p.what }

// readHistory reads the journal: the newest checkpoint, and what came after.
func readHistory(dir string, progress func(done, total int64)) (*history, error) {
	numbers, err := segments(dir)
	if err != nil {
		return nil, err
	}
	h := new(history)
	for i, n := range numbers {
		seg, err := readSegment(dir, n)
		if err != nil {
			return nil, err
		}
		h.add(seg)
		if progress != nil {
			progress(int64(i+1), int64(len(numbers)))
		}
	}
	return h, nil
}

// add adds the next segment.
func (h *history) add(seg *segment) {
	wrong := func(format string, args ...any) {
		h.damage = append(h.damage, problemIn{seg.number, fmt.Sprintf(format, args...)})
	}
	head, ok := seg.head()
	switch {
	case seg.isCheckpoint():
		*h = history{}
		if n := len(seg.records); !ok || seg.records[n-1].kind != recordEnd {
			wrong("the checkpoint is not whole")
		}
		h.base = head
	case ok:
		h.forget(head)
		if h.sum != head.Sum {
			wrong("records that came before it are lost")
		}
	}
	for _, d := range seg.damage {
		wrong("%s", d)
	}
	if ok {
		h.uuid, h.last, h.sum = head.UUID, head.Last, head.Sum
	}
	for _, r := range seg.records {
		switch r.kind {
		case recordCommit:
			var err error
			if r.sum, _, _, err = decodeCommit(r.payload); err != nil {
				wrong("%v", err)
				continue
			}
			h.last, h.sum = r.seq, r.sum
			h.records = append(h.records, r)
		case recordNote, recordState:
			h.records = append(h.records, r)
		}
	}
}

// forget drops what was given up before a segment was begun.
func (h *history) forget(head journalHead) {
	h.records = slices.DeleteFunc(h.records, func(r record) bool {
		return r.kind == recordCommit && r.seq > head.Last || r.kind == recordNote && r.seq > head.Version
	})
	h.last, h.sum = h.base.Last, h.base.Sum
	for _, r := range slices.Backward(h.records) {
		if r.kind == recordCommit {
			h.last, h.sum = r.seq, r.sum
			return
		}
	}
}

// before returns head's sum after a commit that may have successors, or zero.
func (h *history) before(last uint64) headSum {
	if h.base.Last == last {
		return h.base.Sum
	}
	for _, r := range slices.Backward(h.records) {
		if r.kind == recordCommit && r.seq == last {
			return r.sum
		}
	}
	return headSum{}
}
