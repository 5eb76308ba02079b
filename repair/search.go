package repair

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"

	"condafs/conda"
	"condafs/fault"
	"condafs/hashing"
	"condafs/index"
)

// search looks for lost contents.
type search struct {
	*repairing
	wanted map[hashing.Digest]bool
	sizes  map[int64]bool // of what is wanted: others need not be read
	total  int64
}

func (s *search) want(d hashing.Digest, size int64) {
	s.wanted[d] = true
	s.sizes[size] = true
}

// bring takes a content if it is wanted.
func (s *search) bring(r io.Reader, from string) error {
	d, ok, err := s.store.Bring(s.hold, r, func(d hashing.Digest) bool { return s.wanted[d] })
	if err != nil || !ok {
		return err
	}
	delete(s.wanted, d)
	s.brought(d, from)
	if s.o.Progress != nil {
		s.o.Progress(s.total-int64(len(s.wanted)), s.total)
	}
	return nil
}

// inArchives looks into the archives of the packages that have lost files.
func (s *search) inArchives(refs []index.Referrer) error {
	head := s.store.PinHead()
	defer head.Release()
	looked := make(map[hashing.Digest]bool)
	for _, ref := range refs {
		if !s.needs(ref) {
			continue
		}
		archives, err := s.archivesOf(head, ref.Path)
		if err != nil {
			return err
		}
		for name, e := range archives {
			if looked[e.Digest] {
				continue
			}
			looked[e.Digest] = true
			if err := s.inArchive(name, e); err != nil {
				return err
			}
		}
	}
	return nil
}

// needs tells whether a package still lacks something.
func (s *search) needs(ref index.Referrer) bool {
	for _, e := range ref.Lost {
		if s.wanted[e.Digest] {
			return true
		}
	}
	return false
}

// archivesOf finds the archives of a package in all spaces of head, by name.
func (s *search) archivesOf(head *index.Snapshot, pkg string) (map[string]index.Entry, error) {
	spaces, err := head.List("")
	if err != nil {
		return nil, err
	}
	out := make(map[string]index.Entry)
	_, rel := cutSpace(pkg)
	dist := path.Base(rel)
	for _, space := range spaces {
		for _, dir := range []string{path.Dir(rel), "pkgs"} {
			for _, ext := range []string{".conda", ".tar.bz2"} {
				at := path.Join(space.Name, dir, dist+ext)
				e, ok, err := head.Get(at)
				if err != nil {
					return nil, err
				}
				if ok && e.Kind == index.KindFile {
					out[at] = e
				}
			}
		}
	}
	return out, nil
}

func cutSpace(p string) (space, rel string) {
	for i := range len(p) {
		if p[i] == '/' {
			return p[:i], p[i+1:]
		}
	}
	return p, ""
}

// inArchive takes what is wanted out of one archive. One that is damaged itself, or is
// none, gives what it gives.
func (s *search) inArchive(name string, e index.Entry) error {
	f, err := s.store.OpenBlobSize(e.Digest, e.Size)
	if fault.Is(err, fault.Corrupt) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // read only
	var failed error
	err = conda.WalkArchive(s.ctx, f, e.Size, path.Base(name), s.o.Limits, func(m conda.Member, r io.Reader) error {
		if len(s.wanted) == 0 {
			return errFound
		}
		if m.Type != conda.MemberFile || !s.sizes[m.Size] {
			return nil
		}
		// What the archive's reader says is about the archive; the rest is the store's.
		src := &reader{r: r}
		if err := s.bring(src, "the archive "+path.Base(name)); err != nil && src.err == nil {
			failed = err
			return err
		}
		return src.err
	})
	switch {
	case failed != nil:
		return failed
	case s.ctx.Err() != nil:
		return s.ctx.Err()
	case err != nil && !errors.Is(err, errFound) && !fault.Is(err, fault.Corrupt) && !fault.Is(err, fault.IO):
		return err
	}
	return nil
}

// reader remembers that reading failed.
type reader struct {
	r   io.Reader
	err error
}

func (r *reader) Read(b []byte) (int, error) {
	n, err := r.r.Read(b)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

// inDirectories looks where else the same bytes may lie.
func (s *search) inDirectories() error {
	dirs := map[string]string{
		filepath.Dir(s.store.SessionDir("x")):    "the overlay of a session",
		filepath.Dir(s.store.QuarantineDir("x")): "quarantine",
	}
	for _, d := range s.o.Shelf {
		dirs[d] = "the shelf"
	}
	for dir, what := range dirs {
		if err := s.inDirectory(dir, what); err != nil {
			return err
		}
	}
	return nil
}

// inDirectory reads the files of a directory that have a wanted size. Clients change
// what is in there meanwhile, so what can't be read is passed over.
func (s *search) inDirectory(dir, what string) error {
	if len(s.wanted) == 0 {
		return nil
	}
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fault.New("look for lost content", dir, fault.Other, err)
	}
	defer root.Close() //nolint:errcheck // read only
	err = fs.WalkDir(root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if s.ctx.Err() != nil {
			return s.ctx.Err()
		}
		if len(s.wanted) == 0 {
			return fs.SkipAll
		}
		if err != nil {
			return nil // gone, or not for us
		}
		if !d.Type().IsRegular() {
			return nil
		}
		fi, err := d.Info()
		if err != nil || !s.sizes[fi.Size()] {
			return nil
		}
		f, err := root.OpenFile(p, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if err != nil {
			return nil
		}
		defer f.Close() //nolint:errcheck // read only
		if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
			return nil
		}
		src := &reader{r: f}
		if err := s.bring(src, what); err != nil && src.err == nil {
			return err
		}
		return nil
	})
	return err
}
