package index

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"condafs/fault"
	"condafs/hashing"

	"pgregory.net/rapid"
)

func fileEntry(content string) TreeEntry {
	return TreeEntry{Kind: KindFile, Mode: 0o644, Mtime: 7, Size: int64(len(content)), Digest: hashing.Sum([]byte(content))}
}

func buildTree(t testing.TB, entries map[string]TreeEntry) *Tree {
	t.Helper()
	b := NewTreeBuilder(TreeEntry{Mode: 0o755})
	for _, path := range slices.Sorted(maps.Keys(entries)) {
		if err := b.Add(path, entries[path]); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func sampleTree(t testing.TB) *Tree {
	return buildTree(t, map[string]TreeEntry{
		"info/index.json":           fileEntry("{}"),
		"info/repodata_record.json": fileEntry("record"),
		"lib/liba.so":               {Kind: KindSymlink, Mode: 0o777, Link: "liba.so.1"},
		"lib/liba.so.1":             fileEntry("elf"),
		"lib/empty":                 {Kind: KindDir, Mode: 0o700},
		"bin/\xff\xfe":              fileEntry("not utf-8"),
	})
}

func TestTreeLookups(t *testing.T) {
	tree := sampleTree(t)
	for path, kind := range map[string]Kind{
		"": KindDir, "info": KindDir, "lib/empty": KindDir, "lib/liba.so": KindSymlink, "lib/liba.so.1": KindFile, "bin/\xff\xfe": KindFile,
	} {
		i, ok := tree.Find(path)
		if !ok || tree.At(i).Kind != kind {
			t.Errorf("Find(%q) = %d, %v", path, i, ok)
		}
	}
	for _, path := range []string{"none", "lib/", "/lib", "lib//empty", "lib/liba.so.1/x", "lib/empty/x", "."} {
		if i, ok := tree.Find(path); ok {
			t.Errorf("Find(%q) = %d", path, i)
		}
	}
	if lo, hi := tree.Children(0); hi-lo != 3 {
		t.Errorf("the root has children %d to %d", lo, hi)
	}
	var paths []string
	for path := range tree.All() {
		paths = append(paths, path)
	}
	want := []string{"bin", "bin/\xff\xfe", "info", "info/index.json", "info/repodata_record.json", "lib", "lib/empty", "lib/liba.so", "lib/liba.so.1"}
	if !slices.Equal(paths, want) {
		t.Errorf("All gives %q", paths)
	}
	for path := range tree.All() {
		if path == "info" {
			break // an early end must be fine
		}
	}
	if got := tree.Bytes(); got != int64(len("{}")+len("record")+len("elf")+len("not utf-8")) {
		t.Errorf("%d bytes", got)
	}
}

func TestTreeBuilderRefuses(t *testing.T) {
	good := fileEntry("x")
	tests := []struct {
		name, path string
		e          TreeEntry
	}{
		{"an empty path", "", good},
		{"an absolute path", "/etc/passwd", good},
		{"a way up", "lib/../../x", good},
		{"a dot", "lib/./x", good},
		{"a trailing slash", "lib/", good},
		{"NUL", "a\x00b", good},
		{"a long name", strings.Repeat("n", 256), good},
		{"a duplicate", "there", good},
		{"a directory over a file", "there", TreeEntry{Kind: KindDir}},
		{"a file as a parent", "there/x", good},
		{"a file over a directory", "dir", good},
		{"a directory twice", "dir", TreeEntry{Kind: KindDir}},
		{"a tree in a tree", "x", TreeEntry{Kind: KindTree}},
		{"no kind", "x", TreeEntry{}},
		{"a link to nowhere", "x", TreeEntry{Kind: KindSymlink}},
		{"a file without digest", "x", TreeEntry{Kind: KindFile}},
		{"a negative size", "x", TreeEntry{Kind: KindFile, Size: -1, Digest: good.Digest}},
		{"file type bits", "x", TreeEntry{Kind: KindDir, Mode: 0o40755}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := NewTreeBuilder(TreeEntry{})
			if err := b.Add("there", good); err != nil {
				t.Fatal(err)
			}
			if err := b.Add("dir", TreeEntry{Kind: KindDir}); err != nil {
				t.Fatal(err)
			}
			if err := b.Add(tt.path, tt.e); !fault.Is(err, fault.Corrupt) {
				t.Errorf("err = %v", err)
			}
		})
	}
}

func TestTreeBuilderFillsInParents(t *testing.T) {
	b := NewTreeBuilder(TreeEntry{Mode: 0o700, Mtime: 5})
	for _, step := range []struct {
		path string
		e    TreeEntry
	}{{"a/b/c", fileEntry("x")}, {"a", TreeEntry{Kind: KindDir, Mode: 0o711, Size: 9, Link: "junk"}}} {
		if err := b.Add(step.path, step.e); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]uint32{"": 0o700, "a": 0o711, "a/b": 0o755} {
		i, ok := tree.Find(path)
		if e := tree.At(i); !ok || e.Mode != mode || e.Size != 0 || e.Link != "" {
			t.Errorf("%q is %+v", path, e)
		}
	}
}

func TestContentDigest(t *testing.T) {
	base := map[string]TreeEntry{"bin/tool": fileEntry("x"), "info/repodata_record.json": fileEntry("r")}
	changed := func(path string, change func(e *TreeEntry)) map[string]TreeEntry {
		out := maps.Clone(base)
		e := out[path]
		change(&e)
		out[path] = e
		return out
	}
	tests := []struct {
		name string
		tree map[string]TreeEntry
		same bool
	}{
		{"itself", base, true},
		{"another time", changed("bin/tool", func(e *TreeEntry) { e.Mtime++ }), true},
		{"another umask", changed("bin/tool", func(e *TreeEntry) { e.Mode = 0o600 }), true},
		{"another directory mode", changed("bin", func(e *TreeEntry) { *e = TreeEntry{Kind: KindDir, Mode: 0o700} }), true},
		{"another record", changed("info/repodata_record.json", func(e *TreeEntry) { *e = fileEntry("other") }), true},
		{"executable", changed("bin/tool", func(e *TreeEntry) { e.Mode = 0o755 }), false},
		{"another content", changed("bin/tool", func(e *TreeEntry) { *e = fileEntry("y") }), false},
		{"another name", changed("bin/more", func(e *TreeEntry) { *e = fileEntry("x") }), false},
		{"a link", changed("bin/tool", func(e *TreeEntry) { *e = TreeEntry{Kind: KindSymlink, Link: "x"} }), false},
		{"an empty directory", changed("etc", func(e *TreeEntry) { *e = TreeEntry{Kind: KindDir} }), false},
	}
	want := buildTree(t, base).ContentDigest()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := buildTree(t, tt.tree).ContentDigest(); (got == want) != tt.same {
				t.Errorf("same = %v", got == want)
			}
		})
	}
}

