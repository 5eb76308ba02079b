package cow

import (
	"bytes"
	"encoding/gob"
	"reflect"
	"testing"

	"golang.org/x/sys/unix"
)

// handOver replaces the view by another one that has nothing of it but its image, sent
// through the codec, and its open files. It returns what became of nodes and handles.
func (r *rig) handOver(known []*Node) (map[*Node]*Node, map[*Handle]*Handle) {
	r.t.Helper()
	d := r.v.draw(known)
	var b bytes.Buffer
	check(r.t, gob.NewEncoder(&b).Encode(&d.img))
	var img viewImage
	check(r.t, gob.NewDecoder(&b).Decode(&img))
	// The other process would have them under the same numbers.
	dup := func(fd *int) {
		if *fd >= 0 {
			n, err := unix.FcntlInt(uintptr(*fd), unix.F_DUPFD_CLOEXEC, 0)
			check(r.t, err)
			*fd = n
		}
	}
	for i := range img.Handles {
		dup(&img.Handles[i].FD)
	}
	for i := range img.Nodes {
		dup(&img.Nodes[i].Orphan)
	}
	check(r.t, img.check(nodeIDs.Load()))
	old := r.v
	v, nodes, handles, err := restoreView(r.src, r.upper, old.lower.spaces, old.uid, old.gid, old.queue.deliver, &img)
	check(r.t, err)
	newNodes, newHandles := make(map[*Node]*Node), make(map[*Handle]*Handle)
	for i, n := range d.order {
		newNodes[n] = nodes[i]
		if n.id != nodes[i].id {
			r.t.Fatalf("node %d became %d", n.id, nodes[i].id)
		}
		if n.orphan >= 0 {
			check(r.t, unix.Close(n.orphan))
		}
	}
	for i, h := range d.handles {
		newHandles[h] = handles[i]
		check(r.t, h.f.Close())
	}
	r.v = v
	if again := v.draw(values(newNodes, known)); !reflect.DeepEqual(sorted(&again.img), sorted(&d.img)) {
		r.t.Fatalf("the image of the restored view differs:\n%+v\n%+v", again.img, d.img)
	}
	check(r.t, old.Close())
	return newNodes, newHandles
}

func values(m map[*Node]*Node, keys []*Node) (list []*Node) {
	for _, k := range keys {
		list = append(list, m[k])
	}
	return list
}

// sorted counts what two images of the same view have in common, whatever the order.
func sorted(img *viewImage) any {
	type node struct {
		typ       uint32
		ino, link uint64
		refs      int64
		names     int
		links     int
		upper     bool
		split     bool
		lower     bool
		orphan    bool
		mark      markImage
		haveNames bool
		remains   remainsImage
	}
	nodes := make(map[uint64]node)
	for _, n := range img.Nodes {
		var last remainsImage
		if n.Last != nil {
			last = *n.Last
		}
		nodes[n.ID] = node{n.Type, n.Ino, n.Linked, n.Refs, len(n.Names), len(n.Links), n.Upper, n.Split, n.Lower > 0, n.Orphan >= 0, n.Mark, n.HasNames, last}
	}
	gains := make(map[string]gainImage)
	for _, g := range img.Gained {
		gains[g.Path] = g
	}
	handles := make(map[uint64]int)
	for _, h := range img.Handles {
		handles[img.Nodes[h.Node].ID]++
	}
	at, moved := img.At, img.Moved
	if len(at) == 0 {
		at = nil
	}
	if len(moved) == 0 {
		moved = nil
	}
	return []any{nodes, gains, handles, img.GainedSeen, img.LastGen, at, moved, img.Retired, img.MarkedUnseen}
}

// A view that is handed over goes on with open, removed, renamed and merged things.
func TestViewHandedOver(t *testing.T) {
	r := newRig(t)
	check(t, r.create("pkgs/new", "new", 0o640))
	check(t, r.link("pkgs/new", "pkgs/other"))
	check(t, r.rename("pkgs/a-1-0", "pkgs/moved", 0))
	check(t, r.write("pkgs/moved/info/index.json", "[]", 0))
	check(t, r.symlink("new", "pkgs/link"))
	removed, err := r.openAt("pkgs/new", unix.O_RDWR)
	check(t, err)
	below, err := r.openAt("pkgs/b-1-0/bin/b", unix.O_RDONLY)
	check(t, err)
	check(t, r.unlink("pkgs/new"))
	check(t, r.unlink("pkgs/b-1-0/bin/b"))
	dir, err := r.node("pkgs/b-1-0/bin")
	check(t, err)
	check(t, r.rmdir("pkgs/b-1-0/bin"))
	before := r.dump()
	for range 3 {
		nodes, handles := r.handOver([]*Node{dir})
		dir, removed, below = nodes[dir], handles[removed], handles[below]
	}
	if after := r.dump(); !reflect.DeepEqual(after, before) {
		t.Errorf("it shows %v, want %v", after, before)
	}
	if _, err := removed.WriteAt([]byte("N"), 0); err != nil {
		t.Error(err)
	}
	if s, err := r.read("pkgs/other"); s != "New" || err != nil {
		t.Errorf("the other name shows %q, %v", s, err)
	}
	if s, err := readHandle(below); s != "#!" || err != nil {
		t.Errorf("a removed file shows %q, %v", s, err)
	}
	if a, err := r.v.Getattr(dir, nil); a.Nlink != 0 || err != nil {
		t.Errorf("a removed directory: %+v, %v", a, err)
	}
	check(t, removed.Release())
	check(t, below.Release())
	r.v.Forget(dir, 1)
	if r.v.References() != 0 || r.v.OpenHandles() != 0 || len(r.v.root.children) != 0 {
		t.Errorf("%d references, %d handles, %v are left", r.v.References(), r.v.OpenHandles(), r.v.root.children)
	}
}
