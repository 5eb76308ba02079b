package index

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"condafs/fault"
)

// TreeBuilder collects the entries of a Tree in any order. It is for one goroutine.
type TreeBuilder struct {
	root  node
	count int
}

type node struct {
	TreeEntry
	children map[string]*node
	implied  bool // made because something below was added
}

// NewTreeBuilder starts with a root of this mode and time; its other fields are
// set.
func NewTreeBuilder(root TreeEntry) *TreeBuilder {
	root.Name, root.Kind = "", KindDir
	return &TreeBuilder{root: node{TreeEntry: normalized(root)}, count: 1}
}

// Add adds e at path, relative to the root; e.Name is set from it. Missing parents
// are made with mode 0755 and the root's time, and can be added properly later. The
// same path twice is an error, as is a parent that is no directory.
func (b *TreeBuilder) Add(path string, e TreeEntry) error {
	if err := b.add(path, e); err != nil {
		return fault.New("add to tree", strconv.Quote(path), fault.Corrupt, err)
	}
	return nil
}

func (b *TreeBuilder) add(path string, e TreeEntry) error {
	dir := &b.root
	rest := path
	for {
		name, below, more := strings.Cut(rest, "/")
		if err := checkName(name); err != nil {
			return err
		}
		if !more {
			e.Name = name
			return b.put(dir, normalized(e))
		}
		next := dir.children[name]
		if next == nil {
			next = dir.insert(TreeEntry{Name: name, Kind: KindDir, Mode: 0o755, Mtime: b.root.Mtime})
			next.implied = true
			b.count++
		} else if next.Kind != KindDir {
			return fmt.Errorf("its parent %q is a %v", name, next.Kind)
		}
		dir, rest = next, below
	}
}

func (b *TreeBuilder) put(dir *node, e TreeEntry) error {
	if err := checkTreeEntry(&e, false); err != nil {
		return err
	}
	old := dir.children[e.Name]
	switch {
	case old == nil:
		dir.insert(e)
		b.count++
	case old.implied && e.Kind == KindDir:
		old.TreeEntry, old.implied = e, false
	default:
		return fmt.Errorf("it is there already, as a %v", old.Kind)
	}
	return nil
}

func (n *node) insert(e TreeEntry) *node {
	if n.children == nil {
		n.children = make(map[string]*node)
	}
	c := &node{TreeEntry: e}
	n.children[e.Name] = c
	return c
}

// normalized clears the fields that the entry's kind does not have, so that they
// cannot make two equal trees differ.
func normalized(e TreeEntry) TreeEntry {
	out := TreeEntry{Name: e.Name, Kind: e.Kind, Mode: e.Mode, Mtime: e.Mtime}
	switch e.Kind {
	case KindFile:
		out.Size, out.Digest = e.Size, e.Digest
	case KindSymlink:
		out.Link = e.Link
	}
	return out
}

// Build returns the tree. The builder can be added to and built again.
func (b *TreeBuilder) Build() (*Tree, error) {
	if b.count > maxTreeEntries {
		return nil, fault.New("build tree", "", fault.TooMany, fmt.Errorf("%d entries, at most %d are possible", b.count, maxTreeEntries))
	}
	if err := checkTreeEntry(&b.root.TreeEntry, true); err != nil {
		return nil, fault.New("build tree", "", fault.Corrupt, err)
	}
	nodes := make([]*node, 1, b.count)
	nodes[0] = &b.root
	encoded := append(make([]byte, 0, 80*b.count), treeVersion)
	encoded = binary.AppendUvarint(encoded, uint64(b.count))
	for i := 0; i < len(nodes); i++ {
		children := nodes[i].sorted()
		nodes = append(nodes, children...)
		encoded = appendTreeEntry(encoded, &nodes[i].TreeEntry, len(children))
	}
	t, err := DecodeTree(encoded)
	if err != nil {
		return nil, fault.New("build tree", "", fault.KindOf(err), err)
	}
	return t, nil
}

func (n *node) sorted() []*node {
	out := make([]*node, 0, len(n.children))
	for _, c := range n.children {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b *node) int { return strings.Compare(a.Name, b.Name) })
	return out
}
