package cow

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"testing"

	"condafs/hashing"
	"condafs/index"
)

// onDisk is a snapshot of packages that are all alike, whose manifest is decoded
// each time that somebody asks for it, as by a store that can't keep them all.
type onDisk struct {
	*memSource
	encoded []byte
}

func (s onDisk) Get(path string) (index.Entry, bool, error) {
	if dir, _ := splitPath(path); dir != "shared/pkgs" {
		return s.memSource.Get(path)
	}
	return s.entries["shared/pkgs/any"], true, nil
}

func (s onDisk) Tree(hashing.Digest) (*index.Tree, error) {
	return index.DecodeTree(bytes.Clone(s.encoded))
}

func (s onDisk) OpenBlob(hashing.Digest, int64) (*os.File, error) { return nil, os.ErrNotExist }

// heap returns how many bytes are in use.
func heap() int64 {
	runtime.GC()
	runtime.GC() // what the first one has finalised
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// A client that looks at one file in each package costs what the kernel knows of
// it, not the packages' manifests, and nothing when the kernel has forgotten.
func TestMemoryOfAView(t *testing.T) {
	const (
		packages = 300
		files    = 800
		most     = 4 << 10 // bytes for a package, its info/ and one file in there
	)
	content := make(map[string]string)
	for i := range files {
		content[fmt.Sprintf("lib/python3.12/site-packages/module/part%d/file_%d.py", i/20, i)] = "x"
	}
	content["info/index.json"] = "{}"
	content["info/link"] = "-> index.json"
	src := onDisk{memSource: newMemSource(t)}
	src.tree(t, "shared/pkgs/any", content)
	tree := src.mustTree(src.entries["shared/pkgs/any"].Digest)
	src.encoded = tree.Encode()
	if len(src.encoded) < 8*most {
		t.Fatalf("a manifest of %d bytes shows nothing", len(src.encoded))
	}
	v, err := openView(src, t.TempDir()+"/upper", []string{"shared"}, 7, 8, nil)
	check(t, err)
	t.Cleanup(func() { check(t, v.Close()) })

	known := make([]*Node, 0, 4*packages+1) // to the kernel
	look := func(dir *Node, name string) *Node {
		n, _, err := v.Lookup(dir, name)
		check(t, err)
		known = append(known, n)
		return n
	}
	pkgs := look(v.Root(), "pkgs")
	before := heap()
	for i := range packages {
		info := look(look(pkgs, fmt.Sprintf("package%d-1.0-0", i)), "info")
		look(info, "index.json")
		look(info, "link")
	}
	each := (heap() - before) / packages
	t.Logf("%d bytes for each package that was looked into; its manifest has %d", each, len(src.encoded))
	if each > most {
		t.Errorf("%d bytes for each package that was looked into, want at most %d", each, most)
	}
	for _, n := range known {
		v.Forget(n, 1)
	}
	if n := len(v.Root().children); n > 0 || v.References() != 0 {
		t.Errorf("%d nodes and %d references are left after all was forgotten", n, v.References())
	}
	known, pkgs = nil, nil
	if left := heap() - before; left > 64<<10 {
		t.Errorf("%d bytes are left after all was forgotten", left)
	}
	runtime.KeepAlive(v)
}
