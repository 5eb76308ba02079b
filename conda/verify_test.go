package conda

import (
	"errors"
	"io"
	"iter"
	"maps"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"bytes"

	"condafs/conda/condatest"
	"condafs/fault"
	"condafs/hashing"
)

// memSet is an extracted package in memory.
type memSet struct {
	files  map[string]*memFile
	hashed atomic.Int64
	fail   error // of Open and Sums
}

type memFile struct {
	FileInfo
	body string
}

// extract is what a client leaves behind.
func extract(p condatest.Package) *memSet {
	s := &memSet{files: map[string]*memFile{}}
	for _, f := range p.All() {
		switch {
		case f.Link != "":
			s.files[f.Path] = &memFile{FileInfo: FileInfo{Kind: SymlinkFile, Mode: 0o777, Link: f.Link}}
		case f.Exec:
			s.put(f.Path, f.Body, 0o755)
		default:
			s.put(f.Path, f.Body, 0o644)
		}
	}
	return s
}

func (s *memSet) put(p, body string, mode uint32) {
	s.files[p] = &memFile{FileInfo{Kind: RegularFile, Mode: mode, Size: int64(len(body))}, body}
}

func (s *memSet) mkdir(p string) {
	s.files[p] = &memFile{FileInfo: FileInfo{Kind: DirectoryFile, Mode: 0o755}}
}

func (s *memSet) Entries() iter.Seq2[string, FileInfo] {
	return func(yield func(string, FileInfo) bool) {
		for p, f := range s.files {
			info := f.FileInfo
			info.Sums = func(extra hashing.Extra) (hashing.Sums, error) {
				s.hashed.Add(1)
				if s.fail != nil {
					return hashing.Sums{}, s.fail
				}
				return hashing.Reader(strings.NewReader(f.body), extra)
			}
			if !yield(p, info) {
				return
			}
		}
	}
}

func (s *memSet) Open(p string) (io.ReadCloser, error) {
	f := s.files[p]
	if f == nil {
		return nil, fault.New("open", p, fault.NotFound, os.ErrNotExist)
	}
	return io.NopCloser(strings.NewReader(f.body)), nil
}

func evidence(t *testing.T, fn string, b []byte) *ArchiveEvidence {
	t.Helper()
	sums, err := hashing.Reader(bytes.NewReader(b), hashing.SHA256|hashing.MD5)
	if err != nil {
		t.Fatal(err)
	}
	return &ArchiveEvidence{R: bytes.NewReader(b), Size: int64(len(b)), Fn: fn, Sums: sums}
}

const sampleDist = "demo-1.0-h1_0"

// installed is the sample with the record of its .conda or .tar.bz2.
func installed(p condatest.Package, ext string) (*memSet, []byte) {
	archive := p.Conda()
	if ext == ".tar.bz2" {
		archive = p.TarBz2()
	}
	s := extract(p)
	s.put(CompletionMarker, p.Record(p.Dist()+ext, archive), 0o644)
	return s, archive
}