// drawTree makes any tree, with a plain map of what is in it.
func drawTree(t *rapid.T) (*Tree, map[string]TreeEntry) {
	b := NewTreeBuilder(TreeEntry{Mode: 0o755})
	model := make(map[string]TreeEntry)
	paths := rapid.SliceOfDistinct(rapid.StringMatching(`[a-c]{1,2}(/[a-c]{1,2}){0,3}`), rapid.ID[string]).Draw(t, "paths")
	for _, path := range paths {
		e := TreeEntry{
			Kind:  rapid.SampledFrom([]Kind{KindDir, KindFile, KindSymlink}).Draw(t, "kind"),
			Mode:  rapid.Uint32Range(0, 0o7777).Draw(t, "mode"),
			Mtime: rapid.Int64().Draw(t, "mtime"),
			Size:  rapid.Int64Range(0, 1<<62).Draw(t, "size"),
			Link:  rapid.StringMatching(`[a-z./]{1,9}`).Draw(t, "link"),
		}
		e.Digest = hashing.Sum([]byte(e.Link))
		if b.Add(path, e) == nil {
			e = normalized(e)
			e.Name = path[strings.LastIndexByte(path, '/')+1:]
			model[path] = e
		}
	}
	tree, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return tree, model
}

func TestTreeProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tree, model := drawTree(t)
		decoded, err := DecodeTree(tree.Encode())
		if err != nil {
			t.Fatal(err)
		}
		if decoded.Digest() != tree.Digest() || decoded.ContentDigest() != tree.ContentDigest() || decoded.Bytes() != tree.Bytes() {
			t.Fatal("a decoded tree is another")
		}
		last := ""
		for path, e := range decoded.All() {
			if path <= last && !strings.HasPrefix(path, last) && strings.Count(path, "/") == strings.Count(last, "/") {
				t.Fatalf("%q after %q", path, last)
			}
			last = path
			if want, ok := model[path]; ok && e != want {
				t.Fatalf("%q is %+v, want %+v", path, e, want)
			}
			delete(model, path)
			if i, ok := decoded.Find(path); !ok || decoded.At(i) != e {
				t.Fatalf("Find(%q) = %d, %v", path, i, ok)
			}
		}
		if len(model) > 0 {
			t.Fatalf("lost %v", model)
		}
	})
}

