package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"condafs/conda"
	"condafs/conda/condatest"
	"condafs/fault"
	"condafs/index"
	"condafs/internal/storetest"
)

var spaces = Spaces{Shared: "shared", Private: "u1000"}

func pack(name string) condatest.Package {
	return condatest.Package{Name: name, Version: "1.0", Build: "0", Files: []condatest.File{
		{Path: "bin/" + name, Body: "#!/bin/sh\necho " + name + "\n", Exec: true},
		{Path: "lib/" + name + "/data", Body: strings.Repeat(name, 30_000)},
		{Path: "lib/link", Link: name + "/data"},
		{Path: "share/ünï", Body: "same in all\n"},
	}}
}

// lay writes a package as conda leaves it: archive, directory, record.
func lay(t *testing.T, dir string, p condatest.Package, archive bool) {
	t.Helper()
	fn := p.Dist() + ".conda"
	b := p.Conda()
	if archive {
		write(t, filepath.Join(dir, fn), string(b), 0o644)
	}
	for _, f := range p.All() {
		at := filepath.Join(dir, p.Dist(), f.Path)
		mode := fs.FileMode(0o664)
		if f.Exec {
			mode = 0o775
		}
		if f.Link == "" {
			write(t, at, f.Body, mode)
			if err := os.Chtimes(at, condatest.Mtime, condatest.Mtime); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(f.Link, at); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(dir, p.Dist(), conda.CompletionMarker), p.Record(fn, b), 0o644)
}

func write(t *testing.T, name, body string, mode fs.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(body), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, mode); err != nil {
		t.Fatal(err)
	}
}

