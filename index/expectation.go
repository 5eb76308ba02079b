package index

import (
	"context"
	"encoding/binary"
	"errors"
	"os"

	"condafs/fault"
	"condafs/hashing"
)

// expectation is what should be in objects/, found in one walk over the index and asked
// for one directory at a time. A store can have millions of blobs and a scrub takes days,
// so it lies in a file without a name, sorted by the first bytes of the digests only.
type expectation struct {
	file   *os.File
	size   int64
	shards [256]struct {
		buf    []byte
		chunks []chunk
	}
}

type chunk struct{ offset, length int64 }

const (
	expectedBytes = hashing.Size + 8 // a digest and a size
	expectedChunk = 100 * expectedBytes
)

func (s *Store) newExpectation() (*expectation, error) {
	f, err := os.CreateTemp(s.StagingDir(), "scrub-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &expectation{file: f}, nil
}

func (e *expectation) close() error { return e.file.Close() }

// add notes a blob, which may be noted already.
func (e *expectation) add(d hashing.Digest, size int64) error {
	s := &e.shards[d[0]]
	s.buf = binary.BigEndian.AppendUint64(append(s.buf, d[:]...), uint64(size))
	if len(s.buf) < expectedChunk {
		return nil
	}
	if _, err := e.file.WriteAt(s.buf, e.size); err != nil {
		return err
	}
	s.chunks = append(s.chunks, chunk{e.size, int64(len(s.buf))})
	e.size += int64(len(s.buf))
	s.buf = s.buf[:0]
	return nil
}

// part returns the sizes of the blobs whose digests begin with a byte.
func (e *expectation) part(first byte) (map[hashing.Digest]int64, error) {
	s := &e.shards[first]
	out := make(map[hashing.Digest]int64)
	take := func(b []byte) {
		for ; len(b) >= expectedBytes; b = b[expectedBytes:] {
			out[hashing.Digest(b[:hashing.Size])] = int64(binary.BigEndian.Uint64(b[hashing.Size:]))
		}
	}
	take(s.buf)
	b := make([]byte, expectedChunk)
	for _, c := range s.chunks {
		if _, err := e.file.ReadAt(b[:c.length], c.offset); err != nil {
			return nil, err
		}
		take(b[:c.length])
	}
	return out, nil
}

// expect walks over what head and the sessions refer to, once. What it finds damaged of
// the index is told, and what that leads to is not expected then.
func (x *Scrub) expect(ctx context.Context) (*expectation, []Problem, error) {
	e, err := x.store.newExpectation()
	if err != nil {
		return nil, nil, fault.New("scrub", x.store.dir, fault.Other, err)
	}
	problems, err := x.walk(ctx, e)
	if err != nil {
		return nil, nil, errors.Join(err, e.close())
	}
	return e, problems, nil
}

func (x *Scrub) walk(ctx context.Context, e *expectation) (problems []Problem, err error) {
	s := x.store
	states := s.pinLive()
	var seqs []Seq
	for _, p := range states {
		defer p.Release()
		seqs = append(seqs, p.Seq())
	}
	trees := make(map[hashing.Digest]struct{})
	var failed error // of ours, and not the database's
	err = s.eachVersion(ctx, seqs, func(path string, entry *Entry) error {
		switch entry.Kind {
		case KindFile:
			failed = e.add(entry.Digest, entry.Size)
		case KindTree:
			trees[entry.Digest] = struct{}{}
		}
		if failed == nil {
			failed = x.o.Pace(ctx, len(path)+expectedBytes)
		}
		return failed
	})
	if failed != nil {
		return nil, fault.New("scrub", s.dir, fault.Other, failed)
	}
	if fault.Is(err, fault.Corrupt) {
		problems = append(problems, damagedIndex(dbName, err))
	} else if err != nil {
		return nil, err
	}
	for d := range trees {
		t, err := s.loadTree(d)
		if fault.Is(err, fault.Corrupt) {
			problems = append(problems, Problem{Kind: BadTree, Digest: d, Detail: err.Error()})
			continue
		}
		if err != nil {
			return nil, err
		}
		for f := range t.files() {
			if err := e.add(f.Digest, f.Size); err != nil {
				return nil, fault.New("scrub", s.dir, fault.Other, err)
			}
		}
		if err := x.o.Pace(ctx, int(t.memory())); err != nil {
			return nil, err
		}
	}
	return problems, nil
}

// Affected names the entries of head that problems affect, and leaves out what is missing
// and nobody refers to any more; stale says that there was such a thing, as after a
// collection. It takes one walk over the index; one that is damaged is fault.Corrupt.
func (s *Store) Affected(ctx context.Context, problems []Problem) (real []Problem, stale bool, err error) {
	about := make(map[hashing.Digest][]string) // paths in head
	lost := make(map[hashing.Digest]bool)
	for _, p := range problems {
		if !p.Digest.IsZero() && p.Kind != Journal {
			lost[p.Digest] = true
		}
	}
	if len(lost) == 0 {
		return problems, false, nil
	}
	refs, err := s.Referrers(ctx, func(d hashing.Digest) bool { return lost[d] })
	if err != nil {
		return nil, false, err
	}
	seen := make(map[hashing.Digest]bool)
	for _, r := range refs {
		seen[r.Entry.Digest] = true
		if r.Head && lost[r.Entry.Digest] {
			about[r.Entry.Digest] = append(about[r.Entry.Digest], r.Path)
		}
		for _, e := range r.Lost {
			seen[e.Digest] = true
		}
		if !r.Head || len(r.Lost) == 0 {
			continue
		}
		t, err := s.loadTree(r.Entry.Digest)
		if err != nil {
			return nil, false, err
		}
		for path, e := range t.All() {
			if e.Kind == KindFile && lost[e.Digest] {
				about[e.Digest] = append(about[e.Digest], r.Path+"/"+path)
			}
		}
	}
	for _, p := range problems {
		p.Paths = about[p.Digest]
		if p.Kind == Missing {
			if !seen[p.Digest] {
				stale = true
				continue
			}
			// A repair has given it up, and head has done without it since.
			if _, given := s.givenUp.Load(p.Digest); given && len(p.Paths) == 0 {
				continue
			}
		}
		real = append(real, p)
	}
	return real, stale, nil
}