func TestVerifyPackage(t *testing.T) {
	record := func(s *memSet, from, to string) {
		f := s.files[CompletionMarker]
		s.put(CompletionMarker, strings.Replace(f.body, from, to, 1), 0o644)
	}
	sha := condatest.Hex256(sample.Conda())
	tests := []struct {
		name      string
		pkg       condatest.Package
		dir       string // sampleDist when empty
		noArchive bool
		change    func(*memSet)
		trust     Trust
		want      string // part of the error, or of Why
	}{
		{name: "as extracted", trust: TrustVerified},
		{name: "no archive", noArchive: true, trust: TrustConsistent, want: "not in the cache"},
		{name: "empty directory more", change: func(s *memSet) { s.mkdir("var"); s.mkdir("lib") }, trust: TrustVerified},
		{name: "umask 077", change: func(s *memSet) { s.files["bin/demo"].Mode = 0o700; s.files["lib/libdemo.so.1"].Mode = 0o600 }, trust: TrustVerified},
		{name: "no package at all", change: func(s *memSet) { clear(s.files) }, want: "info/index.json is missing"},
		{name: "other directory", dir: "demo-1.1-h1_0", want: "is of demo-1.0-h1_0"},
		{name: "directory in capitals", dir: "Demo-1.0-h1_0", trust: TrustVerified},
		{name: "rattler's directory with origin", dir: sampleDist + "-" + sha, trust: TrustVerified},
		{name: "record of another", change: func(s *memSet) { record(s, `"1.0"`, `"1.1"`) }, want: "repodata_record.json is of demo-1.1-h1_0"},
		{name: "record cut off", change: func(s *memSet) { s.put(CompletionMarker, `{"name":`, 0o644) }, want: "repodata_record.json"},
		{name: "record empty", change: func(s *memSet) { s.put(CompletionMarker, "", 0o644) }, want: "repodata_record.json"},
		{name: "no record", change: func(s *memSet) { delete(s.files, CompletionMarker) }, trust: TrustConsistent, want: "does not carry"},
		{name: "record without hash", change: func(s *memSet) { record(s, `"sha256"`, `"x"`); record(s, `"md5"`, `"y"`) }, trust: TrustConsistent, want: "does not carry"},
		{name: "record with MD5 and size", change: func(s *memSet) { record(s, `"sha256"`, `"x"`) }, trust: TrustVerified},
		{name: "record with MD5 alone", change: func(s *memSet) { record(s, `"sha256"`, `"x"`); record(s, `"size"`, `"y"`) }, trust: TrustConsistent, want: "does not carry"},
		{name: "record with another hash", change: func(s *memSet) { record(s, `"sha256":"`, `"sha256":"`+strings.Repeat("0", 64)+`","x":"`) }, trust: TrustConsistent, want: "another SHA-256"},
		{name: "record with another MD5 and the same SHA-256", change: func(s *memSet) { record(s, `"md5":"`, `"md5":"`+strings.Repeat("0", 32)+`","x":"`) }, trust: TrustConsistent, want: "another MD5"},
		{name: "record with a bad hash", change: func(s *memSet) { record(s, `"sha256":"`, `"sha256":"0`) }, want: "sha256"},
		{name: "record with another size", change: func(s *memSet) { record(s, `"size":`, `"size":1`) }, trust: TrustConsistent, want: "its record says 1"},
		{name: "file missing", change: func(s *memSet) { delete(s.files, "share/empty") }, want: `"share/empty" is missing`},
		{name: "file changed", change: func(s *memSet) { s.put("bin/demo", "#!/bin/sh\necho evil\n", 0o755) }, want: "bin/demo"},
		{name: "file emptied", change: func(s *memSet) { s.put("bin/demo", "", 0o755) }, want: "bin/demo"},
		{name: "file more", change: func(s *memSet) { s.put("bin/more", "", 0o755) }, want: `"bin/more" is not in`},
		{name: "file more, no archive", noArchive: true, change: func(s *memSet) { s.put("bin/more", "", 0o755) }, want: `"bin/more" is not in`},
		{name: "info file more", change: func(s *memSet) { s.put("info/more", "", 0o644) }, want: `"info/more" is not in`},
		{name: "info file more, no archive", noArchive: true, change: func(s *memSet) { s.put("info/more", "", 0o644) }, trust: TrustConsistent},
		{name: "info file changed", change: func(s *memSet) { s.put("info/files", "x", 0o644) }, want: `info/files`},
		{name: "index changed", change: func(s *memSet) {
			f := s.files[IndexPath]
			s.put(IndexPath, strings.Replace(f.body, "depends", "Depends", 1), 0o644)
		}, want: IndexPath},
		{name: "link elsewhere", change: func(s *memSet) { s.files["lib/libdemo.so"].Link = "libevil.so" }, want: `"lib/libdemo.so" is a symlink to "libdemo.so.1"`},
		{name: "link elsewhere, no archive", noArchive: true, change: func(s *memSet) { s.files["lib/libdemo.so"].Link = "libevil.so" }, trust: TrustConsistent},
		{name: "link out of the package", noArchive: true, change: func(s *memSet) { s.files["lib/libdemo.so"].Link = "../../x" }, want: "leads out"},
		{name: "absolute link", noArchive: true, change: func(s *memSet) { s.files["lib/libdemo.so"].Link = "/etc/passwd" }, want: "absolute"},
		{name: "file for link", change: func(s *memSet) { s.put("lib/libdemo.so", "x", 0o644) }, want: "lib/libdemo.so"},
		{name: "copy for link", noArchive: true, change: func(s *memSet) { s.put("lib/libdemo.so", s.files["lib/libdemo.so.1"].body, 0o644) }, trust: TrustConsistent},
		{name: "copy for link, archive has the link", change: func(s *memSet) { s.put("lib/libdemo.so", s.files["lib/libdemo.so.1"].body, 0o644) }, want: "lib/libdemo.so"},
		{name: "link for file", change: func(s *memSet) {
			s.files["bin/demo"] = &memFile{FileInfo: FileInfo{Kind: SymlinkFile, Link: "x"}}
		}, want: "bin/demo"},
		{name: "directory for file", change: func(s *memSet) { s.mkdir("bin/demo") }, want: "bin/demo"},
		{name: "no longer executable", change: func(s *memSet) { s.files["bin/demo"].Mode = 0o644 }, want: "mode 0644"},
		{name: "now executable", change: func(s *memSet) { s.files["share/empty"].Mode = 0o755 }, want: "mode 0755"},
		{name: "list of files is damaged", noArchive: true, change: func(s *memSet) { s.put(PathsPath, "{", 0o644) }, want: PathsPath},
		{name: "old package", pkg: oldSample(), trust: TrustVerified},
		{name: "old package, no archive", pkg: oldSample(), noArchive: true, want: "neither info/paths.json nor a matching archive"},
		{name: "old package, archive without hash", pkg: oldSample(), change: func(s *memSet) { delete(s.files, CompletionMarker) }, trust: TrustConsistent, want: "does not carry"},
		{name: "old package, another archive", pkg: oldSample(), change: func(s *memSet) { record(s, `"size":`, `"size":1`) }, want: "neither info/paths.json nor a matching archive"},
		{name: "old package, file changed", pkg: oldSample(), change: func(s *memSet) { s.put("share/ünï/code", "y", 0o644) }, want: "share/ünï/code"},
	}
	for _, ext := range []string{".conda", ".tar.bz2"} {
		for _, tt := range tests {
			t.Run(tt.name+ext, func(t *testing.T) {
				pkg := tt.pkg
				if pkg.Name == "" {
					pkg = sample
				}
				s, archive := installed(pkg, ext)
				if tt.change != nil {
					tt.change(s)
				}
				dir := tt.dir
				if dir == "" {
					dir = sampleDist
				}
				a := evidence(t, sampleDist+ext, archive)
				if tt.noArchive {
					a = nil
				}
				v, err := VerifyPackage(t.Context(), dir, s, a, Limits{})
				if tt.trust == TrustOpaque {
					if !fault.Is(err, fault.Corrupt) || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), dir) {
						t.Errorf("error is %v, want %q", err, tt.want)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if v.Trust != tt.trust || !strings.Contains(v.Why, tt.want) || (v.Why == "") != (v.Trust == TrustVerified) {
					t.Errorf("%v because %q, want %v because %q", v.Trust, v.Why, tt.trust, tt.want)
				}
				if v.Record == nil || v.Record.Dist() != sampleDist {
					t.Errorf("record is %+v", v.Record)
				}
			})
		}
	}
}

