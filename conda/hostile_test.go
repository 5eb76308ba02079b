package conda

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"condafs/conda/condatest"
	"condafs/fault"
	"condafs/internal/longrun"
)

// repeated yields head, then n times what item makes, then tail, without holding them.
type repeated struct {
	head, tail string
	n, i       int
	item       func(i int) string
	buf        []byte
}

func (r *repeated) Read(b []byte) (int, error) {
	for len(r.buf) == 0 {
		switch {
		case r.head != "":
			r.buf, r.head = []byte(r.head), ""
		case r.i < r.n:
			r.buf = []byte(r.item(r.i))
			r.i++
		case r.tail != "":
			r.buf, r.tail = []byte(r.tail), ""
		default:
			return 0, io.EOF
		}
	}
	n := copy(b, r.buf)
	r.buf = r.buf[n:]
	return n, nil
}

// TestHugePathLists: what would take gigabytes is given up before it does, and so is
// read only in part.
func TestHugePathLists(t *testing.T) {
	const head = `{"paths_version":1,"paths":[`
	for name, tt := range map[string]struct {
		r    *repeated
		want string
		most int // items that may be looked at
	}{
		"empty objects": {&repeated{head: head, n: 1 << 40, item: func(int) string { return "{}," }}, "empty path", 1 << 16},
		"many":          {&repeated{head: head, n: 1 << 40, item: func(i int) string { return fmt.Sprintf(`{"_path":"%x"},`, i) }}, "more than 500000 entries", maxPathEntries + 1<<16},
		"a long entry":  {&repeated{head: head + `{"_path":"`, n: 1 << 40, item: func(int) string { return "aaaaaaaa" }}, "longer than", 1 << 20},
		"a long key":    {&repeated{head: `{"`, n: 1 << 40, item: func(int) string { return "aaaaaaaa" }}, "longer than", 1 << 20},
		"deep":          {&repeated{head: `{"x":`, n: 1 << 40, item: func(int) string { return "[" }}, "nested", 1 << 20},
		"endless":       {&repeated{head: `{"x":[`, n: 1 << 40, item: func(int) string { return strings.Repeat("0,", 1<<15) }}, "longer than", maxPathsJSON>>16 + 2},
		"endless space": {&repeated{n: 1 << 40, item: func(int) string { return strings.Repeat(" ", 1<<16) }}, "longer than", maxPathsJSON>>16 + 2},
	} {
		if !longrun.Wanted() && strings.HasPrefix(name, "endless") {
			continue // a minute each under the race detector
		}
		_, err := ParsePaths(tt.r)
		if !fault.Is(err, fault.Corrupt) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
		if tt.r.i > tt.most {
			t.Errorf("%s: %d items were read, %d would do", name, tt.r.i, tt.most)
		}
	}
	for in, want := range map[string]int{
		`{"paths_version":1}`:                                            0,
		`{"paths_version":1,"paths":null}`:                               0,
		`{"paths":[],"x":[{"a":[null]}],"paths_version":1}`:              0,
		` {"paths":[ {"_path":"a"} , {"_path":"b"}],"paths_version":1} `: 2,
	} {
		if p, err := ParsePaths(strings.NewReader(in)); err != nil || len(p.Paths) != want {
			t.Errorf("%s: %+v, %v", in, p, err)
		}
	}
}

// tarOfMany makes a tar of n files.
func tarOfMany(t *testing.T, n int, name func(i int) string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := range n {
		if err := w.WriteHeader(&tar.Header{Name: name(i), Typeflag: tar.TypeReg, Mode: 0o644, Format: tar.FormatPAX}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return condatest.Bzip2(b.Bytes())
}

// TestArchivesThatFillTheMemory: names take memory while an archive is looked at. A
// member can name thousands of directories that no other member has.
func TestArchivesThatFillTheMemory(t *testing.T) {
	lim := Limits{MaxFiles: 2000}
	for name, tt := range map[string]struct {
		archive []byte
		want    string
	}{
		"implied directories": {tarOfMany(t, 50, func(i int) string { return fmt.Sprintf("%d/", i) + strings.Repeat("d/", 100) + "f" }), "files and directories"},
		"long names":          {tarOfMany(t, 400, func(i int) string { return fmt.Sprintf("%04d", i) + strings.Repeat("/"+strings.Repeat("n", 250), 12) }), "bytes of names"},
		"deep":                {tarOfMany(t, 1, func(int) string { return strings.Repeat("d/", maxDepth+1) + "f" }), "directories deep"},
	} {
		_, err := CheckArchive(t.Context(), bytes.NewReader(tt.archive), int64(len(tt.archive)), "demo-1.0-0.tar.bz2", lim)
		if !fault.Is(err, fault.Corrupt) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}
