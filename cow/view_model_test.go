package cow

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"condafs/fault"
	"condafs/index"
	"condafs/internal/longrun"
)

// object of the model: a plain tree in memory that knows nothing of layers.
type modelNode struct {
	mode     uint32 // with type bits
	data     string // or the target of a link
	mtime    int64  // 0: not known
	nlink    int
	children map[string]*modelNode
}

func (m *modelNode) isDir() bool { return m.children != nil }

// model is a view and what it should show.
type model struct {
	*rig
	root *modelNode
	open []*modelHandle
	held map[*Node]*modelNode // directories that the kernel still knows
	// published are the paths that were sealed or gained: in the store, too.
	names []string
}

type modelHandle struct {
	h      *Handle
	n      *modelNode
	frozen *string // what it shows for ever, when it is of a blob
}

func newModel(r *rig) *model {
	m := &model{rig: r, root: &modelNode{mode: unix.S_IFDIR | 0o755, children: map[string]*modelNode{}}, held: map[*Node]*modelNode{}}
	for path, e := range r.src.entries {
		_, path, _ = strings.Cut(path, "/")
		if path != "" && (e.Kind != index.KindFile || m.at(path) == nil) {
			m.load(path, e)
		}
	}
	e := r.src.entries["u7/pkgs/urls.txt"]
	m.load("pkgs/urls.txt", e)
	return m
}

func (m *model) load(path string, e index.Entry) {
	dir := m.root
	parts := strings.Split(path, "/")
	for _, p := range parts[:len(parts)-1] {
		if dir.children[p] == nil {
			dir.children[p] = &modelNode{mode: unix.S_IFDIR | 0o755, children: map[string]*modelNode{}}
		}
		dir = dir.children[p]
	}
	name := parts[len(parts)-1]
	if e.Kind == index.KindTree {
		tree := m.src.mustTree(e.Digest)
		dir.children[name] = m.fromTree(tree, 0)
		return
	}
	te := index.TreeEntry{Kind: e.Kind, Mode: e.Mode, Mtime: e.Mtime, Digest: e.Digest, Link: e.Link}
	if old := dir.children[name]; old == nil || !old.isDir() {
		dir.children[name] = m.fromEntry(te)
	}
}

func (m *model) fromEntry(e index.TreeEntry) *modelNode {
	n := &modelNode{mode: typeBits(e.Kind) | e.Mode, nlink: 1}
	switch e.Kind {
	case index.KindDir:
		n.children = map[string]*modelNode{}
	case index.KindSymlink:
		n.data = e.Link
	default:
		b, err := os.ReadFile(m.src.blobPath(e.Digest))
		check(m.t, err)
		n.data, n.mtime = string(b), e.Mtime
	}
	return n
}

func (m *model) fromTree(tree *index.Tree, at int) *modelNode {
	n := m.fromEntry(tree.At(at))
	lo, hi := tree.Children(at)
	for i := lo; i < hi; i++ {
		n.children[tree.At(i).Name] = m.fromTree(tree, i)
	}
	return n
}

func (m *model) at(path string) *modelNode {
	n := m.root
	for path != "" && n != nil {
		var name string
		name, path, _ = strings.Cut(path, "/")
		n = n.children[name]
	}
	return n
}

// parentOf returns the directory of a path, or the error that a client gets.
func (m *model) parentOf(path string) (*modelNode, string, error) {
	dir, name := splitPath(path)
	n := m.root
	for _, p := range strings.Split(dir, "/") {
		if p == "" {
			continue
		}
		if !n.isDir() {
			return nil, "", unix.ENOTDIR
		}
		if n = n.children[p]; n == nil {
			return nil, "", unix.ENOENT
		}
	}
	if !n.isDir() {
		return nil, "", unix.ENOTDIR
	}
	return n, name, nil
}

func (m *model) lookup(path string) (*modelNode, error) {
	dir, name, err := m.parentOf(path)
	if err != nil {
		return nil, err
	}
	if n := dir.children[name]; n != nil {
		return n, nil
	}
	return nil, unix.ENOENT
}

// add makes a new object at a path, unless there is one.
func (m *model) add(path string, n *modelNode) error {
	dir, name, err := m.parentOf(path)
	if err != nil {
		return err
	}
	if dir.children[name] != nil {
		return unix.EEXIST
	}
	n.nlink++
	dir.children[name] = n
	return nil
}

