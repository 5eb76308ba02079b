package transfer

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"condafs/conda"
	"condafs/internal/storetest"
)

// What a record says of the importing user's credentials is not imported, and a second
// import still sees that the package is there.
func TestImportLeavesCredentialsOut(t *testing.T) {
	src := t.TempDir()
	p := pack("a")
	lay(t, src, p, true)
	name := filepath.Join(src, p.Dist(), conda.CompletionMarker)
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	clean := strings.Replace(string(b), "{", `{"mirror": "https://host/own", `, 1)
	write(t, name, strings.Replace(clean, "https://host/", "https://me:secret@host/t/tk-1/", 1), 0o644)
	s := storetest.Open(t)
	if r := doImport(t, s, src); len(r.Imported) != 2 || len(r.Rejected) > 0 {
		t.Fatalf("%+v", r)
	}
	pin := s.PinHead()
	defer pin.Release()
	e, ok, err := pin.Get("shared/pkgs/" + p.Dist())
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	tree, err := s.Tree(e.Digest)
	if err != nil {
		t.Fatal(err)
	}
	at, ok := tree.Find(conda.CompletionMarker)
	if !ok {
		t.Fatal("there is no record")
	}
	f, err := s.OpenBlob(tree.At(at).Digest)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(f)
	if err != nil || f.Close() != nil || string(got) != clean {
		t.Errorf("the record is %s, %v", got, err)
	}
	if r := doImport(t, s, src); r.Present != 2 {
		t.Errorf("the second import: %+v", r)
	}
}
