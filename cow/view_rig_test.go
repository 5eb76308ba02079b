package cow

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"condafs/hashing"
	"condafs/index"
)

// memSource is a snapshot in memory; only its blobs are files.
type memSource struct {
	dir     string
	entries map[string]index.Entry
	trees   *sync.Map // of *index.Tree, by digest
}

func newMemSource(t testing.TB) *memSource {
	return &memSource{dir: t.TempDir(), entries: map[string]index.Entry{}, trees: new(sync.Map)}
}

func (m *memSource) Get(path string) (index.Entry, bool, error) {
	e, ok := m.entries[path]
	return e, ok, nil
}

func (m *memSource) List(dir string) ([]index.DirEntry, error) {
	var list []index.DirEntry
	for p, e := range m.entries {
		if d, name := splitPath(p); d == dir {
			list = append(list, index.DirEntry{Name: name, Entry: e})
		}
	}
	return list, nil
}

func (m *memSource) Tree(d hashing.Digest) (*index.Tree, error) {
	if t, ok := m.trees.Load(d); ok {
		return t.(*index.Tree), nil
	}
	return nil, errors.New("no such tree")
}

func (m *memSource) mustTree(d hashing.Digest) *index.Tree {
	t, err := m.Tree(d)
	if err != nil {
		panic(err)
	}
	return t
}

func (m *memSource) OpenBlob(d hashing.Digest, _ int64) (*os.File, error) {
	return os.Open(m.blobPath(d))
}

func (m *memSource) blobPath(d hashing.Digest) string { return filepath.Join(m.dir, d.String()) }

func (m *memSource) blob(t tester, data []byte) hashing.Digest {
	d := hashing.Sum(data)
	if _, err := os.Stat(m.blobPath(d)); err != nil {
		check(t, os.WriteFile(m.blobPath(d), data, 0o444))
	}
	return d
}

const mtime = 1_600_000_000_123_456_789

func (m *memSource) file(t tester, path, data string) {
	m.put(path, index.Entry{Kind: index.KindFile, Mode: 0o644, Mtime: mtime, Size: int64(len(data)), Digest: m.blob(t, []byte(data))})
}

func (m *memSource) put(path string, e index.Entry) {
	for dir, _ := splitPath(path); dir != ""; dir, _ = splitPath(dir) {
		if _, ok := m.entries[dir]; !ok {
			m.entries[dir] = index.Entry{Kind: index.KindDir, Mode: 0o755, Mtime: mtime}
		}
	}
	m.entries[path] = e
}

// tree adds a package. Names that end in / are directories, those with -> links.
func (m *memSource) tree(t tester, path string, files map[string]string) {
	b := index.NewTreeBuilder(index.TreeEntry{Mode: 0o755, Mtime: mtime})
	for _, name := range slices.Sorted(maps.Keys(files)) {
		e := index.TreeEntry{Kind: index.KindFile, Mode: 0o644, Mtime: mtime, Size: int64(len(files[name]))}
		target, isLink := strings.CutPrefix(files[name], "-> ")
		switch {
		case strings.HasSuffix(name, "/"):
			e = index.TreeEntry{Kind: index.KindDir, Mode: 0o755, Mtime: mtime}
		case isLink:
			e = index.TreeEntry{Kind: index.KindSymlink, Mode: 0o777, Mtime: mtime, Link: target}
		default:
			e.Digest = m.blob(t, []byte(files[name]))
		}
		check(t, b.Add(strings.TrimSuffix(name, "/"), e))
	}
	tree, err := b.Build()
	check(t, err)
	m.put(path, m.treeEntry(tree))
}

func (m *memSource) treeEntry(tree *index.Tree) index.Entry {
	m.trees.Store(tree.Digest(), tree)
	root := tree.At(0)
	return index.Entry{Kind: index.KindTree, Mode: root.Mode, Mtime: root.Mtime, Size: tree.Bytes(), Digest: tree.Digest()}
}