func TestVerifyHashesOnce(t *testing.T) {
	s, archive := installed(sample, ".conda")
	if _, err := VerifyPackage(t.Context(), sampleDist, s, evidence(t, sampleDist+".conda", archive), Limits{}); err != nil {
		t.Fatal(err)
	}
	files := int64(0)
	for _, f := range s.files {
		if f.Kind == RegularFile {
			files++
		}
	}
	if s.hashed.Load() != files {
		t.Errorf("%d files were hashed %d times", files, s.hashed.Load())
	}
}

// A packager's wrong list does not matter when the archive proves the tree.
func TestVerifyArchiveOverridesList(t *testing.T) {
	s, _ := installed(sample, ".conda")
	p := sample
	p.Old = true
	wrong := strings.Replace(s.files[PathsPath].body, `"size_in_bytes":20`, `"size_in_bytes":21`, 1)
	if wrong == s.files[PathsPath].body {
		t.Fatal("nothing was changed")
	}
	p.Files = append([]condatest.File{{Path: PathsPath, Body: wrong}}, sample.Files...)
	s, archive := installed(p, ".conda")
	v, err := VerifyPackage(t.Context(), sampleDist, s, evidence(t, sampleDist+".conda", archive), Limits{})
	if err != nil || v.Trust != TrustVerified {
		t.Errorf("with the archive: %v, %v", v.Trust, err)
	}
	if _, err := VerifyPackage(t.Context(), sampleDist, s, nil, Limits{}); !fault.Is(err, fault.Corrupt) {
		t.Errorf("without it: %v", err)
	}
	s.put("bin/demo", "#!/bin/sh\necho evil\n", 0o755)
	if _, err := VerifyPackage(t.Context(), sampleDist, s, evidence(t, sampleDist+".conda", archive), Limits{}); !fault.Is(err, fault.Corrupt) {
		t.Errorf("changed file: %v", err)
	}
}

