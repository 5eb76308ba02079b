package cow

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"condafs/fault"
	"condafs/hashing"
	"condafs/index"
)

// source is what a view needs of the store: a pinned snapshot and its contents.
type source interface {
	Get(path string) (index.Entry, bool, error)
	List(dir string) ([]index.DirEntry, error) // empty if there is no such directory
	Tree(d hashing.Digest) (*index.Tree, error)
	OpenBlob(d hashing.Digest, size int64) (*os.File, error)
}

// pinned is the source in earnest.
type pinned struct {
	*index.Snapshot
	store *index.Store
}

func (p pinned) Tree(d hashing.Digest) (*index.Tree, error) { return p.store.Tree(d) }
func (p pinned) OpenBlob(d hashing.Digest, size int64) (*os.File, error) {
	return p.store.OpenBlobSize(d, size)
}

// lower is what a view shows where its overlay has nothing: the union of some
// spaces of a snapshot. Of two entries at one path the one in the earlier space
// counts; directories of the index are merged.
//
// It keeps nothing, needs no lock, and makes no system call of its own.
type lower struct {
	src    source
	spaces []string
}

func (l *lower) root() *object {
	return newObject("", "", &index.Entry{Kind: index.KindDir, Mode: 0o755})
}

// get returns what is at a path of the index, or nil.
func (l *lower) get(path, name string) (*object, error) {
	for _, s := range l.spaces {
		e, ok, err := l.src.Get(s + "/" + path)
		if err != nil {
			return nil, err
		}
		if ok {
			return newObject(path, name, &e), nil
		}
	}
	return nil, nil
}

// child returns what is called name in a directory, or nil.
func (l *lower) child(o *object, name string) (*object, error) {
	if o.pkg == nil {
		return l.get(join(o.path, name), name)
	}
	t, err := l.src.Tree(o.pkg.digest)
	if err != nil {
		return nil, err
	}
	i, ok := t.Child(o.at, name)
	if !ok {
		return nil, nil
	}
	return inPackage(o.pkg, t, i, o.path, name), nil
}

// each calls f for everything in a directory until it returns false. The names of
// what is in a package share memory with its manifest: they are not to be kept.
func (l *lower) each(o *object, f func(c *object) bool) error {
	if o.pkg == nil {
		return l.eachMerged(o, f)
	}
	t, err := l.src.Tree(o.pkg.digest)
	if err != nil {
		return err
	}
	lo, hi := t.Children(o.at)
	for i := lo; i < hi; i++ {
		if !f(inPackage(o.pkg, t, i, o.path, t.At(i).Name)) {
			return nil
		}
	}
	return nil
}

func (l *lower) eachMerged(o *object, f func(c *object) bool) error {
	var seen map[string]bool
	for i, s := range l.spaces {
		dir := s
		if o.path != "" {
			dir = s + "/" + o.path
		}
		list, err := l.src.List(dir)
		if err != nil {
			return err
		}
		for j := range list {
			e := &list[j]
			if seen[e.Name] {
				continue
			}
			if i+1 < len(l.spaces) {
				if seen == nil {
					seen = make(map[string]bool)
				}
				seen[e.Name] = true
			}
			if !f(newObject(join(o.path, e.Name), e.Name, &e.Entry)) {
				return nil
			}
		}
	}
	return nil
}

// open opens the content of a file.
func (l *lower) open(o *object) (*os.File, error) {
	f, err := l.src.OpenBlob(o.Digest, o.Size)
	if err != nil && fault.Is(err, fault.NotFound) {
		// The file exists for the client, only the store has lost it.
		err = fault.New("open", o.Name, fault.Corrupt, err)
	}
	return f, err
}

// origin describes a directory so that find finds it again, also when something
// else has come to its place.
func (o *object) origin() string {
	if o.pkg == nil {
		return "i " + o.path
	}
	return fmt.Sprintf("t %v %x %s", o.pkg.digest, o.pkg.seed, o.path)
}

// noOrigin stands for no directory.
const noOrigin = "-"

// find returns the directory that origin describes.
func (l *lower) find(origin string) (*object, error) {
	if origin == noOrigin {
		return nil, nil
	}
	kind, rest, _ := strings.Cut(origin, " ")
	switch kind {
	case "i":
		if rest == "" {
			return l.root(), nil
		}
		o, err := l.get(rest, lastName(rest))
		if err == nil && (o == nil || !o.isDir()) {
			// Only implied by what the view had gained below: nothing is left of it.
			o = newObject(rest, lastName(rest), &index.Entry{Kind: index.KindDir, Mode: 0o755})
		}
		return o, err
	case "t":
		f := strings.SplitN(rest, " ", 3)
		if len(f) != 3 {
			break
		}
		d, err := hashing.ParseDigest(f[0])
		if err != nil {
			break
		}
		seed, err := strconv.ParseUint(f[1], 16, 64)
		if err != nil {
			break
		}
		p := &packageDir{digest: d, seed: seed}
		t, err := l.src.Tree(d)
		if err != nil {
			return nil, err
		}
		at, ok := t.Find(f[2])
		if !ok || t.At(at).Kind != index.KindDir {
			break
		}
		dir, name := splitPath(f[2])
		return inPackage(p, t, at, dir, name), nil
	}
	return nil, fault.New("resolve renamed directory", strconv.Quote(origin), fault.Corrupt, syscall.EIO)
}

// join joins two paths, either of which may be empty.
func join(dir, name string) string {
	switch {
	case dir == "":
		return name
	case name == "":
		return dir
	}
	return dir + "/" + name
}

func lastName(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }
