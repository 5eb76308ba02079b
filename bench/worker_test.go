package bench

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"condafs/conda"
)

func workOn(t *testing.T, args ...string) worked {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if s := WorkerMain(args, &stdout, &stderr); s != 0 || stderr.Len() > 0 {
		t.Fatalf("%v: %d, %s", args, s, stderr.String())
	}
	var w worked
	if err := json.Unmarshal(stdout.Bytes(), &w); err != nil || w.Seconds <= 0 {
		t.Fatalf("%v: %q, %v", args, stdout.String(), err)
	}
	return w
}

// What a worker makes is a package whose list of files is right, and all workers see all of it.
func TestWorker(t *testing.T) {
	for _, c := range []struct {
		op, number string
		files      int
	}{{"extract", "100", 100}, {"extract", "7", 7}, {"write", "100000", 1}} {
		dir := filepath.Join(t.TempDir(), packageName+"-1.0-0")
		if w := workOn(t, c.op, dir, c.number); w.Files != c.files {
			t.Errorf("%s made %d files, not %d", c.op, w.Files, c.files)
		}
		for _, op := range []string{"walk", "read", "cold"} {
			if w := workOn(t, op, dir); w.Files != c.files {
				t.Errorf("%s saw %d files, not %d", op, w.Files, c.files)
			}
		}
		b, err := os.ReadFile(filepath.Join(dir, conda.PathsPath))
		if err != nil {
			t.Fatal(err)
		}
		list, err := conda.ParsePaths(bytes.NewReader(b))
		if err != nil || len(list.Paths) != c.files {
			t.Errorf("%s: %v, %v", c.op, list, err)
		}
	}
	for _, args := range [][]string{nil, {"walk"}, {"walk", "/nowhere"}, {"extract", t.TempDir(), "many"}, {"fly", "/"}} {
		var stdout, stderr bytes.Buffer
		if s := WorkerMain(args, &stdout, &stderr); s != 1 || stderr.Len() == 0 || stdout.Len() > 0 {
			t.Errorf("%q: %d, %q, %q", args, s, stdout.String(), stderr.String())
		}
	}
}

func TestFilesTable(t *testing.T) {
	r := &FilesReport{Rounds: 1, Files: 10, Bytes: 2e6}
	for i, p := range []Place{Native, Mount, Run, Native, Mount, Run} {
		r.Figures = append(r.Figures, FilesFigure{Work: []string{"one", "other"}[i/3], Place: p, Seconds: float64(i + 1), Ratio: float64(i)})
	}
	var b strings.Builder
	if err := r.WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"10 small files, one of 2 MB", "2.000 (1.00×)", "6.000 (5.00×)", "other"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in\n%s", want, b.String())
		}
	}
}
