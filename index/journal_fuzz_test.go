package index

import (
	"bytes"
	"testing"
)

// FuzzJournal: whatever a segment holds, reading it ends without a panic, and finds each
// whole record that follows it, with the content that it had.
func FuzzJournal(f *testing.F) {
	begin := journalHead{UUID: "u", Last: 3, Version: 1}
	commit, err := encodeCommit(headSum{1, 2}, []CommitRecord{{}}, []op{{key: []byte("k"), value: []byte("v")}})
	if err != nil {
		f.Fatal(err)
	}
	whole := appendRecord(appendRecord(nil, recordBegin, 3, begin.encode()), recordCommit, 4, commit)
	f.Add(whole)
	f.Add(whole[:len(whole)-1])
	f.Add([]byte(journalMagic + journalMagic))
	f.Add(begin.encode())
	f.Add(commit)
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = decodeJournalHead(b)
		_, _, _, _ = decodeCommit(b)
		s := &segment{}
		s.parse(appendRecord(bytes.Clone(b), recordCommit, 9, commit))
		if len(s.records) == 0 {
			t.Fatal("the last record was not found")
		}
		last := s.records[len(s.records)-1]
		if last.kind != recordCommit || last.seq != 9 || !bytes.Equal(last.payload, commit) || s.torn {
			t.Errorf("the last record is %+v, torn %v", last, s.torn)
		}
		if len(s.records) == 1 && len(b) > 0 && len(s.damage) == 0 {
			t.Error("nobody is told of what was left out")
		}
		s.head()
	})
}
