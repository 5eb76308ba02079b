package shelf

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"condafs/fault"
	"condafs/hashing"
	"condafs/index"
)

// Damage is something on the shelf that is not as its package says.
type Damage struct {
	Path   string // on the shelf: NAME/FILE
	Detail string
	Mended bool
}

// CheckOptions say how a shelf is checked.
type CheckOptions struct {
	Dry bool // only look
	// Full has files read that share no bytes with the store, as the disk has them.
	Full bool
	// Pace, if not nil, waits until so many bytes more may be read. Its error ends the check.
	Pace func(ctx context.Context, bytes int) error
}

// Check compares all that is on the shelf with the packages' manifests, by sizes, modes
// and times, and mends what somebody has changed: a file that was edited in place
// through an environment gets its bytes back under its name, and the environment keeps
// what it has. A package whose bytes the store can't give leaves the shelf.
//
// Damage is a finding, not an error.
func (s *Shelf) Check(ctx context.Context, o CheckOptions) ([]Damage, error) {
	if err := s.load(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	names := slices.Sorted(maps.Keys(s.known))
	s.mu.Unlock()
	var all []Damage
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return all, fault.New("check shelf", s.dir, fault.Canceled, context.Cause(ctx))
		}
		found, err := s.checkPackage(ctx, name, o)
		all = append(all, found...)
		if err != nil {
			return all, err
		}
	}
	return all, nil
}

// checkPackage checks one package, unless it leaves.
func (s *Shelf) checkPackage(ctx context.Context, name string, o CheckOptions) ([]Damage, error) {
	found, err := s.examine(name, o.Dry, (*check).run)
	if err != nil || !o.Full {
		return found, err
	}
	// Reading takes long, so others go on meanwhile.
	bad, err := s.otherBytes(ctx, name, o.Pace)
	if err != nil || len(bad) == 0 {
		return found, err
	}
	more, err := s.examine(name, o.Dry, func(c *check, tree *index.Tree) error {
		for rel, e := range tree.All() {
			if d, ok := bad[rel]; ok && d == e.Digest {
				c.mend(rel, filepath.Join(s.Path(), name, filepath.FromSlash(rel)), &e, "it has other bytes than its package says")
			}
		}
		return nil
	})
	return append(found, more...), err
}

// treeOf returns what a package on the shelf is; the zero digest if it is none, or leaves.
func (s *Shelf) treeOf(name string) hashing.Digest {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.known[name]; k != nil && k.leaving == 0 {
		return k.tree
	}
	return hashing.Digest{}
}

// look is what it takes to look at a file, in bytes that could be read instead.
const look = 4 << 10

// otherBytes reads a package's files, and returns those that look as they should and hold something else, with the digests of what they
// should hold.
func (s *Shelf) otherBytes(ctx context.Context, name string, pace func(context.Context, int) error) (map[string]hashing.Digest, error) {
	d := s.treeOf(name)
	if d.IsZero() {
		return nil, nil
	}
	tree, err := s.store.Tree(d)
	if err != nil {
		return nil, err
	}
	read := func(bytes int) error {
		if pace != nil {
			return pace(ctx, bytes)
		}
		return ctx.Err()
	}
	bad := make(map[string]hashing.Digest)
	for rel, e := range tree.All() {
		if e.Kind != index.KindFile {
			continue
		}
		if err := read(look); err != nil {
			return nil, fault.New("check shelf", s.dir, fault.Canceled, err)
		}
		at := filepath.Join(s.Path(), name, filepath.FromSlash(rel))
		if why, err := differs(at, &e); err != nil || why != "" {
			continue // somebody is at it
		}
		f, err := os.OpenFile(at, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if err != nil {
			continue
		}
		holds, err := s.store.Holds(f, e.Digest, read)
		if err := errors.Join(err, f.Close()); err != nil {
			if ctx.Err() != nil {
				return nil, fault.New("check shelf", s.dir, fault.Canceled, context.Cause(ctx))
			}
			if !fault.Is(err, fault.IO) {
				return nil, err
			}
			holds = false
		}
		if !holds {
			bad[rel] = e.Digest
		}
	}
	return bad, nil
}

// examine calls f for one package, unless it leaves. One that cannot be mended leaves.
func (s *Shelf) examine(name string, dry bool, f func(c *check, tree *index.Tree) error) ([]Damage, error) {
	s.work.Lock()
	d := s.treeOf(name)
	if d.IsZero() {
		s.work.Unlock()
		return nil, nil
	}
	c := &check{s: s, name: name, dry: dry}
	tree, err := s.store.Tree(d)
	if err == nil {
		err = f(c, tree)
	}
	s.work.Unlock()
	if dry || err == nil && !c.hopeless {
		return c.found, err
	}
	// Whoever uses it goes on with what is there, and nobody else takes it.
	s.log.Warn("a package leaves the shelf: it is damaged and cannot be mended now", "package", name, "error", err)
	return c.found, s.dismiss(name)
}

// check is the check of one package.
type check struct {
	s        *Shelf
	name     string
	dry      bool
	found    []Damage
	hopeless bool // something could not be mended
}

func (c *check) run(tree *index.Tree) error {
	root := filepath.Join(c.s.Path(), c.name)
	if err := c.strangers(tree, 0, ""); err != nil {
		return err
	}
	for rel, e := range tree.All() {
		at := filepath.Join(root, filepath.FromSlash(rel))
		why, err := differs(at, &e)
		if err != nil {
			return fault.New("check shelf", c.name+"/"+rel, fault.Other, err)
		}
		switch {
		case why != "":
			c.mend(rel, at, &e, why)
		case !c.dry:
			if err := tighten(at, &e); err != nil {
				return fault.New("check shelf", c.name+"/"+rel, fault.Other, err)
			}
		}
		if e.Kind == index.KindDir {
			i, _ := tree.Find(rel)
			if err := c.strangers(tree, i, rel); err != nil {
				return err
			}
		}
	}
	return nil
}

// differs says in what way something differs from its entry; "" if in none.
func differs(at string, e *index.TreeEntry) (string, error) {
	fi, err := os.Lstat(at)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid) {
		return "it is missing", nil
	}
	if err != nil {
		return "", err
	}
	switch e.Kind {
	case index.KindDir:
		if !fi.IsDir() {
			return "it is no directory", nil
		}
	case index.KindSymlink:
		if to, err := os.Readlink(at); err != nil || to != e.Link {
			return "it does not lead where it should", nil
		}
	case index.KindFile:
		switch {
		case !fi.Mode().IsRegular():
			return "it is no file", nil
		case fi.Size() != e.Size || !fi.ModTime().Equal(time.Unix(0, e.Mtime)):
			return "somebody has written to it", nil
		case fi.Mode().Perm() != perm(e) && fi.Mode().Perm() != perm(e)|ownerWrite:
			return "its mode was changed", nil
		}
	}
	return "", nil
}