// tester is a test, or one try of a randomised one.
type tester interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

func check(t tester, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// rig is a view under test with a client who knows paths only.
type rig struct {
	t      tester
	src    *memSource
	upper  string
	v      *View
	events []Event
}

func newRig(t testing.TB) *rig { return newRigIn(t, t.TempDir()) }

func newRigIn(t testing.TB, dir string) *rig {
	r := &rig{t: t, src: newMemSource(t), upper: filepath.Join(dir, "upper")}
	s := r.src
	s.put("shared/pkgs", index.Entry{Kind: index.KindDir, Mode: 0o755, Mtime: mtime})
	s.tree(t, "shared/pkgs/a-1-0", map[string]string{
		"info/index.json": "{}", "info/paths.json": "[]", "lib/libz.so.1": "elf", "lib/libz.so": "-> libz.so.1", "share/doc/": "",
	})
	s.tree(t, "u7/pkgs/b-1-0", map[string]string{"info/index.json": "{b}", "bin/b": "#!"})
	s.file(t, "shared/pkgs/a-1-0.conda", "archive a")
	s.file(t, "shared/pkgs/urls.txt", "shared\n")
	s.file(t, "u7/pkgs/urls.txt", "private\n")
	s.file(t, "shared/pkgs/cache/1.json", "{\"1\":1}")
	r.open()
	t.Cleanup(func() {
		if err := r.v.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *rig) open() {
	v, err := openView(r.src, r.upper, []string{"u7", "shared"}, 7, 8, func(e Event) {
		if e.Op != Idle {
			r.events = append(r.events, e)
		}
	})
	check(r.t, err)
	r.v = v
}

func (r *rig) reopen() {
	check(r.t, r.v.Close())
	r.open()
}

// node looks a path up and keeps a reference to the last node only.
func (r *rig) node(path string) (*Node, error) {
	n := r.v.Root()
	for path != "" {
		var name string
		name, path, _ = strings.Cut(path, "/")
		next, _, err := r.v.Lookup(n, name)
		r.v.Forget(n, 1)
		if err != nil {
			return nil, err
		}
		n = next
	}
	return n, nil
}

// in calls f with the directory and the name of a path.
func (r *rig) in(path string, f func(dir *Node, name string) error) error {
	d, name := splitPath(path)
	dir, err := r.node(d)
	if err != nil {
		return err
	}
	defer r.v.Forget(dir, 1)
	return f(dir, name)
}

// on calls f with the node at a path, again if that has become another.
func (r *rig) on(path string, f func(n *Node) error) error {
	for {
		n, err := r.node(path)
		if err != nil {
			return err
		}
		err = f(n)
		r.v.Forget(n, 1)
		if !errors.Is(err, unix.ESTALE) {
			return err
		}
	}
}

func (r *rig) create(path, data string, mode uint32) error {
	return r.in(path, func(dir *Node, name string) error {
		n, _, h, err := r.v.Create(dir, name, unix.O_WRONLY|unix.O_EXCL, mode)
		if err != nil {
			return err
		}
		_, err = h.WriteAt([]byte(data), 0)
		err = errors.Join(err, h.Release())
		r.v.Forget(n, 1)
		return err
	})
}

func (r *rig) openAt(path string, flags int) (h *Handle, err error) {
	err = r.on(path, func(n *Node) error {
		h, err = r.v.Open(n, flags)
		return err
	})
	return h, err
}

func (r *rig) write(path, data string, flags int) error {
	h, err := r.openAt(path, flags|unix.O_WRONLY)
	if err != nil {
		return err
	}
	off := int64(0)
	if flags&unix.O_APPEND != 0 { // which is the kernel's business
		if off, err = h.f.Seek(0, io.SeekEnd); err != nil {
			return errors.Join(err, h.Release())
		}
	}
	_, err = h.WriteAt([]byte(data), off)
	return errors.Join(err, h.Release())
}

func readHandle(h *Handle) (string, error) {
	b, err := io.ReadAll(io.NewSectionReader(h, 0, 1<<20))
	return string(b), err
}

func (r *rig) read(path string) (string, error) {
	h, err := r.openAt(path, unix.O_RDONLY)
	if err != nil {
		return "", err
	}
	s, err := readHandle(h)
	return s, errors.Join(err, h.Release())
}

func (r *rig) mkdir(path string, mode uint32) error {
	return r.in(path, func(dir *Node, name string) error {
		n, _, err := r.v.Mkdir(dir, name, mode)
		if err == nil {
			r.v.Forget(n, 1)
		}
		return err
	})
}

func (r *rig) symlink(target, path string) error {
	return r.in(path, func(dir *Node, name string) error {
		n, _, err := r.v.Symlink(dir, name, target)
		if err == nil {
			r.v.Forget(n, 1)
		}
		return err
	})
}

func (r *rig) link(old, path string) error {
	return r.on(old, func(n *Node) error {
		return r.in(path, func(dir *Node, name string) error {
			_, err := r.v.Link(n, dir, name)
			if err == nil {
				r.v.Forget(n, 1)
			}
			return err
		})
	})
}

func (r *rig) unlink(path string) error { return r.in(path, r.v.Unlink) }
func (r *rig) rmdir(path string) error  { return r.in(path, r.v.Rmdir) }

func (r *rig) rename(from, to string, flags uint32) error {
	return r.in(from, func(d1 *Node, n1 string) error {
		return r.in(to, func(d2 *Node, n2 string) error { return r.v.Rename(d1, n1, d2, n2, flags) })
	})
}

func (r *rig) setattr(path string, s SetAttr) error {
	return r.on(path, func(n *Node) error {
		_, err := r.v.Setattr(n, nil, s)
		return err
	})
}

func (r *rig) stat(path string) (a Attr, err error) {
	err = r.on(path, func(n *Node) error {
		a, err = r.v.Getattr(n, nil)
		return err
	})
	return a, err
}

// dump describes everything that the view shows, by path. Files with several
// names name the first of them.
func (r *rig) dump() map[string]string {
	r.t.Helper()
	for {
		m, err := r.dumpOnce()
		if err != unix.ESTALE { // a node was replaced
			check(r.t, err)
			return m
		}
	}
}

func (r *rig) dumpOnce() (m map[string]string, stale error) {
	m = map[string]string{}
	first := map[uint64]string{}
	var walk func(dir *Node, path string)
	walk = func(dir *Node, path string) {
		list, err := r.v.ReadDir(dir)
		check(r.t, err)
		slices.SortFunc(list, func(a, b Dirent) int { return strings.Compare(a.Name, b.Name) })
		for _, e := range list {
			p := join(path, e.Name)
			n, a, err := r.v.Lookup(dir, e.Name)
			if err != nil {
				r.t.Fatalf("lookup %s: %v", p, err)
			}
			if stale == nil && (e.Type != a.Mode&unix.S_IFMT || e.Ino != a.Ino) {
				r.t.Fatalf("%s: listed as %o, %x, is %o, %x", p, e.Type, e.Ino, a.Mode, a.Ino)
			}
			if a.IsDir() {
				r.checkLinks(n, &a, p)
				a.Nlink = 1 // as before it was copied up or after it was sealed, when nobody counts
			}
			if m[p], err = r.describe(n, &a); err != nil {
				stale = err
			}
			if a.Nlink > 1 {
				if first[a.Ino] == "" {
					first[a.Ino] = p
				}
				m[p] += " = " + first[a.Ino]
			} else if other := first[a.Ino]; other != "" && stale == nil {
				r.t.Fatalf("%s and %s have the same inode number", p, other)
			}
			if first[a.Ino] == "" {
				first[a.Ino] = p
			}
			if a.IsDir() {
				walk(n, p)
			}
			r.v.Forget(n, 1)
		}
	}
	walk(r.v.Root(), "")
	return m, stale
}

// checkLinks checks that a directory that counts its links counts right.
func (r *rig) checkLinks(n *Node, a *Attr, path string) {
	if a.Nlink == 1 {
		return
	}
	list, err := r.v.ReadDir(n)
	check(r.t, err)
	want := uint32(2)
	for _, e := range list {
		if e.Type == unix.S_IFDIR {
			want++
		}
	}
	if a.Nlink != want {
		r.t.Fatalf("directory %s has %d links, want %d", path, a.Nlink, want)
	}
}

func (r *rig) describe(n *Node, a *Attr) (string, error) {
	s := fmt.Sprintf("%o x%d", a.Mode, a.Nlink)
	switch a.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		h, err := r.v.Open(n, unix.O_RDONLY)
		if err != nil {
			return "", err
		}
		data, err := readHandle(h)
		check(r.t, err)
		check(r.t, h.Release())
		if int64(len(data)) != a.Size {
			r.t.Fatalf("%d bytes read, size is %d", len(data), a.Size)
		}
		s += " " + data
	case unix.S_IFLNK:
		target, err := r.v.Readlink(n)
		check(r.t, err)
		s += " -> " + target
	}
	return s, nil
}

// moveFunc is a sealer that has nothing to write down.
type moveFunc func(rel string, dirfd int, name string) error

func (moveFunc) begin() error                                    { return nil }
func (f moveFunc) move(rel string, dirfd int, name string) error { return f(rel, dirfd, name) }
func (moveFunc) done() error                                     { return nil }

// seal seals a path as the engine would, and returns what Seal said.
func (r *rig) seal(path string) error {
	h, err := r.v.Harvest(path)
	if err != nil {
		return err
	}
	entry, err := r.entryOf(h)
	if err != nil {
		return err
	}
	return r.v.Seal(path, h.Gen, entry, moveFunc(func(_ string, dirfd int, name string) error {
		data, err := os.ReadFile(procPath(dirfd, name))
		if err != nil {
			return err
		}
		r.src.blob(r.t, data)
		return unix.Unlinkat(dirfd, name, 0)
	}))
}

// entryOf makes what a harvest is to become. Special files are left out.
func (r *rig) entryOf(h *Harvest) (index.Entry, error) {
	r.t.Helper()
	root, err := r.content(&h.Entries[0])
	if err != nil {
		return index.Entry{}, err
	}
	if root.Kind != index.KindDir {
		return index.Entry{Kind: root.Kind, Mode: root.Mode, Mtime: root.Mtime, Size: root.Size, Digest: root.Digest, Link: root.Link}, nil
	}
	b := index.NewTreeBuilder(root)
	for i := range h.Entries[1:] {
		e := &h.Entries[1+i]
		if e.Kind == 0 {
			continue
		}
		te, err := r.content(e)
		if err != nil {
			return index.Entry{}, err
		}
		check(r.t, b.Add(e.Path, te))
	}
	tree, err := b.Build()
	check(r.t, err)
	return r.src.treeEntry(tree), nil
}

// content stores what a harvested file contains. The error is that of a file
// which has been changed or removed since.
func (r *rig) content(e *HarvestEntry) (index.TreeEntry, error) {
	te := e.TreeEntry
	if te.Kind != index.KindFile {
		return te, nil
	}
	f, err := e.Open()
	if err != nil {
		return te, unix.EBUSY
	}
	data, err := io.ReadAll(f)
	check(r.t, err)
	check(r.t, f.Close())
	d := r.src.blob(r.t, data)
	if e.Lower && d != te.Digest {
		r.t.Fatalf("%s: digest %v, is %v", e.Path, te.Digest, d)
	}
	te.Digest = d
	if int64(len(data)) != te.Size {
		return te, unix.EBUSY
	}
	return te, nil
}
