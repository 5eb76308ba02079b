package cow

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"os"

	"condafs/conda"
	"condafs/fault"
	"condafs/hashing"
	"condafs/index"
)

// opener opens a regular file of a harvest.
type opener = func() (*os.File, error)

// file is a unit, or a member of one, that is a single file or link: open and
// hashed if it is a file.
type file struct {
	HarvestEntry
	unit conda.Unit
	path string
	gen  uint64
	f    *os.File // nil for a link
	sums hashing.Sums
}

// readFile harvests a single file or link that nobody writes to, and hashes it.
// The caller closes it.
func (s *Session) readFile(p string, extra hashing.Extra) (*file, error) {
	c, err := s.read(p)
	if err != nil {
		return nil, err
	}
	h := c.list[0]
	f := &file{HarvestEntry: h, unit: conda.Classify(p, false), path: p, gen: c.gen}
	switch h.Kind {
	case index.KindSymlink:
		return f, nil
	case index.KindFile:
	default:
		return nil, fault.New("read unit", p, fault.Unsupported, errors.New("it is neither a file nor a link"))
	}
	if f.f, err = h.Open(); err != nil {
		return nil, err
	}
	if extra == archiveExtra {
		f.sums, err = s.sumsOf(p, &h, c.gen, f.f)
	} else {
		f.sums, err = hashing.File(f.f, extra)
	}
	if err != nil {
		return nil, errors.Join(fault.New("read unit", p, fault.Other, err), f.f.Close())
	}
	return f, nil
}

func (f *file) ReadAt(b []byte, off int64) (int, error) { return f.f.ReadAt(b, off) }

func (f *file) close() {
	if f.f != nil {
		f.f.Close() //nolint:errcheck // read only
	}
}

// part returns the file as a part that has passed its checks.
func (f *file) part(s *Session, trust conda.Trust) *part {
	e := index.Entry{
		Kind: f.Kind, Trust: uint8(trust), Mode: f.Mode, Owner: s.uid, Mtime: f.Mtime,
		Size: f.sums.Size, Digest: f.sums.Blake3, Link: f.Link,
	}
	if f.sums.Has&hashing.SHA256 != 0 && f.unit.Kind == conda.Archive {
		e.SHA256 = hex.EncodeToString(f.sums.SHA256[:])
	}
	p := &part{unit: f.unit, path: f.path, gen: f.gen, shown: form{entry: e}, public: form{entry: e}}
	if f.unit.Kind == conda.Archive || f.unit.Kind == conda.RattlerPackage {
		p.public.entry.Mode = conda.NormalMode(conda.RegularFile, e.Mode)
	}
	if !f.Lower {
		p.overlay = map[string]hashing.Digest{}
		if f.Kind == index.KindFile {
			p.overlay[""] = e.Digest
		}
	}
	return p
}

// prepareMember checks one file of a repodata group.
func (s *Session) prepareMember(ctx context.Context, p string) (*part, error) {
	return s.prepareFile(ctx, p, func(f *file) error {
		if f.f == nil {
			return fault.New("check repodata", p, fault.Corrupt, errors.New("it is no regular file"))
		}
		return conda.CheckRepodata(p, io.NewSectionReader(f, 0, f.sums.Size))
	})
}

// prepareFile reads a plain file or link, and takes the session's path out of
// it where that may stand.
func (s *Session) prepareFile(ctx context.Context, p string, check func(*file) error) (*part, error) {
	if err := s.acquire(ctx); err != nil {
		return nil, err
	}
	defer s.yield()
	f, err := s.readFile(p, 0)
	if err != nil {
		return nil, err
	}
	defer f.close()
	if check != nil {
		if err := check(f); err != nil {
			return nil, err
		}
	}
	part := f.part(s, conda.TrustOpaque)
	if f.f == nil {
		return part, nil
	}
	public := index.TreeEntry{Size: f.sums.Size, Digest: f.sums.Blake3}
	if err := s.rewrite(p, &public, f.Open); err != nil {
		return nil, err
	}
	part.public.entry.Size, part.public.entry.Digest = public.Size, public.Digest
	return part, nil
}

// readList reads a list of addresses as it is to be published.
func (s *Session) readList(p string) ([]byte, *file, error) {
	f, err := s.readFile(p, 0)
	if err != nil {
		return nil, nil, err
	}
	defer f.close()
	if f.f == nil || f.sums.Size > maxText {
		return nil, nil, fault.New("read list", p, fault.Corrupt, errors.New("it is no file, or too long"))
	}
	b, err := readAll(f.Open)
	if err != nil {
		return nil, nil, fault.New("read list", p, fault.Other, err)
	}
	if bytes.IndexByte(b, 0) >= 0 {
		return nil, nil, fault.New("read list", p, fault.Corrupt, errors.New("it holds a NUL byte"))
	}
	if s.e.o.MountPoint != "" {
		b, _ = conda.RewriteSessionPaths(b, s.e.o.MountPoint, s.id)
	}
	return b, f, nil
}
