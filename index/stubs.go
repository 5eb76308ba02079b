package index

// Interim: the method signatures of the store, so that neighbours compile. The real
// ones replace this file shortly.

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"time"

	"condafs/hashing"
)

var errInterim = errors.New("not yet")

type Seq uint64

type Options struct {
	Logger *slog.Logger // nil: slog.Default
}

type Store struct{}

func Open(dir string, o Options) (*Store, error)      { return nil, errInterim }
func (s *Store) Close() error                         { return nil }
func (s *Store) Dir() string                          { return "" }
func (s *Store) Head() Seq                            { return 0 }
func (s *Store) StagingDir() string                   { return "" }
func (s *Store) SessionDir(id string) string          { return "" }
func (s *Store) QuarantineDir(id string) string       { return "" }
func (s *Store) Pin(seq Seq) (*Snapshot, error)       { return nil, errInterim }
func (s *Store) PinHead() *Snapshot                   { return nil }
func (s *Store) Tree(d hashing.Digest) (*Tree, error) { return nil, errInterim }
func (s *Store) HasBlob(d hashing.Digest) bool        { return false }
func (s *Store) OpenBlob(d hashing.Digest) (*os.File, error) {
	return nil, errInterim
}

type Snapshot struct{}

func (p *Snapshot) Seq() Seq                             { return 0 }
func (p *Snapshot) Get(path string) (Entry, bool, error) { return Entry{}, false, errInterim }
func (p *Snapshot) List(dir string) ([]DirEntry, error)  { return nil, errInterim }
func (p *Snapshot) Release()                             {}

type Hold struct{}

func (s *Store) NewHold() *Hold           { return nil }
func (h *Hold) Blob(ds ...hashing.Digest) {}
func (h *Hold) Tree(d hashing.Digest)     {}
func (h *Hold) Release()                  {}
func (s *Store) AdoptFile(h *Hold, path string, d hashing.Digest) (moved bool, err error) {
	return false, errInterim
}
func (s *Store) PutBlob(h *Hold, r io.Reader, extra hashing.Extra) (hashing.Sums, error) {
	return hashing.Sums{}, errInterim
}

type CommitInfo struct {
	Session string   `json:"session,omitempty"`
	Label   string   `json:"label,omitempty"`
	Command string   `json:"command,omitempty"`
	UID     uint32   `json:"uid"`
	PID     int      `json:"pid,omitempty"`
	What    []string `json:"what,omitempty"`
}

type CommitRecord struct {
	Seq  Seq       `json:"seq"`
	Time time.Time `json:"time"`
	CommitInfo
}

type Tx struct{}

func (t *Tx) Head() Seq                                  { return 0 }
func (t *Tx) Get(path string) (Entry, bool, error)       { return Entry{}, false, errInterim }
func (t *Tx) List(dir string) ([]DirEntry, error)        { return nil, errInterim }
func (t *Tx) Put(path string, e Entry) error             { return errInterim }
func (t *Tx) Delete(path string) error                   { return errInterim }
func (t *Tx) PutTree(tree *Tree) (hashing.Digest, error) { return hashing.Digest{}, errInterim }

func (s *Store) Update(ctx context.Context, info CommitInfo, fn func(tx *Tx) error) (Seq, error) {
	return 0, errInterim
}
func (s *Store) Log(limit int) ([]CommitRecord, error) { return nil, errInterim }

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
	Start     uint64    `json:"start,omitempty"` // the leader's start time
	State     string    `json:"state,omitempty"`
}

func (s *Store) PutSession(r SessionRecord) error   { return errInterim }
func (s *Store) DeleteSession(id string) error      { return errInterim }
func (s *Store) Sessions() ([]SessionRecord, error) { return nil, errInterim }

type QuarantineRecord struct {
	ID      string    `json:"id"`
	Time    time.Time `json:"time"`
	Path    string    `json:"path"`
	Reason  string    `json:"reason"`
	Session string    `json:"session,omitempty"`
	UID     uint32    `json:"uid"`
	Bytes   int64     `json:"bytes"`
}

func (s *Store) AddQuarantine(r QuarantineRecord) error   { return errInterim }
func (s *Store) Quarantined() ([]QuarantineRecord, error) { return nil, errInterim }
func (s *Store) RemoveQuarantine(id string) error         { return errInterim }

type GCOptions struct{ DryRun bool }
type GCReport struct {
	Blobs int64 `json:"blobs"` // removed
	Bytes int64 `json:"bytes"`
	Trees int64 `json:"trees"`
	Kept  int64 `json:"kept"` // blobs that stay
}

func (s *Store) GC(ctx context.Context, o GCOptions, progress func(done, total int64)) (GCReport, error) {
	return GCReport{}, errInterim
}

type VerifyOptions struct {
	Full   bool // rehash everything
	Repair bool // move damaged blobs into quarantine
}
type ProblemKind string

const (
	Missing ProblemKind = "missing" // a blob is not there
	Size    ProblemKind = "size"    // a blob is shorter or longer
	Content ProblemKind = "content" // a blob's bytes are not its name's
	NoTree  ProblemKind = "tree"    // a tree is not there or does not decode
	Foreign ProblemKind = "foreign" // a file in objects/ that is no blob
)

type Problem struct {
	Kind   ProblemKind    `json:"kind"`
	Digest hashing.Digest `json:"digest,omitzero"`
	File   string         `json:"file,omitempty"` // relative to the store
	Paths  []string       `json:"paths,omitempty"`
	Detail string         `json:"detail,omitempty"`
}
type VerifyReport struct {
	Blobs    int64     `json:"blobs"`
	Bytes    int64     `json:"bytes"`
	Hashed   int64     `json:"hashed"`
	Problems []Problem `json:"problems"`
}

func (s *Store) Verify(ctx context.Context, o VerifyOptions, progress func(done, total int64)) (VerifyReport, error) {
	return VerifyReport{}, errInterim
}

type Stats struct {
	Head         Seq    `json:"head"`
	UUID         string `json:"uuid"`
	Packages     int64  `json:"packages"`
	Files        int64  `json:"files"`
	LogicalBytes int64  `json:"logical_bytes"`
	Blobs        int64  `json:"blobs"`
	ObjectBytes  int64  `json:"object_bytes"`
	Snapshots    int    `json:"snapshots"`
	Sessions     int    `json:"sessions"`
	Quarantined  int    `json:"quarantined"`
}

func (s *Store) Stats() (Stats, error) { return Stats{}, errInterim }
