package conda

import (
	"strings"
	"testing"

	"condafs/conda/condatest"
	"condafs/fault"
)

func TestParseRecord(t *testing.T) {
	sha, md5 := strings.Repeat("aB", 32), strings.Repeat("0C", 16)
	tests := []struct {
		name, in string
		want     Record
	}{
		{"conda", `{"name":"a","version":"1","build":"0","build_number":3,"subdir":"noarch","fn":"a-1-0.conda","url":"u","channel":"c","sha256":"` + sha + `","md5":"` + md5 + `","size":12,"depends":["x"]}`,
			Record{"a", "1", "0", 3, "noarch", "a-1-0.conda", "u", "c", strings.ToLower(sha), strings.ToLower(md5), 12}},
		{"mamba", `{"name":"a","version":"1","build_string":"0","build":null,"sha256":"","md5":null,"size":null}`,
			Record{Name: "a", Version: "1", Build: "0"}},
		{"channel as an object", `{"name":"a","version":"1","build":"0","channel":{"name":"c"}}`,
			Record{Name: "a", Version: "1", Build: "0"}},
	}
	for _, tt := range tests {
		got, err := ParseRecord(strings.NewReader(tt.in))
		if err != nil || *got != tt.want {
			t.Errorf("%s: %+v, %v", tt.name, got, err)
		}
	}
	rec, err := ParseIndex(strings.NewReader(tests[0].in))
	if err != nil || rec.SHA256 != "" || rec.MD5 != "" || rec.Size != 0 || rec.BuildNumber != 3 {
		t.Errorf("index: %+v, %v", rec, err)
	}
}

func TestParseRecordRefuses(t *testing.T) {
	for _, in := range []string{
		``, `{`, `[]`, `null`, `{}`, `{"name":"a","version":"1"}`, `{"name":"","version":"1","build":"0"}`,
		`{"name":"a","version":1,"build":"0"}`, `{"name":"../a","version":"1","build":"0"}`,
		`{"name":"a","version":"1-2","build":"0/"}`, `{"name":"a","version":"1","build":"0","size":-1}`,
		`{"name":"a","version":"1","build":"0","sha256":"12"}`, `{"name":"a","version":"1","build":"0","md5":"xyz"}`,
		`{"name":"a","version":"1","build":"0"} trailing`, `{"name":"a\u0000","version":"1","build":"0"}`,
		strings.Repeat(" ", maxRecord+1),
	} {
		if rec, err := ParseRecord(strings.NewReader(in)); !fault.Is(err, fault.Corrupt) || !strings.Contains(err.Error(), CompletionMarker) {
			t.Errorf("%.60q: %+v, %v", in, rec, err)
		}
	}
}

func TestParsePaths(t *testing.T) {
	sha := condatest.Hex256([]byte("x"))
	p, err := ParsePaths(strings.NewReader(`{"paths_version":1,"paths":[
		{"_path":"bin/x","path_type":"hardlink","sha256":"` + sha + `","size_in_bytes":1,"file_mode":"text","prefix_placeholder":"/opt/ph","no_link":true},
		{"_path":"lib/y","path_type":"softlink","sha256":null},
		{"_path":"var/","path_type":"directory"},
		{"_path":"./old","sha256":"` + sha + `"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	e := p.Paths[0]
	if e.Path != "bin/x" || e.Type != HardLink || !e.HasSHA256 || e.Size != 1 {
		t.Errorf("%+v", e)
	}
	if e := p.Paths[1]; e.Type != SoftLink || e.HasSHA256 || e.Size != -1 {
		t.Errorf("%+v", e)
	}
	if p.Paths[2].Path != "var" || p.Paths[3].Path != "old" || p.Paths[3].Type != HardLink {
		t.Errorf("%+v", p.Paths[2:])
	}
}

func TestParsePathsRefuses(t *testing.T) {
	one := func(e string) string { return `{"paths_version":1,"paths":[` + e + `]}` }
	for in, want := range map[string]string{
		``:                                        "",
		`{"paths":[]}`:                            "paths_version is missing",
		`{"paths_version":2,"paths":[]}`:          "paths_version is 2",
		one(`{}`):                                 "empty path",
		one(`{"_path":"../x"}`):                   "leaves the package",
		one(`{"_path":"a/../../x"}`):              "leaves the package",
		one(`{"_path":"/x"}`):                     "absolute",
		one(`{"_path":"."}`):                      "package itself",
		one(`{"_path":"a\u0000"}`):                "NUL",
		one(`{"_path":"a"},{"_path":"./a"}`):      "listed twice",
		one(`{"_path":"a","path_type":"device"}`): "unknown path_type",
		one(`{"_path":"a","sha256":"12"}`):        "sha256",
		one(`{"_path":"a","sha256":"` + strings.Repeat("g", 64) + `"}`): "sha256",
		one(`{"_path":"a","size_in_bytes":-1}`):                         "size_in_bytes",
		one(`{"_path":"` + strings.Repeat("n", 256) + `"}`):             "name of 256",
		one(`{"_path":"` + strings.Repeat("n/", 2100) + `"}`):           "path of",
	} {
		if _, err := ParsePaths(strings.NewReader(in)); !fault.Is(err, fault.Corrupt) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), PathsPath) {
			t.Errorf("%.60q: %v, want %q", in, err, want)
		}
	}
}

func TestParseRattlerMeta(t *testing.T) {
	sum := strings.Repeat("\xab", 32)
	for in, want := range map[string]RattlerMeta{
		"":                                       {},
		"\x00\x00\x00\x00\x00\x00\x01\x02":       {Revision: 258},
		"\x00\x00\x00\x00\x00\x00\x00\x01" + sum: {1, strings.Repeat("ab", 32)},
	} {
		if got, err := ParseRattlerMeta("x.lock", []byte(in)); err != nil || got != want {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
	}
	if _, err := ParseRattlerMeta("x.lock", []byte("123")); !fault.Is(err, fault.Corrupt) {
		t.Errorf("3 bytes: %v", err)
	}
}

func FuzzRecord(f *testing.F) {
	f.Add(`{"name":"a","version":"1","build":"0","size":1,"channel":"x","sha256":""}`)
	f.Add(sample.Record("a.conda", []byte("x")))
	f.Fuzz(func(t *testing.T, s string) {
		rec, err := ParseRecord(strings.NewReader(s))
		if err != nil {
			if !fault.Is(err, fault.Corrupt) {
				t.Errorf("kind %v", fault.KindOf(err))
			}
			return
		}
		if n, v, b, ok := SplitDist(rec.Dist()); !ok || n+v+b == "" {
			t.Errorf("%q was taken", rec.Dist())
		}
	})
}

func FuzzPaths(f *testing.F) {
	for _, file := range sample.All() {
		if file.Path == PathsPath {
			f.Add(file.Body)
		}
	}
	f.Add(`{"paths_version":1,"paths":[{"_path":"a/./b//c"},{"_path":"a\\b"}]}`)
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePaths(strings.NewReader(s))
		if err != nil {
			if !fault.Is(err, fault.Corrupt) {
				t.Errorf("kind %v", fault.KindOf(err))
			}
			return
		}
		seen := map[string]bool{}
		for _, e := range p.Paths {
			if c, err := cleanMember(e.Path); err != nil || c != e.Path || seen[c] {
				t.Errorf("%q was taken: %v", e.Path, err)
			}
			seen[e.Path] = true
		}
	})
}
