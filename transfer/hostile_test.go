package transfer

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"condafs/conda"
	"condafs/index"
	"condafs/internal/storetest"
)

// TestImportFromAHostileDirectory: links, FIFOs and sockets, wherever a client or
// another user may have put them, are neither followed nor waited for.
func TestImportFromAHostileDirectory(t *testing.T) {
	src, outside := t.TempDir(), t.TempDir()
	for _, p := range []string{"good", "fiforecord", "linkrecord", "linkdir", "linkfile", "fifofile", "linklist", "linkinfo"} {
		lay(t, src, pack(p), false)
	}
	lay(t, outside, pack("secret"), true)
	in := func(name string) string { return filepath.Join(src, filepath.FromSlash(name)) }
	record := "/" + conda.CompletionMarker
	swap := func(name string, make func(string) error) error {
		return errors.Join(os.RemoveAll(in(name)), make(in(name)))
	}
	fifo := func(name string) error { return unix.Mkfifo(name, 0o600) }
	link := func(to string) func(string) error { return func(name string) error { return os.Symlink(to, name) } }
	err := errors.Join(
		swap("fiforecord-1.0-0"+record, fifo),
		swap("linkrecord-1.0-0"+record, link(filepath.Join(outside, "secret-1.0-0"+record))),
		swap("linkfile-1.0-0/bin/linkfile", link("/etc/passwd")),
		swap("linkinfo-1.0-0/info", link(filepath.Join(outside, "secret-1.0-0/info"))),
		swap("fifofile-1.0-0/bin/fifofile", fifo),
		swap("linkdir-1.0-0", link(filepath.Join(outside, "secret-1.0-0"))),
		swap("secret-1.0-0.conda", link(filepath.Join(outside, "secret-1.0-0.conda"))),
		swap("pipe-1.0-0.conda", fifo),
		swap("urls.txt", link("/etc/passwd")),
		swap("urls", fifo),
	)
	if err != nil {
		t.Fatal(err)
	}
	s := storetest.Open(t)
	r := doImport(t, s, src)
	if len(r.Imported) != 2 || r.Imported[0].Path != "pkgs/good-1.0-0" && r.Imported[1].Path != "pkgs/good-1.0-0" {
		t.Errorf("imported %+v", r.Imported)
	}
	for name, trust := range head(t, s) {
		if !strings.Contains(name, "good-1.0-0") && !strings.Contains(name, "linklist-1.0-0") {
			t.Errorf("%s was published as %s", name, trust)
		}
	}
}

// TestSourceCannotBeSwapped: what was a package's directory when the import listed it
// is a link to elsewhere when it is opened.
func TestSourceCannotBeSwapped(t *testing.T) {
	src, outside := t.TempDir(), t.TempDir()
	lay(t, outside, pack("secret"), true)
	if err := os.Symlink(filepath.Join(outside, "secret-1.0-0"), filepath.Join(src, "a-1.0-0")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../"+filepath.Base(outside)+"/secret-1.0-0", filepath.Join(src, "b-1.0-0")); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(src)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for _, name := range []string{"a-1.0-0", "b-1.0-0", "../" + filepath.Base(outside) + "/secret-1.0-0"} {
		if s, err := openSource(root, name, maxFiles); err == nil {
			t.Errorf("%s was opened, with %d objects", name, len(s.objects))
			_ = s.Close()
		}
	}
}

