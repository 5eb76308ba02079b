package cow

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// viewDrawing makes the image of a view, which nobody uses meanwhile.
type viewDrawing struct {
	v        *View
	img      viewImage
	packages map[packageImage]int
	objects  map[*object]int
	nodes    map[*Node]int
	order    []*Node
	handles  []*Handle // in the order of the image
}

// draw makes the image of the view with all nodes that are referred to: by names, by
// handles, and those that the caller knows.
func (v *View) draw(known []*Node) *viewDrawing {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.hmu.Lock()
	defer v.hmu.Unlock()
	d := &viewDrawing{
		v: v, packages: make(map[packageImage]int), objects: make(map[*object]int), nodes: make(map[*Node]int),
		img: viewImage{
			Retired: v.retired.Load(), MarkedUnseen: v.markedUnseen,
			LastGen: v.gens.last, At: v.gens.at, Moved: v.gens.moved, GainedSeen: v.gained.seen, Lent: slices.Sorted(maps.Keys(v.lent)),
		},
	}
	d.node(v.root)
	for _, n := range known {
		d.node(n)
	}
	for h := range v.handles {
		d.node(h.n)
	}
	// Each node brings those that it names; all have their places by then.
	for i := 0; i < len(d.order); i++ {
		for _, l := range d.order[i].links {
			d.node(l.dir)
		}
		for _, c := range d.order[i].children {
			d.node(c)
		}
	}
	for _, n := range d.order {
		d.img.Nodes = append(d.img.Nodes, d.drawNode(n))
	}
	for h := range v.handles {
		d.handles = append(d.handles, h)
		d.img.Handles = append(d.img.Handles, handleImage{
			Node: d.nodes[h.n], FD: int(h.f.Fd()), Writable: h.writable,
			Passthrough: h.passthrough.Load(), Lower: d.object(h.lower),
		})
	}
	for dir, names := range v.gained.dirs {
		for name, g := range names {
			d.img.Gained = append(d.img.Gained, gainImage{join(dir, name), g.entry, g.obj.ino, g.gone})
		}
	}
	return d
}

// node gives a node its place.
func (d *viewDrawing) node(n *Node) {
	if _, ok := d.nodes[n]; !ok {
		d.nodes[n] = len(d.order)
		d.order = append(d.order, n)
	}
}

func (d *viewDrawing) drawNode(n *Node) nodeImage {
	img := nodeImage{
		ID: n.id, Type: n.typ, Ino: n.ino, Refs: n.refs.Load(), Lower: d.object(n.lower), Upper: n.upper,
		HasNames: n.names != nil, Mark: markImage{n.mark.ino, n.mark.mode, n.mark.hasMode, n.mark.whiteout},
		Linked: n.linked, Split: n.split, Away: n.away, Orphan: n.orphan,
	}
	if n.last != nil {
		img.Last = &remainsImage{n.last.Attr, n.last.target}
	}
	if l := n.liveLane(); l != nil {
		img.Lane = &laneImage{l.id, l.born}
	}
	for _, l := range n.links {
		img.Links = append(img.Links, linkImage{d.nodes[l.dir], l.name})
	}
	for name, u := range n.names {
		img.Names = append(img.Names, nameImage{name, u.typ, u.ino, u.whiteout, u.marked})
	}
	return img
}

// object returns one more than an object's place, and 0 for none.
func (d *viewDrawing) object(o *object) int {
	if o == nil {
		return 0
	}
	if at, ok := d.objects[o]; ok {
		return at
	}
	img := objectImage{Entry: o.TreeEntry, Ino: o.ino, Path: o.path, At: o.at}
	if o.pkg != nil {
		img.Package = d.pkg(packageImage{o.pkg.digest, o.pkg.seed})
	}
	d.img.Objects = append(d.img.Objects, img)
	d.objects[o] = len(d.img.Objects)
	return len(d.img.Objects)
}

func (d *viewDrawing) pkg(p packageImage) int {
	at, ok := d.packages[p]
	if !ok {
		d.img.Packages = append(d.img.Packages, p)
		at = len(d.img.Packages)
		d.packages[p] = at
	}
	return at
}

// errImage says that an image contradicts itself: it was written by something else.
var errImage = errors.New("the image of a view makes no sense")

// check makes sure that all places are there, so that restoring can rely on it.
func (img *viewImage) check(last uint64) error {
	bad := func(what string, i int) error { return fmt.Errorf("%w: %s %d", errImage, what, i) }
	if len(img.Nodes) == 0 || img.Nodes[0].Type != unix.S_IFDIR || img.Nodes[0].Lower == 0 || len(img.Nodes[0].Links) > 0 {
		return bad("root", 0)
	}
	for i, o := range img.Objects {
		if o.Package < 0 || o.Package > len(img.Packages) || o.At < 0 {
			return bad("object", i)
		}
	}
	ids := make(map[uint64]bool, len(img.Nodes))
	for i, n := range img.Nodes {
		switch {
		case n.ID == 0, n.ID > last, ids[n.ID], n.Refs < 0, n.Lower < 0, n.Lower > len(img.Objects), n.Orphan < -1,
			n.Lower == 0 && !n.Upper && n.Last == nil,
			n.Lane != nil && (n.Type != unix.S_IFLNK || len(n.Links) == 0 || !n.Upper || n.Lane.ID == "" || strings.Trim(n.Lane.ID, idAlphabet) != ""),
			n.Away && (n.Type != unix.S_IFDIR || n.Lower == 0 || n.Upper || len(n.Links) > 0),
			n.Lower > 0 && img.Objects[n.Lower-1].typ() != n.Type:
			return bad("node", i)
		}
		ids[n.ID] = true
		for _, l := range n.Links {
			if l.Dir < 0 || l.Dir >= len(img.Nodes) || l.Dir == i || img.Nodes[l.Dir].Type != unix.S_IFDIR || checkName(l.Name) != nil {
				return bad("link of node", i)
			}
		}
	}
	if err := img.checkPaths(); err != nil {
		return err
	}
	for i, h := range img.Handles {
		if h.Node < 0 || h.Node >= len(img.Nodes) || img.Nodes[h.Node].Type != unix.S_IFREG || h.FD < 0 || h.Lower < 0 || h.Lower > len(img.Objects) {
			return bad("handle", i)
		}
	}
	return nil
}