func doImport(t *testing.T, s *index.Store, dir string) *ImportReport {
	t.Helper()
	r, err := Import(t.Context(), s, ImportOptions{Dir: dir, UID: 1000, Spaces: spaces})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// head lists what is in the store's head with its trust.
func head(t *testing.T, s *index.Store) map[string]string {
	t.Helper()
	h := s.PinHead()
	defer h.Release()
	m := map[string]string{}
	for _, space := range spaces.both() {
		if _, ok, err := h.Get(space + "/pkgs"); err != nil {
			t.Fatal(err)
		} else if !ok {
			continue
		}
		l, err := h.List(space + "/pkgs")
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range l {
			m[space+"/"+e.Name] = conda.Trust(e.Trust).String()
		}
	}
	return m
}

func TestImportAndExport(t *testing.T) {
	src := t.TempDir()
	for i := range 20 {
		lay(t, src, pack(fmt.Sprintf("p%02d", i)), true)
	}
	lay(t, src, pack("alone"), false)
	write(t, filepath.Join(src, "urls.txt"), "https://x/a\nhttps://x/b\n", 0o644)
	write(t, filepath.Join(src, "archive-2-0.conda.partial"), "half", 0o644)
	write(t, filepath.Join(src, "cache", "12ab34cd.json"), "{}", 0o644)
	before := listing(t, src)

	s := storetest.Open(t)
	r := doImport(t, s, src)
	if len(r.Rejected) > 0 || len(r.Imported) != 41 || r.Present != 0 {
		t.Fatalf("%d imported, %d present, rejected %v", len(r.Imported), r.Present, r.Rejected)
	}
	if got := listing(t, src); !slices.Equal(got, before) {
		t.Errorf("the source has changed:\n%s\n%s", strings.Join(before, "\n"), strings.Join(got, "\n"))
	}
	h := head(t, s)
	for name, trust := range map[string]string{
		"shared/p00-1.0-0": "verified", "shared/p00-1.0-0.conda": "verified", "u1000/alone-1.0-0": "consistent", "u1000/urls.txt": "opaque",
	} {
		if h[name] != trust {
			t.Errorf("%s is %q, want %q", name, h[name], trust)
		}
	}

	// A second run finds everything by looking, and changes nothing.
	seq := s.Head()
	r = doImport(t, s, src)
	if len(r.Imported) != 0 || r.Present != 41 || len(r.Rejected) > 0 || s.Head() != seq {
		t.Errorf("the second import: %+v, head %d after %d", r, s.Head(), seq)
	}

	// The way back gives the same directory, of which another import knows all.
	out := filepath.Join(t.TempDir(), "new", "pkgs")
	e, err := Export(t.Context(), s, ExportOptions{Dir: out, Spaces: spaces})
	if err != nil || len(e.Exported) != 41 || len(e.Rejected) > 0 {
		t.Fatalf("%+v %v", e, err)
	}
	// Modes are as every client would have made them, whatever the umask was.
	names := func(l []string) (names []string) {
		for _, s := range l {
			name, _, _ := strings.Cut(s, " ")
			if strings.Contains(name, "-1.0-0") {
				names = append(names, name)
			}
		}
		return names
	}
	all := listing(t, out)
	if want, got := names(before), names(all); !slices.Equal(want, got) {
		t.Errorf("the export has other names:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if n := len(names(all)) + 2; len(all) != n {
		t.Errorf("%d things, want %d", len(all), n) // the packages, urls.txt and the directory
	}
	if b, err := os.ReadFile(filepath.Join(out, "urls.txt")); err != nil || string(b) != "https://x/a\nhttps://x/b\n" {
		t.Errorf("urls.txt: %q %v", b, err)
	}
	r = doImport(t, s, out)
	if len(r.Imported) != 0 || r.Present != 41 {
		t.Errorf("the export is not what was imported: %+v", r)
	}
	e, err = Export(t.Context(), s, ExportOptions{Dir: out, Spaces: spaces})
	if err != nil || len(e.Exported) != 0 || e.Present != 41 {
		t.Errorf("the second export: %+v %v", e, err)
	}
}

// listing describes all below dir: names, modes, sizes, times, targets.
func listing(t *testing.T, dir string) []string {
	t.Helper()
	var l []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		s := rel + " " + fi.Mode().String()
		if fi.Mode().IsRegular() {
			s += fmt.Sprint(" ", fi.Size(), " ", fi.ModTime().UnixNano())
		}
		l = append(l, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestImportNamesWhatDoesNotHold(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(t *testing.T, dir string)
		why   map[string]string // name and a part of the reason
		holds []string
	}{
		"a file changed": {
			spoil: func(t *testing.T, dir string) {
				write(t, filepath.Join(dir, "a-1.0-0", "bin", "a"), "#!/bin/sh\necho b\n", 0o775)
			},
			why:   map[string]string{"a-1.0-0": "bin/a"},
			holds: []string{"shared/a-1.0-0.conda"},
		},
		"a file is missing": {
			spoil: func(t *testing.T, dir string) { remove(t, filepath.Join(dir, "a-1.0-0", "share", "ünï")) },
			why:   map[string]string{"a-1.0-0": "share/ünï"},
			holds: []string{"shared/a-1.0-0.conda"},
		},
		"never completed": {
			spoil: func(t *testing.T, dir string) { remove(t, filepath.Join(dir, "a-1.0-0", conda.CompletionMarker)) },
			why:   map[string]string{"a-1.0-0": "never completed"},
			holds: []string{"u1000/a-1.0-0.conda"},
		},
		"the archive is cut short": {
			spoil: func(t *testing.T, dir string) {
				if err := os.Truncate(filepath.Join(dir, "a-1.0-0.conda"), 100); err != nil {
					t.Fatal(err)
				}
			},
			why:   map[string]string{"a-1.0-0.conda": "its archive has 100 bytes"},
			holds: []string{"u1000/a-1.0-0"},
		},
		"a record that lies": {
			spoil: func(t *testing.T, dir string) {
				write(t, filepath.Join(dir, "a-1.0-0", conda.CompletionMarker), pack("a").Record("a-1.0-0.conda", []byte("another archive")), 0o644)
			},
			why:   map[string]string{"a-1.0-0": "its record says"},
			holds: []string{"u1000/a-1.0-0.conda"},
		},
		"a FIFO in the package": {
			spoil: func(t *testing.T, dir string) { mkfifo(t, filepath.Join(dir, "a-1.0-0", "bin", "pipe")) },
			why:   map[string]string{"a-1.0-0": "bin/pipe"},
			holds: []string{"shared/a-1.0-0.conda"},
		},
		"a link that leads out": {
			spoil: func(t *testing.T, dir string) {
				if err := os.Symlink("../../../etc/passwd", filepath.Join(dir, "a-1.0-0", "bin", "out")); err != nil {
					t.Fatal(err)
				}
			},
			why:   map[string]string{"a-1.0-0": "bin/out"},
			holds: []string{"shared/a-1.0-0.conda"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			src := t.TempDir()
			lay(t, src, pack("a"), true)
			lay(t, src, pack("sound"), true)
			c.spoil(t, src)
			s := storetest.Open(t)
			r := doImport(t, s, src)
			for _, n := range r.Rejected {
				part, ok := c.why[n.Path]
				if !ok || !strings.Contains(n.Why, part) {
					t.Errorf("rejected %s: %s", n.Path, n.Why)
				}
			}
			if len(r.Rejected) != len(c.why) {
				t.Errorf("rejected %v, want %v", r.Rejected, c.why)
			}
			h := head(t, s)
			for _, want := range append(c.holds, "shared/sound-1.0-0", "shared/sound-1.0-0.conda") {
				if _, ok := h[want]; !ok {
					t.Errorf("%s is missing in %v", want, h)
				}
			}
			if len(h) != len(c.holds)+2 {
				t.Errorf("the head is %v", h)
			}
		})
	}
}

func remove(t *testing.T, name string) {
	t.Helper()
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
}

func TestWhoIsFirstStays(t *testing.T) {
	s := storetest.Open(t)
	one, two := t.TempDir(), t.TempDir()
	lay(t, one, pack("a"), true)
	other := pack("a")
	other.Files[0].Body = "#!/bin/sh\necho other\n"
	lay(t, two, other, true)
	doImport(t, s, one)
	r := doImport(t, s, two)
	// Another verified package of the same name is the importer's own.
	if len(r.Imported) != 2 || len(r.Rejected) > 0 {
		t.Fatalf("%+v", r)
	}
	h := head(t, s)
	if len(h) != 4 || h["u1000/a-1.0-0"] != "verified" || h["shared/a-1.0-0"] != "verified" {
		t.Errorf("the head is %v", h)
	}
	third := pack("a")
	third.Files[0].Body = "#!/bin/sh\necho third\n"
	three := t.TempDir()
	lay(t, three, third, true)
	r = doImport(t, s, three)
	if len(r.Imported) != 0 || len(r.Rejected) != 2 || !strings.Contains(r.Rejected[0].Why, "first") {
		t.Errorf("%+v", r)
	}
}

func TestImportOfNothing(t *testing.T) {
	s := storetest.Open(t)
	if _, err := Import(t.Context(), s, ImportOptions{Dir: t.TempDir(), Spaces: spaces}); !fault.Is(err, fault.Usage) {
		t.Errorf("an empty directory: %v", err)
	}
	if _, err := Import(t.Context(), s, ImportOptions{Dir: "/nonexistent", Spaces: spaces}); !fault.Is(err, fault.NotFound) {
		t.Errorf("no directory: %v", err)
	}
}

// TestImportGoesOn stops an import after its first package, and runs it again.
func TestImportGoesOn(t *testing.T) {
	src := t.TempDir()
	for i := range 30 {
		lay(t, src, pack(fmt.Sprintf("p%02d", i)), false)
	}
	s := storetest.Open(t)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := Import(ctx, s, ImportOptions{Dir: src, UID: 1000, Spaces: spaces, Progress: func(p Progress) {
		if p.Done == 5 {
			cancel()
		}
	}})
	if !fault.Is(err, fault.Canceled) || !strings.Contains(err.Error(), "run it again") {
		t.Fatalf("got %v", err)
	}
	n := len(head(t, s))
	if n == 0 || n == 30 {
		t.Errorf("%d packages were imported before the end", n)
	}
	r := doImport(t, s, src)
	if r.Present != n || len(r.Imported) != 30-n {
		t.Errorf("%d were there, %d present, %d imported", n, r.Present, len(r.Imported))
	}
}

func TestExportOfSome(t *testing.T) {
	src := t.TempDir()
	lay(t, src, pack("a"), true)
	lay(t, src, pack("b"), true)
	s := storetest.Open(t)
	doImport(t, s, src)
	out := t.TempDir()
	r, err := Export(t.Context(), s, ExportOptions{Dir: out, Spaces: spaces, Names: []string{"a-1.0-0"}})
	if err != nil || !slices.Equal(r.Exported, []string{"a-1.0-0", "a-1.0-0.conda"}) {
		t.Errorf("%+v %v", r, err)
	}
	if _, err := Export(t.Context(), s, ExportOptions{Dir: out, Spaces: spaces, Names: []string{"c-1.0-0"}}); !fault.Is(err, fault.NotFound) {
		t.Errorf("an unknown name: %v", err)
	}
	// What is there and is something else stays, and is named.
	write(t, filepath.Join(out, "b-1.0-0"), "mine", 0o644)
	r, err = Export(t.Context(), s, ExportOptions{Dir: out, Spaces: spaces})
	if err != nil || len(r.Rejected) != 1 || r.Rejected[0].Path != "b-1.0-0" || r.Present != 2 {
		t.Errorf("%+v %v", r, err)
	}
	if b, err := os.ReadFile(filepath.Join(out, "b-1.0-0")); err != nil || string(b) != "mine" {
		t.Errorf("%q %v", b, err)
	}
}

// TestExportOfDamage has one bit of the store flipped.
func TestExportOfDamage(t *testing.T) {
	src := t.TempDir()
	lay(t, src, pack("a"), false)
	lay(t, src, pack("b"), false)
	s := storetest.Open(t)
	doImport(t, s, src)
	err := filepath.WalkDir(filepath.Join(s.Dir(), "objects"), func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(p)
		if err != nil || string(b) != "#!/bin/sh\necho b\n" {
			return err
		}
		b[0]++
		return errors.Join(os.Chmod(p, 0o600), os.WriteFile(p, b, 0o600))
	})
	if err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	r, err := Export(t.Context(), s, ExportOptions{Dir: out, Spaces: spaces})
	if err != nil || len(r.Rejected) != 1 || r.Rejected[0].Path != "b-1.0-0" || !strings.Contains(r.Rejected[0].Why, "not what its name says") {
		t.Errorf("%+v %v", r, err)
	}
	for _, e := range listing(t, out) {
		if strings.HasPrefix(e, "b-") || strings.Contains(e, "export") {
			t.Errorf("left behind: %s", e)
		}
	}
}

// TestSourceErrorsAreNotTheStores reads a file that can't be read.
func TestSourceErrorsAreNotTheStores(t *testing.T) {
	s := storetest.Open(t)
	h := s.NewHold()
	defer h.Release()
	f, err := os.Open(t.TempDir()) // a directory: read fails with EISDIR
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := putter{store: s}
	if _, err := p.put(h, f, 0); err == nil || isStoreError(err) {
		t.Errorf("got %v", err)
	}
	if err := inStore(io.EOF); !isStoreError(err) || !errors.Is(err, io.EOF) {
		t.Errorf("got %v", err)
	}
}