// ownerWrite is what conda gives a file before it removes it: where an environment goes, or a transaction is
// undone, read-only files that are linked from the shelf get it under all of their names. That is no damage.
const ownerWrite fs.FileMode = 0o200

// perm is the mode that a file of the shelf has.
func perm(e *index.TreeEntry) fs.FileMode { return fs.FileMode(e.Mode & 0o777) }

// tighten takes ownerWrite back.
func tighten(at string, e *index.TreeEntry) error {
	if e.Kind != index.KindFile || perm(e)&ownerWrite != 0 {
		return nil
	}
	fi, err := os.Lstat(at)
	if err != nil || !fi.Mode().IsRegular() || fi.Mode().Perm() == perm(e) {
		return err
	}
	return os.Chmod(at, perm(e))
}

// mend puts what an entry says in the place of what is there, by one rename.
func (c *check) mend(rel, at string, e *index.TreeEntry, why string) {
	d := Damage{Path: c.name + "/" + rel, Detail: why}
	if !c.dry {
		if err := c.replace(at, e); err != nil {
			c.hopeless = true
			d.Detail += "; " + err.Error()
		} else {
			d.Mended = true
			c.s.log.Warn("mended on the shelf", "path", d.Path, "why", why)
		}
	}
	c.found = append(c.found, d)
}

func (c *check) replace(at string, e *index.TreeEntry) error {
	fresh := c.s.fresh(newName)
	var err error
	switch e.Kind {
	case index.KindDir:
		err = os.Mkdir(fresh, dirMode)
	case index.KindSymlink:
		err = os.Symlink(e.Link, fresh)
	case index.KindFile:
		_, err = c.s.store.PlaceBlob(e.Digest, e.Size, fresh, e.Mode, e.Mtime, c.s.sharing)
	}
	if err != nil {
		return err
	}
	return writable(filepath.Dir(at), func() error {
		if fi, err := os.Lstat(at); err == nil && (fi.IsDir() || e.Kind == index.KindDir) {
			if err := os.Rename(at, c.s.fresh(graveName)); err != nil {
				return err
			}
		}
		return os.Rename(fresh, at)
	})
}

// strangers takes away what is in a directory and not in the package.
func (c *check) strangers(tree *index.Tree, dir int, rel string) error {
	at := filepath.Join(c.s.Path(), c.name, filepath.FromSlash(rel))
	list, err := os.ReadDir(at)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it has just been found to be missing, and c.dry
	}
	if err != nil {
		return fault.New("check shelf", at, fault.Other, err)
	}
	for _, e := range list {
		if _, ok := tree.Child(dir, e.Name()); ok {
			continue
		}
		d := Damage{Path: filepath.Join(c.name, rel, e.Name()), Detail: "it does not belong to the package"}
		if !c.dry {
			from := filepath.Join(at, e.Name())
			if err := writable(at, func() error { return os.Rename(from, c.s.fresh(graveName)) }); err != nil {
				return fault.New("check shelf", from, fault.Other, err)
			}
			d.Mended = true
		}
		c.found = append(c.found, d)
	}
	return nil
}