func TestVerifyHardlinks(t *testing.T) {
	p := condatest.Package{Name: "demo", Version: "1.0", Build: "h1_0", Old: true}
	s := extract(p)
	archive := condatest.Bzip2(hardlinked(p))
	s.put(CompletionMarker, p.Record(sampleDist+".tar.bz2", archive), 0o644)
	s.put("a", "same", 0o644)
	s.put("b", "same", 0o644)
	verify := func() (Verdict, error) {
		return VerifyPackage(t.Context(), sampleDist, s, evidence(t, sampleDist+".tar.bz2", archive), Limits{})
	}
	if v, err := verify(); err != nil || v.Trust != TrustVerified {
		t.Errorf("%v, %v", v.Trust, err)
	}
	s.put("b", "else", 0o644)
	if _, err := verify(); !fault.Is(err, fault.Corrupt) || !strings.Contains(err.Error(), `"b" is the same as "a"`) {
		t.Errorf("changed link: %v", err)
	}
}

// What the disk reports is not the package's fault.
func TestVerifyErrorsKeepTheirKind(t *testing.T) {
	s, archive := installed(sample, ".conda")
	s.fail = syscall.EIO
	_, err := VerifyPackage(t.Context(), sampleDist, s, evidence(t, sampleDist+".conda", archive), Limits{})
	if !fault.Is(err, fault.IO) || !errors.Is(err, syscall.EIO) {
		t.Errorf("hash: %v", err)
	}
	s.fail = nil
	a := evidence(t, sampleDist+".conda", archive)
	a.R = failingReader{syscall.EIO}
	if _, err := VerifyPackage(t.Context(), sampleDist, s, a, Limits{}); !fault.Is(err, fault.IO) {
		t.Errorf("archive: %v", err)
	}
	s.files["bin/demo"].Size++
	if _, err := VerifyPackage(t.Context(), sampleDist, s, nil, Limits{}); !fault.Is(err, fault.Busy) {
		t.Errorf("file that grew: %v", err)
	}
}

func TestNormalMode(t *testing.T) {
	for _, tt := range []struct {
		kind       FileKind
		mode, want uint32
	}{
		{RegularFile, 0o600, 0o644}, {RegularFile, 0o700, 0o755}, {RegularFile, 0o4775, 0o755},
		{RegularFile, 0o444, 0o444}, {RegularFile, 0o500, 0o555}, {RegularFile, 0o210, 0o644}, {RegularFile, 0o010, 0o444},
		{DirectoryFile, 0o700, 0o755}, {DirectoryFile, 0o500, 0o755},
	} {
		if got := NormalMode(tt.kind, tt.mode); got != tt.want {
			t.Errorf("NormalMode(%v, %04o) = %04o, want %04o", tt.kind, tt.mode, got, tt.want)
		}
	}
}

// A verified package gets the modes that its archive gives it under the usual umask, whatever the client's was.
func TestModesOfTheArchive(t *testing.T) {
	modes := map[string]int64{"a": 0o600, "b": 0o444, "c": 0o664, "d": 0o666, "e": 0o777, "f": 0o550, "g": 0o640, "h": 0o200, "i": 0o755}
	want := map[string]uint32{"a": 0o600, "b": 0o444, "c": 0o644, "d": 0o644, "e": 0o755, "f": 0o550, "g": 0o640, "h": 0o600, "i": 0o755}
	p := condatest.Package{Name: "demo", Version: "1.0", Build: "h1_0"}
	for _, name := range slices.Sorted(maps.Keys(modes)) {
		p.Files = append(p.Files, condatest.File{Path: name, Body: name, Mode: modes[name]})
	}
	for _, umask := range []uint32{0o022, 0o077} {
		s, archive := installed(p, ".conda")
		for name, mode := range modes {
			s.files[name].Mode = uint32(mode) &^ umask
		}
		v, err := VerifyPackage(t.Context(), sampleDist, s, evidence(t, sampleDist+".conda", archive), Limits{})
		if err != nil || v.Trust != TrustVerified {
			t.Fatal(v, err)
		}
		for name := range modes {
			if got := v.Mode(name, s.files[name].Mode); got != want[name] {
				t.Errorf("umask %03o: %s is %04o in the archive and gets %04o, want %04o", umask, name, modes[name], got, want[name])
			}
		}
		if got := v.Mode(CompletionMarker, 0o600); got != 0o644 {
			t.Errorf("the record gets %04o", got)
		}
	}
}