func (o objectImage) typ() uint32 { return typeBits(o.Entry.Kind) }

// checkPaths makes sure that the way up from each node ends.
func (img *viewImage) checkPaths() error {
	const unknown, under, ends = 0, 1, 2
	state := make([]uint8, len(img.Nodes))
	var way []int
	for i := range img.Nodes {
		way = way[:0]
		at := i
		for state[at] == unknown && len(img.Nodes[at].Links) > 0 {
			state[at] = under
			way = append(way, at)
			at = img.Nodes[at].Links[0].Dir
		}
		if state[at] == under {
			return fmt.Errorf("%w: node %d is in itself", errImage, at)
		}
		state[at] = ends
		for _, n := range way {
			state[n] = ends
		}
	}
	return nil
}

// restoreView opens a view and gives it what its image knows.
func restoreView(src source, upperDir string, spaces []string, uid, gid uint32, events func(Event), img *viewImage) (*View, []*Node, []*Handle, error) {
	v, err := openView(src, upperDir, spaces, uid, gid, events)
	if err != nil {
		return nil, nil, nil, err
	}
	objects := img.restoreObjects()
	nodes := make([]*Node, len(img.Nodes))
	for i := range img.Nodes {
		nodes[i] = v.restoreNode(&img.Nodes[i], objects)
	}
	v.root = nodes[0]
	for i, n := range nodes {
		for _, l := range img.Nodes[i].Links {
			n.attach(nodes[l.Dir], l.Name)
		}
	}
	handles := make([]*Handle, len(img.Handles))
	for i, h := range img.Handles {
		handles[i] = v.restoreHandle(h, nodes[h.Node], objects)
	}
	v.retired.Store(img.Retired)
	v.markedUnseen = img.MarkedUnseen
	v.gens = generations{last: img.LastGen, at: img.At, moved: img.Moved}
	for _, ino := range img.Lent {
		v.lendIno(ino)
	}
	v.gained.restore(img)
	return v, nodes, handles, nil
}

// restoreObjects returns the objects, of which the first stands for none.
func (img *viewImage) restoreObjects() []*object {
	packages := make([]*packageDir, 1, len(img.Packages)+1)
	for _, p := range img.Packages {
		packages = append(packages, &packageDir{p.Digest, p.Seed})
	}
	objects := make([]*object, 1, len(img.Objects)+1)
	for _, o := range img.Objects {
		objects = append(objects, &object{TreeEntry: o.Entry, ino: o.Ino, path: o.Path, pkg: packages[o.Package], at: o.At})
	}
	return objects
}

func (v *View) restoreNode(img *nodeImage, objects []*object) *Node {
	n := &Node{
		id: img.ID, view: v, typ: img.Type, ino: img.Ino, lower: objects[img.Lower], upper: img.Upper,
		mark:   mark{img.Mark.Ino, img.Mark.Mode, img.Mark.HasMode, img.Mark.Whiteout},
		linked: img.Linked, split: img.Split, away: img.Away, orphan: img.Orphan,
	}
	if img.Last != nil {
		n.last = &remains{img.Last.Attr, img.Last.Target}
	}
	n.refs.Store(img.Refs)
	v.refs.Add(img.Refs)
	if img.HasNames {
		n.names = make(map[string]upperName, len(img.Names))
		for _, u := range img.Names {
			n.names[u.Name] = upperName{u.Type, u.Whiteout, u.Marked, u.Ino}
		}
	}
	if n.linked != 0 {
		v.linked[n.linked] = n
	}
	if n.orphan >= 0 {
		v.orphans[n.orphan] = struct{}{}
	}
	if img.Lane != nil {
		v.enterLane(&lane{id: img.Lane.ID, born: img.Lane.Born}, n)
	}
	return n
}

func (v *View) restoreHandle(img handleImage, n *Node, objects []*object) *Handle {
	h := &Handle{
		n: n, f: os.NewFile(uintptr(img.FD), "overlay file"), writable: img.Writable,
		lower: objects[img.Lower],
	}
	h.passthrough.Store(img.Passthrough)
	n.handles = append(n.handles, h)
	v.handles[h] = struct{}{}
	return h
}

// restore takes the place of what open has read.
func (g *gained) restore(img *viewImage) {
	g.dirs, g.seen = nil, 0
	for _, i := range img.Gained {
		g.apply(&gainRecord{Path: []byte(i.Path), Entry: i.Entry, Gone: i.Gone})
		dir, name := splitPath(i.Path)
		o := g.dirs[dir][name].obj
		o.ino = i.Ino
		if o.pkg != nil {
			o.pkg.seed = i.Ino
		}
	}
	g.seen = img.GainedSeen
}