func (m *model) dump() map[string]string {
	out := map[string]string{}
	first := map[*modelNode]string{}
	var walk func(n *modelNode, path string)
	walk = func(n *modelNode, path string) {
		for _, name := range slices.Sorted(maps.Keys(n.children)) {
			c, p := n.children[name], join(path, name)
			nlink := c.nlink
			if c.isDir() {
				nlink = 1
			}
			s := fmt.Sprintf("%o x%d", c.mode, nlink)
			switch c.mode & unix.S_IFMT {
			case unix.S_IFREG:
				s += " " + c.data
			case unix.S_IFLNK:
				s += " -> " + c.data
			}
			if nlink > 1 {
				if first[c] == "" {
					first[c] = p
				}
				s += " = " + first[c]
			}
			out[p] = s
			walk(c, p)
		}
	}
	walk(m.root, "")
	return out
}

// path draws a path: mostly one that exists, or a new name beside one.
func (m *model) path(t *rapid.T, label string) string {
	all := slices.Sorted(maps.Keys(m.dump()))
	if len(all) == 0 || rapid.IntRange(0, 9).Draw(t, label+" fresh") < 4 {
		dir := "pkgs"
		if len(all) > 0 {
			dir = rapid.SampledFrom(all).Draw(t, label+" dir")
			if n := m.at(dir); !n.isDir() {
				dir, _ = splitPath(dir)
			}
		}
		return join(dir, rapid.SampledFrom(m.names).Draw(t, label+" name"))
	}
	return rapid.SampledFrom(all).Draw(t, label)
}

func (m *model) same(t *rapid.T, what string, got, want error) {
	var no error
	if got != nil {
		no = fault.Errno(got)
	}
	if no != want {
		t.Fatalf("%s: %v, want %v", what, got, want)
	}
}

func (m *model) actions() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"create": func(t *rapid.T) {
			p, data := m.path(t, "path"), rapid.SampledFrom([]string{"", "x", "some data"}).Draw(t, "data")
			mode := rapid.SampledFrom([]uint32{0o644, 0o755, 0o444, 0}).Draw(t, "mode")
			m.same(t, "create "+p, m.create(p, data, mode), m.add(p, &modelNode{mode: unix.S_IFREG | mode, data: data}))
		},
		"mkdir": func(t *rapid.T) {
			p := m.path(t, "path")
			m.same(t, "mkdir "+p, m.mkdir(p, 0o750), m.add(p, &modelNode{mode: unix.S_IFDIR | 0o750, children: map[string]*modelNode{}}))
		},
		"symlink": func(t *rapid.T) {
			p := m.path(t, "path")
			m.same(t, "symlink "+p, m.symlink("to", p), m.add(p, &modelNode{mode: unix.S_IFLNK | 0o777, data: "to"}))
		},
		"fifo": func(t *rapid.T) {
			p := m.path(t, "path")
			err := m.in(p, func(d *Node, name string) error {
				n, _, err := m.v.Mknod(d, name, unix.S_IFIFO|0o600, 0)
				if err == nil {
					m.v.Forget(n, 1)
				}
				return err
			})
			m.same(t, "mknod "+p, err, m.add(p, &modelNode{mode: unix.S_IFIFO | 0o600}))
		},
		"unlink": func(t *rapid.T) {
			p := m.path(t, "path")
			m.same(t, "unlink "+p, m.unlink(p), m.modelUnlink(p))
		},
		"rmdir": func(t *rapid.T) {
			p := m.path(t, "path")
			m.same(t, "rmdir "+p, m.rmdir(p), m.modelRmdir(p))
		},
		"remove all": func(t *rapid.T) {
			p := m.path(t, "path")
			m.removeAll(t, p)
		},
		"rename": func(t *rapid.T) {
			from, to := m.path(t, "from"), m.path(t, "to")
			flags := rapid.SampledFrom([]uint32{0, 0, 0, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE}).Draw(t, "flags")
			m.same(t, "rename "+from+" to "+to, m.rename(from, to, flags), m.modelRename(from, to, flags))
		},
		"link": func(t *rapid.T) {
			from, to := m.path(t, "from"), m.path(t, "to")
			m.same(t, "link "+from+" as "+to, m.link(from, to), m.modelLink(from, to))
		},
		"write": func(t *rapid.T) {
			p := m.path(t, "path")
			flags := rapid.SampledFrom([]int{0, unix.O_TRUNC, unix.O_APPEND}).Draw(t, "flags")
			n, werr := m.lookup(p)
			if werr == nil {
				werr = openErr(n)
			}
			m.same(t, "write "+p, m.write(p, "WW", flags), werr)
			if werr != nil {
				return
			}
			n.mtime = 0
			switch flags {
			case unix.O_TRUNC:
				n.data = "WW"
			case unix.O_APPEND:
				n.data += "WW"
			default:
				n.data = overwrite(n.data, "WW")
			}
		},
		"chmod": func(t *rapid.T) {
			p := m.path(t, "path")
			n, err := m.lookup(p)
			if err == nil && n.mode&unix.S_IFMT == unix.S_IFLNK {
				return
			}
			mode := rapid.SampledFrom([]uint32{0o644, 0o755, 0o400, 0o4711}).Draw(t, "mode")
			m.same(t, "chmod "+p, m.setattr(p, SetAttr{Valid: SetMode, Mode: mode}), err)
			if err == nil {
				n.mode = n.mode&unix.S_IFMT | mode&modeBits
			}
		},
		"utimes": func(t *rapid.T) {
			p := m.path(t, "path")
			n, err := m.lookup(p)
			m.same(t, "utimes "+p, m.setattr(p, SetAttr{Valid: SetMtime | SetAtime, Mtime: unix.Timespec{Sec: 77}}), err)
			if err == nil {
				n.mtime = 77e9
			}
		},
		"truncate": func(t *rapid.T) {
			p := m.path(t, "path")
			n, err := m.lookup(p)
			switch {
			case err != nil:
			case n.isDir():
				err = unix.EISDIR
			case n.mode&unix.S_IFMT != unix.S_IFREG:
				err = unix.EINVAL
			}
			m.same(t, "truncate "+p, m.setattr(p, SetAttr{Valid: SetSize, Size: 3}), err)
			if err == nil {
				n.mtime = 0 // truncating to the same size counts in the overlay only
				n.data = (n.data + "\x00\x00\x00")[:3]
			}
		},
		"open": func(t *rapid.T) {
			p := m.path(t, "path")
			flags := rapid.SampledFrom([]int{unix.O_RDONLY, unix.O_RDWR}).Draw(t, "flags")
			n, err := m.lookup(p)
			if err == nil {
				err = openErr(n)
			}
			h, got := m.openAt(p, flags)
			m.same(t, "open "+p, got, err)
			if err != nil {
				return
			}
			h.SetPassthrough(rapid.Bool().Draw(t, "passthrough"))
			if flags == unix.O_RDWR {
				n.mtime = 0
			}
			m.open = append(m.open, &modelHandle{h: h, n: n})
			m.freeze()
		},
		"use a handle": func(t *rapid.T) {
			if len(m.open) == 0 {
				t.Skip("none is open")
			}
			i := rapid.IntRange(0, len(m.open)-1).Draw(t, "handle")
			o := m.open[i]
			if o.h.Writable() {
				_, err := o.h.WriteAt([]byte("HH"), 0)
				check(m.t, err)
				o.n.data, o.n.mtime = overwrite(o.n.data, "HH"), 0
			}
			if rapid.Bool().Draw(t, "release") {
				check(m.t, o.h.Release())
				m.open = slices.Delete(m.open, i, i+1)
			}
		},
		"hold": func(t *rapid.T) {
			p := m.path(t, "path")
			if n := m.at(p); n != nil && n.isDir() {
				h, err := m.node(p)
				check(m.t, err)
				if m.held[h] != nil {
					m.v.Forget(h, 1)
				}
				m.held[h] = n
			}
		},
		"forget": func(t *rapid.T) {
			for n := range m.held {
				if rand.IntN(2) == 0 {
					m.v.Forget(n, 1)
					delete(m.held, n)
				}
			}
		},
		"seal": func(t *rapid.T) {
			p := m.path(t, "path")
			n := m.at(p)
			if n == nil || n.mode&unix.S_IFMT == unix.S_IFIFO || p == "pkgs" || m.v.Writers(p) > 0 {
				t.Skip("not to be sealed")
			}
			if err := m.seal(p); err != nil {
				t.Fatal(err)
			}
			m.apart(m.at(p), p)
			m.freeze()
		},
		"gain": func(t *rapid.T) {
			p := "pkgs/" + rapid.SampledFrom(m.names).Draw(t, "name")
			e := m.src.entries["shared/pkgs/a-1-0"]
			dir := m.at("pkgs")
			if dir == nil || !dir.isDir() {
				t.Skip("no place")
			}
			ok, err := m.v.Gain(p, e)
			check(m.t, err)
			// It also reports true for what is there already and is the same.
			if name := lastName(p); ok && dir.children[name] == nil {
				dir.children[name] = m.fromTree(m.src.mustTree(e.Digest), 0)
			}
		},
		"shelve": func(t *rapid.T) {
			p := m.path(t, "path")
			tree, ok := m.v.packageAt(p)
			if !ok {
				t.Skip("no package")
			}
			link := linkTo("/shelf", lastName(p), &index.Entry{Mtime: 1})
			if ok, err := m.v.shelve(p, tree, link); err != nil || !ok {
				t.Fatal(ok, err)
			}
			dir, name, err := m.parentOf(p)
			check(m.t, err)
			dir.children[name] = m.fromEntry(index.TreeEntry{Kind: link.Kind, Mode: link.Mode, Mtime: link.Mtime, Link: link.Link})
		},
		"reopen": func(t *rapid.T) {
			m.letGo()
			m.reopen()
		},
		"hand over": func(t *rapid.T) {
			nodes, handles := m.handOver(slices.Collect(maps.Keys(m.held)))
			held := make(map[*Node]*modelNode)
			for n, want := range m.held {
				held[nodes[n]] = want
			}
			m.held = held
			for _, o := range m.open {
				o.h = handles[o.h]
			}
		},
		"": m.compare,
	}
}