// TestExportToAHostileDirectory: whoever owns the directory puts links where the
// export is about to write. What they lead to stays as it is.
func TestExportToAHostileDirectory(t *testing.T) {
	src := t.TempDir()
	for _, p := range []string{"a", "b", "c"} {
		lay(t, src, pack(p), true)
	}
	write(t, filepath.Join(src, "urls.txt"), "https://x/a\n", 0o644)
	s := storetest.Open(t)
	doImport(t, s, src)

	outside := t.TempDir()
	precious := filepath.Join(outside, "precious")
	write(t, precious, "precious", 0o600)
	out := t.TempDir()
	in := func(name string) string { return filepath.Join(out, name) }
	err := errors.Join(os.Symlink(outside, in("a-1.0-0")), os.Symlink(precious, in("b-1.0-0.conda")), os.Symlink(precious, in("urls.txt")), unix.Mkfifo(in("c-1.0-0.conda"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	r, err := Export(t.Context(), s, ExportOptions{Dir: out, Spaces: spaces})
	if err == nil {
		t.Errorf("the list was written through a link: %+v", r)
	}
	if err := os.Remove(in("urls.txt")); err != nil {
		t.Fatal(err)
	}
	r, err = Export(t.Context(), s, ExportOptions{Dir: out, Spaces: spaces})
	if err != nil {
		t.Fatal(err)
	}
	var rejected []string
	for _, n := range r.Rejected {
		rejected = append(rejected, n.Path)
	}
	slices.Sort(rejected)
	if strings.Join(rejected, " ") != "a-1.0-0 b-1.0-0.conda c-1.0-0.conda" || r.Present != 3 {
		t.Errorf("rejected %q, present %d", rejected, r.Present)
	}
	l, err := os.ReadDir(outside)
	if b, rerr := os.ReadFile(precious); err != nil || len(l) != 1 || rerr != nil || string(b) != "precious" {
		t.Errorf("outside: %v, %v; %q, %v", l, err, b, rerr)
	}
}

// TestExportStaysInItsPlace: the directory in which a package is written is replaced
// by a link while that goes on.
func TestExportStaysInItsPlace(t *testing.T) {
	src := t.TempDir()
	lay(t, src, pack("a"), true)
	s := storetest.Open(t)
	doImport(t, s, src)
	h := s.PinHead()
	defer h.Release()
	e, ok, err := find(h.Get, spaces.both(), "a-1.0-0")
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	tree, err := s.Tree(e.Digest)
	if err != nil {
		t.Fatal(err)
	}
	out, outside := t.TempDir(), t.TempDir()
	ex := &exporter{ctx: context.Background(), store: s, o: ExportOptions{Dir: out}}
	if err := ex.open(); err != nil {
		t.Fatal(err)
	}
	defer ex.close()
	if err := ex.root.Mkdir("tmp", 0o700); err != nil {
		t.Fatal(err)
	}
	to, err := newPlace(ex.root, "tmp")
	if err != nil {
		t.Fatal(err)
	}
	defer to.close()
	if err := errors.Join(os.Rename(filepath.Join(out, "tmp"), filepath.Join(out, "away")), os.Symlink(outside, filepath.Join(out, "tmp"))); err != nil {
		t.Fatal(err)
	}
	if err := ex.tree(to, "x", tree); err != nil {
		t.Fatal(err)
	}
	if l, err := os.ReadDir(outside); err != nil || len(l) != 0 {
		t.Errorf("written outside: %v, %v", l, err)
	}
	if _, err := newPlace(ex.root, "tmp"); err == nil {
		t.Error("a link was taken for the place")
	}
	// A link instead of a directory of the package, too.
	if err := errors.Join(os.RemoveAll(filepath.Join(out, "away/x")), os.Mkdir(filepath.Join(out, "away/y"), 0o755), os.Symlink(outside, filepath.Join(out, "away/y/lib"))); err != nil {
		t.Fatal(err)
	}
	for p, te := range tree.All() {
		if te.Kind == index.KindFile && strings.HasPrefix(p, "lib/") {
			if err := ex.file(to, "y/"+p, te.Digest, te.Mode, te.Mtime); err == nil {
				t.Errorf("%s was written through a link", p)
			}
		}
	}
	if err := to.setTime("y/lib/x", 1); err == nil {
		t.Error("a time was set through a link")
	}
	if l, err := fs.ReadDir(os.DirFS(outside), "."); err != nil || len(l) != 0 {
		t.Errorf("written outside: %v, %v", l, err)
	}
}
