package failpoint

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The binary that people get has no point in it: neither the functions nor the names.
func TestShippedBinary(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "condafs")
	build := func(args ...string) []byte {
		t.Helper()
		out, err := exec.Command("go", append(append([]string{"build"}, args...), "-o", binary, "condafs/cmd/condafs")...).CombinedOutput()
		if err != nil {
			t.Fatalf("go build: %v\n%s", err, out)
		}
		b, err := os.ReadFile(binary)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	shipped, tested := build(), build("-tags", "condafs_faults")
	for _, p := range All() {
		if bytes.Contains(shipped, []byte(p)) {
			t.Errorf("the shipped binary knows %s", p)
		}
		if !bytes.Contains(tested, []byte(p)) {
			t.Errorf("a binary for tests does not know %s", p)
		}
	}
	for _, symbol := range []string{"failpoint.Hit", "failpoint.Err", armEnvName} {
		if bytes.Contains(shipped, []byte(symbol)) {
			t.Errorf("the shipped binary has %s", symbol)
		}
		if !bytes.Contains(tested, []byte(symbol)) {
			t.Errorf("a binary for tests does not have %s", symbol)
		}
	}
}

// armEnvName is the environment's name, also where the package is built without it.
const armEnvName = "CONDAFS_FAILPOINTS"

// Every point is passed somewhere in the code, and none at two places: else its
// count would tell nothing.
func TestEveryPointIsPassedOnce(t *testing.T) {
	const root = "../.."
	passed := make(map[string][]string)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		files := token.NewFileSet()
		f, err := parser.ParseFile(files, path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if point, ok := passes(n); ok {
				passed[point] = append(passed[point], files.Position(n.Pos()).String())
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	names := constants(t)
	if len(names) != len(All()) || len(names) == 0 {
		t.Errorf("%d constants, and All knows %d points", len(names), len(All()))
	}
	for _, name := range names {
		if at := passed[name]; len(at) != 1 {
			t.Errorf("%s is passed at %d places: %v", name, len(at), at)
		}
	}
}

// passes returns the constant's name if a node is a call of Hit or Err.
func passes(n ast.Node) (string, bool) {
	call, ok := n.(*ast.CallExpr)
	if !ok || len(call.Args) != 2 {
		return "", false
	}
	of := func(e ast.Expr) string {
		if s, ok := e.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok && x.Name == "failpoint" {
				return s.Sel.Name
			}
		}
		return ""
	}
	if f := of(call.Fun); f != "Hit" && f != "Err" {
		return "", false
	}
	return of(call.Args[0]), true
}

func constants(t *testing.T) []string {
	f, err := parser.ParseFile(token.NewFileSet(), "points.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, d := range f.Decls {
		if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.CONST {
			for _, s := range g.Specs {
				names = append(names, s.(*ast.ValueSpec).Names[0].Name)
			}
		}
	}
	return names
}
