package index

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"condafs/beneath"
	"condafs/fault"
	"condafs/internal/failpoint"

	"github.com/dgraph-io/badger/v4"
)

// CommitInfo tells who changed the index, and what.
type CommitInfo struct {
	Session string   `json:"session,omitempty"`
	Label   string   `json:"label,omitempty"`
	Command string   `json:"command,omitempty"`
	UID     uint32   `json:"uid"`
	PID     int      `json:"pid,omitempty"`
	What    []string `json:"what,omitempty"` // a line for each change, for people
}

// CommitRecord is what the store remembers of an Update that changed something.
// Updates that were made as one group have the same Seq.
type CommitRecord struct {
	Seq  Seq       `json:"seq"`
	Time time.Time `json:"time"`
	CommitInfo
}

// maxWhat bounds the lines of a commit record, in bytes: it is for people to read.
const maxWhat = 64 << 10

// bounded cuts what would make a record too long.
func (i CommitInfo) bounded() CommitInfo {
	bytes := 0
	for n, line := range i.What {
		if bytes += len(line); bytes > maxWhat {
			i.What = append(i.What[:n:n], fmt.Sprintf("… and %d more", len(i.What)-n))
			break
		}
	}
	i.Command = i.Command[:min(len(i.Command), maxWhat)]
	i.Label = i.Label[:min(len(i.Label), maxWhat)]
	return i
}

// Log returns the last commits, the newest first; limit <= 0 means all that are
// remembered.
func (s *Store) Log(limit int) ([]CommitRecord, error) {
	return readRecords[CommitRecord](s, prefixCommit, limit)
}

// SessionRecord is what must be known of a session when the daemon is started again.
// While it is there, its snapshot Seq stays readable.
type SessionRecord struct {
	ID        string    `json:"id"`
	Seq       Seq       `json:"seq"`
	UID       uint32    `json:"uid"`
	GID       uint32    `json:"gid"`
	Label     string    `json:"label,omitempty"`
	Command   string    `json:"command,omitempty"`
	Ephemeral bool      `json:"ephemeral,omitempty"`
	Explicit  bool      `json:"explicit,omitempty"`
	OnFailure string    `json:"on_failure,omitempty"`
	Started   time.Time `json:"started"`
	PID       int       `json:"pid,omitempty"`
	Start     uint64    `json:"start,omitempty"` // when the process PID started
	State     string    `json:"state,omitempty"`
}

// PutSession writes a session's record, durably, in the place of an earlier one. Its
// Seq must be pinned, or head, or 0.
func (s *Store) PutSession(r SessionRecord) error {
	o, err := recordOp(prefixSession, r.ID, r)
	if err != nil {
		return err
	}
	undo, err := s.pins.addSession(r.ID, r.Seq)
	if err != nil {
		return err
	}
	if err := s.writeRecord(o); err != nil {
		undo()
		return err
	}
	failpoint.Hit(failpoint.SessionRecorded, s.dir)
	return nil
}

// DeleteSession removes a session's record; its directory is the caller's. There may
// be none.
func (s *Store) DeleteSession(id string) error {
	if err := s.writeRecord(op{key: idKey(prefixSession, id)}); err != nil {
		return err
	}
	failpoint.Hit(failpoint.SessionUnrecorded, s.dir)
	s.pins.removeSession(id)
	return nil
}

// Sessions returns all records, ordered by id.
func (s *Store) Sessions() ([]SessionRecord, error) {
	return readRecords[SessionRecord](s, prefixSession, 0)
}

// QuarantineRecord names something that was refused. What there is of it lies in
// QuarantineDir(ID).
type QuarantineRecord struct {
	ID      string    `json:"id"`
	Time    time.Time `json:"time"`
	Path    string    `json:"path"` // where a client, or the store, had it
	Reason  string    `json:"reason"`
	Session string    `json:"session,omitempty"`
	UID     uint32    `json:"uid"`
	Bytes   int64     `json:"bytes"`
}

// AddQuarantine writes a record, durably, in the place of an earlier one.
func (s *Store) AddQuarantine(r QuarantineRecord) error {
	o, err := recordOp(prefixQuarantine, r.ID, r)
	if err != nil {
		return err
	}
	return s.writeRecord(o)
}

// Quarantined returns all records, ordered by id.
func (s *Store) Quarantined() ([]QuarantineRecord, error) {
	return readRecords[QuarantineRecord](s, prefixQuarantine, 0)
}

// RemoveQuarantine removes a record and what lies in its directory. One that is not
// there is fault.NotFound.
func (s *Store) RemoveQuarantine(id string) error {
	if err := checkID(id); err != nil {
		return fault.New("remove from quarantine", id, fault.Usage, err)
	}
	var r QuarantineRecord
	found, err := s.getRecord(idKey(prefixQuarantine, id), &r)
	if err != nil {
		return err
	}
	if !found {
		return fault.New("remove from quarantine", id, fault.NotFound, nil)
	}
	// The content first: a record without content can be removed again.
	if err := beneath.RemoveTree(s.QuarantineDir(id)); err != nil {
		return fault.New("remove from quarantine", id, fault.Other, err)
	}
	return s.writeRecord(op{key: idKey(prefixQuarantine, id)})
}

// recordOp makes the write of a record under its id.
func recordOp(prefix byte, id string, record any) (op, error) {
	if err := checkID(id); err != nil {
		return op{}, fault.New("record", id, fault.Usage, err)
	}
	b, err := json.Marshal(record)
	if err == nil && len(b) > partSize {
		err = fmt.Errorf("it has %d bytes, at most %d are possible", len(b), partSize)
	}
	if err != nil {
		return op{}, fault.New("record", id, fault.Usage, err)
	}
	return op{key: idKey(prefix, id), value: b}, nil
}

// writeRecord writes a key that has no history.
func (s *Store) writeRecord(o op) error {
	_, err := s.commits.do(context.Background(), &request{prepare: func(b *batch) error {
		b.record(o)
		return nil
	}})
	return err
}

// getRecord reads one, if it is there.
func (s *Store) getRecord(key []byte, into any) (found bool, err error) {
	err = s.view(latest, func(txn *badger.Txn) error {
		item, err := txn.Get(key)
		if errors.Is(err, badger.ErrKeyNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		found = true
		return item.Value(func(b []byte) error { return json.Unmarshal(b, into) })
	})
	if err != nil {
		return false, dbError("read record", string(key), err)
	}
	return found, nil
}

// readRecords reads all of a kind, or the first of them.
func readRecords[R any](s *Store, prefix byte, limit int) ([]R, error) {
	var out []R
	err := s.view(latest, func(txn *badger.Txn) error {
		o := badger.DefaultIteratorOptions
		o.Prefix = []byte{prefix}
		it := txn.NewIterator(o)
		defer it.Close()
		for it.Rewind(); it.Valid() && (limit <= 0 || len(out) < limit); it.Next() {
			var r R
			if err := it.Item().Value(func(b []byte) error { return json.Unmarshal(b, &r) }); err != nil {
				return fmt.Errorf("record %q: %w", it.Item().Key(), err)
			}
			out = append(out, r)
		}
		return nil
	})
	if err != nil {
		return nil, dbError("read records", s.dir, err)
	}
	return out, nil
}