func overwrite(s, w string) string {
	if len(s) < len(w) {
		return w
	}
	return w + s[len(w):]
}

func openErr(n *modelNode) error {
	switch n.mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return unix.EISDIR
	case unix.S_IFLNK:
		return unix.ELOOP
	case unix.S_IFREG:
		return nil
	}
	return unix.ENXIO
}

func (m *model) modelUnlink(path string) error {
	dir, name, err := m.parentOf(path)
	if err != nil {
		return err
	}
	n := dir.children[name]
	switch {
	case n == nil:
		return unix.ENOENT
	case n.isDir():
		return unix.EISDIR
	}
	n.nlink--
	delete(dir.children, name)
	return nil
}

func (m *model) modelRmdir(path string) error {
	dir, name, err := m.parentOf(path)
	if err != nil {
		return err
	}
	n := dir.children[name]
	switch {
	case n == nil:
		return unix.ENOENT
	case !n.isDir():
		return unix.ENOTDIR
	case len(n.children) > 0:
		return unix.ENOTEMPTY
	}
	delete(dir.children, name)
	return nil
}

func (m *model) removeAll(t *rapid.T, path string) {
	n := m.at(path)
	if n == nil {
		return
	}
	if !n.isDir() {
		m.same(t, "unlink "+path, m.unlink(path), m.modelUnlink(path))
		return
	}
	for _, name := range slices.Sorted(maps.Keys(n.children)) {
		m.removeAll(t, join(path, name))
	}
	m.same(t, "rmdir "+path, m.rmdir(path), m.modelRmdir(path))
}

func (m *model) modelLink(from, to string) error {
	n, err := m.lookup(from)
	if err != nil {
		return err
	}
	dir, name, err := m.parentOf(to)
	switch {
	case err != nil:
		return err
	case dir.children[name] != nil:
		return unix.EEXIST
	case n.isDir():
		return unix.EPERM
	}
	n.nlink++
	dir.children[name] = n
	return nil
}