func FuzzDecodeTree(f *testing.F) {
	f.Add(sampleTree(f).Encode())
	f.Add(buildTree(f, nil).Encode())
	f.Add([]byte{})
	f.Add([]byte{treeVersion, 1, byte(KindDir), 0, 0, 0, 0})
	f.Add([]byte{treeVersion, 2, byte(KindDir), 0, 0, 0, 1, byte(KindDir), 0, 0, 1, 'a', 1})
	f.Add([]byte{treeVersion, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		tree, err := DecodeTree(b)
		if err != nil {
			if !fault.Is(err, fault.Corrupt) {
				t.Fatalf("kind of %v", err)
			}
			return
		}
		if !bytes.Equal(tree.Encode(), b) {
			t.Fatal("not canonical")
		}
		n := 1
		for path, e := range tree.All() {
			n++
			if _, _, err := splitPath(path); err != nil && len(path) <= maxPath {
				t.Fatal(err)
			}
			if err := checkTreeEntry(&e, false); err != nil {
				t.Fatal(err)
			}
		}
		if n != tree.Len() {
			t.Fatalf("reached %d of %d entries", n, tree.Len())
		}
		tree.ContentDigest()
	})
}

func FuzzDecodeEntry(f *testing.F) {
	d := hashing.Sum(nil)
	for _, e := range []Entry{
		{Kind: KindDir, Mode: 0o755},
		{Kind: KindFile, Mode: 0o644, Size: 5, Digest: d, SHA256: strings.Repeat("a", 64), Mtime: -1, Owner: 1000},
		{Kind: KindTree, Trust: 2, Digest: d, Content: d, Size: 1 << 40},
		{Kind: KindSymlink, Mode: 0o777, Link: "../x"},
	} {
		f.Add(encodeEntry(&e))
		if got, err := decodeEntry(encodeEntry(&e)); err != nil || got != e {
			f.Fatalf("%+v came back as %+v, %v", e, got, err)
		}
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := decodeEntry(b)
		if err == nil && !bytes.Equal(encodeEntry(&e), b) {
			t.Fatalf("%+v is not canonical", e)
		}
	})
}

func FuzzDecodeOps(f *testing.F) {
	f.Add(encodeOps([]op{{key: []byte("k"), value: []byte("v")}, {key: []byte("gone")}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		ops, err := decodeOps(b)
		if err == nil && !bytes.Equal(encodeOps(ops), b) {
			t.Fatalf("%q is not canonical", ops)
		}
	})
}

func BenchmarkTree(b *testing.B) {
	for _, n := range []int{200, 20_000} {
		builder := NewTreeBuilder(TreeEntry{Mode: 0o755})
		for i := range n {
			if err := builder.Add(fmt.Sprintf("lib/python3.12/site-packages/p%d/module_%d.py", i/100, i), fileEntry(fmt.Sprint(i))); err != nil {
				b.Fatal(err)
			}
		}
		tree, err := builder.Build()
		if err != nil {
			b.Fatal(err)
		}
		encoded := tree.Encode()
		b.Run(fmt.Sprintf("decode/%d", n), func(b *testing.B) {
			b.SetBytes(int64(len(encoded)))
			for b.Loop() {
				if _, err := DecodeTree(encoded); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("encode/%d", n), func(b *testing.B) {
			for b.Loop() {
				tree.Encode()
			}
		})
		b.Run(fmt.Sprintf("find/%d", n), func(b *testing.B) {
			for b.Loop() {
				tree.Find("lib/python3.12/site-packages/p1/module_150.py")
			}
		})
	}
}
