package transfer

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"sync"

	"golang.org/x/sys/unix"

	"condafs/conda"
	"condafs/fault"
	"condafs/hashing"
	"condafs/index"
)

// source is one extracted directory. Its files are copied into the store when they
// are first looked at, and evidence is asked of the copies.
type source struct {
	root    *os.Root
	put     func(*os.File) (hashing.Sums, error)
	putText func([]byte) (hashing.Sums, error)
	open    func(hashing.Digest) (*os.File, error)
	objects []*object // sorted by path, parents first
	byPath  map[string]*object
	mode    uint32 // of the directory itself
	mtime   int64
}

// object is something in the directory.
type object struct {
	path string
	index.TreeEntry
	other bool // neither file, directory nor link
	copy  func() (hashing.Sums, error)
}

// openSource lists a directory in parent without reading its files. Close gives it back.
// What became a link meanwhile leads nowhere else than into parent.
func openSource(parent *os.Root, name string, maxFiles int) (*source, error) {
	root, err := parent.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	s := &source{root: root, byPath: map[string]*object{}}
	if err := s.walk(maxFiles); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return s, nil
}

func (s *source) Close() error { return s.root.Close() }

func (s *source) walk(maxFiles int) error {
	return fs.WalkDir(s.root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		if p == "." {
			s.mode, s.mtime = uint32(fi.Mode().Perm()), fi.ModTime().UnixNano()
			return nil
		}
		if len(s.objects) == maxFiles {
			return fault.New("read package", "", fault.Corrupt, fmt.Errorf("it holds more than %d files", maxFiles))
		}
		o := &object{path: p, TreeEntry: index.TreeEntry{Mode: uint32(fi.Mode().Perm()), Mtime: fi.ModTime().UnixNano()}}
		switch {
		case fi.IsDir():
			o.Kind = index.KindDir
		case fi.Mode().IsRegular():
			o.Kind, o.Size = index.KindFile, fi.Size()
			o.copy = sync.OnceValues(func() (hashing.Sums, error) { return s.take(p) })
		case fi.Mode()&fs.ModeSymlink != 0:
			o.Kind, o.Mode = index.KindSymlink, 0o777
			if o.Link, err = s.root.Readlink(p); err != nil {
				return err
			}
		default:
			o.other = true
		}
		s.objects = append(s.objects, o)
		s.byPath[p] = o
		return nil
	})
}

// take copies one file. What has become a FIFO since the walk must not block.
func (s *source) take(p string) (hashing.Sums, error) {
	f, err := openQuick(s.root, p)
	if err != nil {
		return hashing.Sums{}, err
	}
	sums, err := takeFile(f, s.put)
	return sums, errors.Join(err, f.Close())
}

// openQuick opens a file for reading, and does not wait for who would write to a FIFO.
func openQuick(root *os.Root, name string) (*os.File, error) {
	return root.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
}

// takeFile hands a regular file to put.
func takeFile(f *os.File, put func(*os.File) (hashing.Sums, error)) (hashing.Sums, error) {
	fi, err := f.Stat()
	if err != nil {
		return hashing.Sums{}, err
	}
	if !fi.Mode().IsRegular() {
		return hashing.Sums{}, fault.New("read", f.Name(), fault.Corrupt, errors.New("no regular file any more"))
	}
	return put(f)
}

// unlike no FileKind: evidence rejects it.
const special conda.FileKind = 255

// Entries implements conda.FileSet.
func (s *source) Entries() iter.Seq2[string, conda.FileInfo] {
	return func(yield func(string, conda.FileInfo) bool) {
		for _, o := range s.objects {
			info := conda.FileInfo{Kind: special, Mode: o.Mode, Size: o.Size, Link: o.Link, Sums: func(hashing.Extra) (hashing.Sums, error) { return o.copy() }}
			switch {
			case o.other:
			case o.Kind == index.KindDir:
				info.Kind = conda.DirectoryFile
			case o.Kind == index.KindFile:
				info.Kind = conda.RegularFile
			case o.Kind == index.KindSymlink:
				info.Kind = conda.SymlinkFile
			}
			if !yield(o.path, info) {
				return
			}
		}
	}
}

// Open implements conda.FileSet: it opens the copy.
func (s *source) Open(p string) (io.ReadCloser, error) {
	o := s.byPath[path.Clean(p)]
	if o == nil || o.copy == nil {
		return nil, fault.New("open", p, fault.NotFound, nil)
	}
	sums, err := o.copy()
	if err != nil {
		return nil, err
	}
	f, err := s.open(sums.Blake3)
	return f, inStore(err)
}

// tree makes the tree of a directory that has been copied. Modes are made what
// they'd be whatever the client's umask was.
func (s *source) tree(v *conda.Verdict) (*index.Tree, error) {
	b := index.NewTreeBuilder(index.TreeEntry{Mode: conda.NormalMode(conda.DirectoryFile, s.mode), Mtime: s.mtime})
	for _, o := range s.objects {
		e := o.TreeEntry
		switch e.Kind {
		case index.KindDir:
			e.Mode = conda.NormalMode(conda.DirectoryFile, e.Mode)
		case index.KindFile:
			sums, err := o.copy()
			if err != nil {
				return nil, err
			}
			e.Mode = v.Mode(o.path, e.Mode)
			if o.path == conda.CompletionMarker {
				if sums, err = s.publicRecord(sums); err != nil {
					return nil, err
				}
			}
			e.Digest, e.Size = sums.Blake3, sums.Size
		}
		if err := b.Add(o.path, e); err != nil {
			return nil, err
		}
	}
	return b.Build()
}

// publicRecord takes credentials out of a record that has been copied. What is too long
// to be a record has been rejected before.
func (s *source) publicRecord(sums hashing.Sums) (hashing.Sums, error) {
	f, err := s.open(sums.Blake3)
	if err != nil {
		return sums, inStore(err)
	}
	b, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return sums, inStore(err)
	}
	b, changed := conda.StripCredentials(b)
	if !changed {
		return sums, nil
	}
	return s.putText(b)
}

// matches reports whether the directory looks like the tree, by names, kinds, link
// targets, and the sizes and times of files: what a second import goes by. A record may
// have become shorter, see publicRecord.
func (s *source) matches(t *index.Tree) bool {
	if t.Len() != len(s.objects)+1 {
		return false
	}
	for p, e := range t.All() {
		if p == "" {
			continue
		}
		o := s.byPath[p]
		if o == nil || o.other || o.Kind != e.Kind || o.Link != e.Link {
			return false
		}
		if e.Kind == index.KindFile && (o.Size != e.Size && p != conda.CompletionMarker || o.Mtime != e.Mtime) {
			return false
		}
	}
	return true
}