func (m *model) modelRename(from, to string, flags uint32) error {
	d1, n1, err := m.parentOf(from)
	if err != nil {
		return err
	}
	d2, n2, err := m.parentOf(to)
	if err != nil {
		return err
	}
	src, dst := d1.children[n1], d2.children[n2]
	exchange := flags == unix.RENAME_EXCHANGE
	switch {
	case src == nil:
		return unix.ENOENT
	case flags == unix.RENAME_NOREPLACE && dst != nil:
		return unix.EEXIST
	case src == dst:
		return nil
	case exchange && dst == nil:
		return unix.ENOENT
	case src.isDir() && within(to, from):
		return unix.EINVAL
	case dst == nil:
	case dst.isDir() && within(from, to):
		if exchange {
			return unix.EINVAL
		}
		return unix.ENOTEMPTY
	case exchange:
		d1.children[n1], d2.children[n2] = dst, src
		return nil
	case src.isDir() && !dst.isDir():
		return unix.ENOTDIR
	case !src.isDir() && dst.isDir():
		return unix.EISDIR
	case len(dst.children) > 0:
		return unix.ENOTEMPTY
	default:
		dst.nlink--
	}
	delete(d1.children, n1)
	d2.children[n2] = src
	return nil
}

// apart makes the names below a sealed path files of their own, and drops what
// can't be sealed.
func (m *model) apart(n *modelNode, path string) {
	for name, c := range n.children {
		if c.mode&unix.S_IFMT == unix.S_IFIFO {
			c.nlink--
			delete(n.children, name)
			continue
		}
		m.apart(c, join(path, name))
	}
	if n.nlink > 1 {
		dir, name, err := m.parentOf(path)
		check(m.t, err)
		n.nlink--
		own := *n
		own.nlink = 1
		dir.children[name] = &own
	}
}

// freeze notes what handles of blobs will always show.
func (m *model) freeze() {
	for _, o := range m.open {
		if o.frozen == nil && o.h.Immutable() {
			data := o.n.data
			o.frozen = &data
		}
	}
}

func (m *model) letGo() {
	for _, o := range m.open {
		check(m.t, o.h.Release())
	}
	m.open = nil
	for n := range m.held {
		m.v.Forget(n, 1)
	}
	clear(m.held)
}

func (m *model) compare(t *rapid.T) {
	got, want := m.rig.dump(), m.dump()
	for p := range want {
		if got[p] != want[p] {
			t.Fatalf("%s is %q, want %q", p, got[p], want[p])
		}
		if n := m.at(p); n.mtime != 0 && !n.isDir() {
			if a, err := m.stat(p); err != nil || unix.TimespecToNsec(a.Mtime) != n.mtime {
				t.Fatalf("%s: time %v, %v, want %d", p, a.Mtime, err, n.mtime)
			}
		}
		delete(got, p)
	}
	if len(got) > 0 {
		t.Fatalf("too much: %v", got)
	}
	for _, o := range m.open {
		want := o.n.data
		if o.frozen != nil {
			want = *o.frozen
		}
		if s, err := readHandle(o.h); s != want || err != nil {
			t.Fatalf("a handle shows %q, %v, want %q", s, err, want)
		}
	}
	for h, n := range m.held {
		list, err := m.v.ReadDir(h)
		if err != nil || len(list) != len(n.children) {
			t.Fatalf("a held directory shows %v, %v, want %v", list, err, n.children)
		}
	}
	if m.v.OpenHandles() != len(m.open) || m.v.References() != len(m.held) {
		t.Fatalf("%d handles, %d references, want %d and %d", m.v.OpenHandles(), m.v.References(), len(m.open), len(m.held))
	}
	if len(m.open)+len(m.held) == 0 && len(m.v.root.children) > 0 {
		t.Fatalf("nodes are left: %v", m.v.root.children)
	}
}

func TestAgainstModel(t *testing.T) {
	longrun.Checks(t, 40)
	rapid.Check(t, func(rt *rapid.T) {
		r := newRig(t)
		r.t = rt
		m := newModel(r)
		m.names = []string{"n1", "n2", "a-1-0", "urls.txt", "lib", "cache"}
		rt.Repeat(m.actions())
		m.letGo()
		m.compare(rt)
		m.reopen()
		m.compare(rt)
		check(m.t, m.v.Close())
		if err := os.RemoveAll(m.upper); err != nil && !errors.Is(err, fs.ErrNotExist) {
			rt.Fatal(err)
		}
	})
}
