package conda

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"syscall"
	"testing"

	"condafs/conda/condatest"
	"condafs/fault"
)

var sample = condatest.Package{
	Name: "demo", Version: "1.0", Build: "h1_0",
	Files: []condatest.File{
		{Path: "bin/demo", Body: "#!/bin/sh\necho demo\n", Exec: true},
		{Path: "lib/libdemo.so.1", Body: strings.Repeat("library ", 1000)},
		{Path: "lib/libdemo.so", Link: "libdemo.so.1"},
		{Path: "lib/libother.so", Link: "../lib64/libother.so.2"}, // in another package
		{Path: "share/empty", Body: ""},
		{Path: "share/ünï/code", Body: "x"},
		{Path: "share/" + strings.Repeat("long/", 60) + "name", Body: "deep"},
	},
}

func oldSample() condatest.Package {
	p := sample
	p.Old = true
	return p
}

// members lists an archive as "path type".
func members(t *testing.T, b []byte, fn string) map[string]Member {
	t.Helper()
	got := map[string]Member{}
	err := WalkArchive(t.Context(), bytes.NewReader(b), int64(len(b)), fn, Limits{}, func(m Member, r io.Reader) error {
		if m.Type == MemberFile {
			n, err := io.Copy(io.Discard, r)
			if err != nil || n != m.Size {
				t.Errorf("%s: read %d of %d bytes: %v", m.Path, n, m.Size, err)
			}
		}
		got[m.Path] = m
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestWalkArchive(t *testing.T) {
	for fn, b := range map[string][]byte{"demo-1.0-h1_0.conda": sample.Conda(), "demo-1.0-h1_0.tar.bz2": sample.TarBz2()} {
		got := members(t, b, fn)
		if len(got) != len(sample.All()) {
			t.Errorf("%s: %d members, want %d", fn, len(got), len(sample.All()))
		}
		if m := got["lib/libdemo.so"]; m.Type != MemberSymlink || m.Link != "libdemo.so.1" {
			t.Errorf("%s: symlink is %+v", fn, m)
		}
		if m := got["bin/demo"]; m.Mode != 0o775 || !m.Mtime.Equal(condatest.Mtime) {
			t.Errorf("%s: bin/demo is %+v", fn, m)
		}
		rec, err := CheckArchive(t.Context(), bytes.NewReader(b), int64(len(b)), fn, Limits{})
		if err != nil || rec.Dist() != "demo-1.0-h1_0" || rec.Fn != fn || rec.Size != int64(len(b)) {
			t.Errorf("%s: %+v, %v", fn, rec, err)
		}
	}
}

func TestWalkInfo(t *testing.T) {
	b := sample.Conda()
	// Damage in the pkg part stays unseen when only the info part is read.
	i := bytes.Index(b, []byte("pkg-demo-1.0-h1_0.tar.zst"))
	damaged := bytes.Clone(b)
	damaged[i+60] ^= 0xff
	for fn, b := range map[string][]byte{"demo-1.0-h1_0.conda": damaged, "demo-1.0-h1_0.tar.bz2": sample.TarBz2()} {
		var got []string
		err := WalkInfo(t.Context(), bytes.NewReader(b), int64(len(b)), fn, Limits{}, func(m Member, _ io.Reader) error {
			got = append(got, m.Path)
			return nil
		})
		if err != nil || strings.Join(got, " ") != "info/index.json info/files info/paths.json" {
			t.Errorf("%s: %v, %v", fn, got, err)
		}
	}
	if _, err := CheckArchive(t.Context(), bytes.NewReader(damaged), int64(len(b)), "demo-1.0-h1_0.conda", Limits{}); !fault.Is(err, fault.Corrupt) {
		t.Errorf("damaged archive: %v", err)
	}
}

// What a killed download leaves behind is refused, wherever it ends.
func TestCheckArchiveTruncated(t *testing.T) {
	for fn, b := range map[string][]byte{"demo-1.0-h1_0.conda": sample.Conda(), "demo-1.0-h1_0.tar.bz2": sample.TarBz2()} {
		for n := 0; n < len(b); n += 7 {
			if _, err := CheckArchive(t.Context(), bytes.NewReader(b[:n]), int64(n), fn, Limits{}); !fault.Is(err, fault.Corrupt) {
				t.Fatalf("%s cut to %d of %d bytes: %v", fn, n, len(b), err)
			}
		}
	}
}

// A flipped bit is found, or is in a field that nobody reads.
func TestCheckArchiveBitFlips(t *testing.T) {
	p := condatest.Package{Name: "demo", Version: "1.0", Build: "0", Files: []condatest.File{{Path: "x", Body: "some content"}}}
	for fn, b := range map[string][]byte{"demo-1.0-0.conda": p.Conda(), "demo-1.0-0.tar.bz2": p.TarBz2()} {
		for i := range b {
			c := bytes.Clone(b)
			c[i] ^= 1 << (i % 8)
			_, err := CheckArchive(t.Context(), bytes.NewReader(c), int64(len(c)), fn, Limits{})
			if err != nil && !fault.Is(err, fault.Corrupt) {
				t.Fatalf("%s, bit in byte %d: %v", fn, i, err)
			}
		}
	}
}

// tarOf makes a package of one extra raw member.
func tarOf(hs ...tar.Header) []byte {
	p := condatest.Package{Name: "demo", Version: "1.0", Build: "0"}
	all := []tar.Header{}
	bodies := map[string]string{}
	for _, f := range p.All() {
		all = append(all, tar.Header{Name: f.Path, Typeflag: tar.TypeReg, Mode: 0o644})
		bodies[f.Path] = f.Body
	}
	return condatest.Tar(append(all, hs...), bodies)
}

func TestMaliciousMembers(t *testing.T) {
	file := func(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644} }
	link := func(name, to string) tar.Header {
		return tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to}
	}
	hard := func(name, to string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: to} }
	dir := func(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755} }
	long := strings.Repeat("n", 256)
	deep := strings.Repeat("d/", 2100) + "f"
	tests := []struct {
		name string
		hs   []tar.Header
		want string // part of the error; empty: fine
	}{
		{"plain", []tar.Header{file("a"), link("b", "a"), hard("c", "a"), dir("d/"), file("./e"), dir("./")}, ""},
		{"parent", []tar.Header{file("../x")}, "leaves the package"},
		{"parent inside", []tar.Header{file("a/../../x")}, "leaves the package"},
		{"absolute", []tar.Header{file("/etc/passwd")}, "absolute"},
		{"twice", []tar.Header{file("a"), file("a")}, "comes twice"},
		{"twice, spelt otherwise", []tar.Header{file("a/b"), file("./a//b")}, "comes twice"},
		{"directory twice", []tar.Header{dir("a/"), dir("a/"), file("a/b")}, ""},
		{"file becomes directory", []tar.Header{file("a"), file("a/b")}, "no directory"},
		{"directory becomes file", []tar.Header{file("a/b"), file("a")}, "comes twice"},
		{"long name", []tar.Header{file(long)}, "name of 256 bytes"},
		{"long path", []tar.Header{file(deep)}, "path of"},
		{"not UTF-8", []tar.Header{file("a\xff")}, "UTF-8"},
		{"symlink out", []tar.Header{link("a", "../x")}, "leads out"},
		{"symlink to root of the package", []tar.Header{link("d/a", "..")}, ""},
		{"symlink out, deeper", []tar.Header{link("d/a", "../../x")}, "leads out"},
		{"symlink absolute", []tar.Header{link("a", "/etc")}, "absolute"},
		{"symlink out by another", []tar.Header{link("d/e", "."), link("f", "d/e/../../x")}, "goes up from another symlink"},
		{"symlink to nothing", []tar.Header{link("a", "")}, "no target"},
		{"symlink too long", []tar.Header{link("a", strings.Repeat("n/", 2048))}, "target of 4096 bytes"},
		{"symlink not UTF-8", []tar.Header{link("a", "b\xff")}, "UTF-8"},
		{"symlink loops", []tar.Header{link("a", "b"), link("b", "a")}, ""},
		{"through a symlink", []tar.Header{link("a", "lib"), file("a/passwd")}, "no directory"},
		{"symlink over a directory", []tar.Header{file("a/b"), link("a", "lib")}, "comes twice"},
		{"hard link out", []tar.Header{hard("a", "../x")}, "leaves the package"},
		{"hard link absolute", []tar.Header{hard("a", "/etc/shadow")}, "absolute"},
		{"hard link to nothing", []tar.Header{hard("a", "b")}, "no earlier file"},
		{"hard link to symlink", []tar.Header{link("b", "c"), hard("a", "b")}, "no earlier file"},
		{"character device", []tar.Header{{Name: "a", Typeflag: tar.TypeChar}}, "special file"},
		{"block device", []tar.Header{{Name: "a", Typeflag: tar.TypeBlock}}, "special file"},
		{"FIFO", []tar.Header{{Name: "a", Typeflag: tar.TypeFifo}}, "special file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := condatest.Bzip2(tarOf(tt.hs...))
			_, err := CheckArchive(t.Context(), bytes.NewReader(b), int64(len(b)), "demo-1.0-0.tar.bz2", Limits{})
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (!fault.Is(err, fault.Corrupt) || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("error is %v, want %q", err, tt.want)
			}
		})
	}
}

func TestBrokenConda(t *testing.T) {
	const fn = "demo-1.0-0.conda"
	meta := condatest.Stored{Name: "metadata.json", Body: []byte(`{"conda_pkg_format_version": 2}`)}
	info := condatest.Stored{Name: "info-demo-1.0-0.tar.zst", Body: condatest.Zstd(tarOf())}
	pkg := condatest.Stored{Name: "pkg-demo-1.0-0.tar.zst", Body: condatest.Zstd(condatest.Tar(nil, nil))}
	renamed := func(m condatest.Stored, name string) condatest.Stored { m.Name = name; return m }
	many := []condatest.Stored{meta, info, pkg}
	for i := range 20 {
		many = append(many, renamed(meta, "x"+string(rune('a'+i))))
	}
	tests := []struct {
		name string
		b    []byte
		want string
	}{
		{"good", condatest.Zip(meta, info, pkg), ""},
		{"no metadata", condatest.Zip(info, pkg), ""},
		{"empty metadata", condatest.Zip(condatest.Stored{Name: "metadata.json"}, info, pkg), ""},
		{"format 3", condatest.Zip(condatest.Stored{Name: "metadata.json", Body: []byte(`{"conda_pkg_format_version": 3}`)}, info, pkg), "format version 3"},
		{"metadata no JSON", condatest.Zip(condatest.Stored{Name: "metadata.json", Body: []byte(`{`)}, info, pkg), "metadata.json"},
		{"no info", condatest.Zip(meta, pkg), "info-*.tar.zst is missing"},
		{"no pkg", condatest.Zip(meta, info), "pkg-*.tar.zst is missing"},
		{"two infos", condatest.Zip(meta, info, renamed(info, "info-x.tar.zst"), pkg), "one info-*.tar.zst is expected"},
		{"too many", condatest.Zip(many...), "23 members"},
		{"in a directory", condatest.Zip(meta, renamed(info, "a/info-x.tar.zst"), pkg), "lies in a directory"},
		{"outside", condatest.Zip(meta, renamed(info, "../info-x.tar.zst"), pkg), "leaves the package"},
		{"zstd garbage", condatest.Zip(meta, condatest.Stored{Name: info.Name, Body: []byte("nonsense")}, pkg), "info-"},
		{"zstd cut off", condatest.Zip(meta, condatest.Stored{Name: info.Name, Body: info.Body[:len(info.Body)-5]}, pkg), "info-"},
		{"same file in both parts", condatest.Zip(meta, info, condatest.Stored{Name: pkg.Name, Body: info.Body}), "comes twice"},
		{"no zip", []byte("not a zip file at all, but long enough to be one"), "no zip directory"},
		{"empty", nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := CheckArchive(t.Context(), bytes.NewReader(tt.b), int64(len(tt.b)), fn, Limits{})
			good := tt.want == "" && tt.b != nil
			switch {
			case good && err != nil:
				t.Error(err)
			case !good && (!fault.Is(err, fault.Corrupt) || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("error is %v, want %q", err, tt.want)
			}
		})
	}
}

// The zip directory of a .conda may be in the form for large files.
func TestZip64(t *testing.T) {
	b := sample.Conda()
	end := bytes.LastIndex(b, []byte("PK\x05\x06"))
	count, length, offset := le.Uint16(b[end+10:]), le.Uint32(b[end+12:]), le.Uint32(b[end+16:])
	rec := make([]byte, zip64EndLen)
	copy(rec, "PK\x06\x06")
	le.PutUint64(rec[4:], zip64EndLen-12)
	le.PutUint64(rec[24:], uint64(count))
	le.PutUint64(rec[32:], uint64(count))
	le.PutUint64(rec[40:], uint64(length))
	le.PutUint64(rec[48:], uint64(offset))
	loc := make([]byte, zip64LocLen)
	copy(loc, "PK\x06\x07")
	le.PutUint64(loc[8:], uint64(end))
	tail := bytes.Clone(b[end:])
	for i := 8; i < 20; i++ {
		tail[i] = 0xff
	}
	big := append(append(append(bytes.Clone(b[:end]), rec...), loc...), tail...)
	if got := members(t, big, "demo-1.0-h1_0.conda"); len(got) != len(sample.All()) {
		t.Errorf("%d members", len(got))
	}
	for _, i := range []int{end, end + zip64EndLen} { // damage the record and its locator
		c := bytes.Clone(big)
		c[i] ^= 1
		if _, err := CheckArchive(t.Context(), bytes.NewReader(c), int64(len(c)), "demo-1.0-h1_0.conda", Limits{}); !fault.Is(err, fault.Corrupt) {
			t.Errorf("damaged at %d: %v", i, err)
		}
	}
}

func TestZip64ExtraField(t *testing.T) {
	extra := binary.LittleEndian.AppendUint16(nil, 0x5455) // something else first
	extra = binary.LittleEndian.AppendUint16(extra, 1)
	extra = append(extra, 9)
	extra = binary.LittleEndian.AppendUint16(extra, 1)
	extra = binary.LittleEndian.AppendUint16(extra, 16)
	extra = binary.LittleEndian.AppendUint64(extra, 5<<32)
	extra = binary.LittleEndian.AppendUint64(extra, 6<<32)
	size, packed, header := uint64(0xffffffff), uint64(7), uint64(0xffffffff)
	if err := zip64Extra(extra, &size, &packed, &header); err != nil || size != 5<<32 || packed != 7 || header != 6<<32 {
		t.Errorf("%d %d %d %v", size, packed, header, err)
	}
	size, packed = 0xffffffff, 0xffffffff
	if err := zip64Extra(extra[5:13], &size, &packed, &header); err == nil {
		t.Error("cut-off field was taken")
	}
}

func TestLimits(t *testing.T) {
	zeros := condatest.Package{Name: "demo", Version: "1.0", Build: "0", Files: []condatest.File{{Path: "zeros", Body: strings.Repeat("\x00", 4<<20)}}}
	for fn, b := range map[string][]byte{"demo-1.0-0.conda": zeros.Conda(), "demo-1.0-0.tar.bz2": zeros.TarBz2()} {
		check := func(lim Limits) error {
			_, err := CheckArchive(t.Context(), bytes.NewReader(b), int64(len(b)), fn, lim)
			return err
		}
		if err := check(Limits{}); err != nil {
			t.Errorf("%s: %v", fn, err)
		}
		if err := check(Limits{MaxBytes: 1 << 20}); !fault.Is(err, fault.Corrupt) || !strings.Contains(err.Error(), "too many bytes") {
			t.Errorf("%s, bytes: %v", fn, err)
		}
		if err := check(Limits{MaxFiles: 3}); !fault.Is(err, fault.Corrupt) || !strings.Contains(err.Error(), "more than 3 files") {
			t.Errorf("%s, files: %v", fn, err)
		}
	}
	if got := (Limits{}).withDefaults().bytesFor(1000); got != ratioFree+1000*1000 {
		t.Errorf("an archive of 1000 bytes may hold %d", got)
	}
	if got := (Limits{MaxRatio: 1 << 62}).withDefaults().bytesFor(1 << 40); got != 64<<30 {
		t.Errorf("a large archive may hold %d", got)
	}
}

// A sparse member is longer than its stream; its length counts.
func TestSparseBomb(t *testing.T) {
	h := tar.Header{
		Name: "sparse", Typeflag: tar.TypeReg, Mode: 0o644, Format: tar.FormatPAX,
		PAXRecords: map[string]string{"comment": "none"},
	}
	raw := tarOf(h)
	// archive/tar writes no sparse files, so their records go in by hand.
	const old, sparse = "16 comment=none\n", "GNU.sparse.map"
	if !bytes.Contains(raw, []byte(old)) {
		t.Fatal("no PAX record to replace")
	}
	rec := paxRecord("GNU.sparse.major", "0") + paxRecord("GNU.sparse.minor", "1") + paxRecord("GNU.sparse.name", "sparse") +
		paxRecord("GNU.sparse.size", "1000000000000") + paxRecord("GNU.sparse.numblocks", "1") + paxRecord(sparse, "1000000000000,0")
	i := bytes.Index(raw, []byte(old))
	head := i - 512
	copy(raw[head+124:head+136], octal11(len(rec)))
	copy(raw[i:], rec)
	fixChecksum(raw[head : head+512])
	b := condatest.Bzip2(raw)
	_, err := CheckArchive(t.Context(), bytes.NewReader(b), int64(len(b)), "demo-1.0-0.tar.bz2", Limits{})
	if !fault.Is(err, fault.Corrupt) || !strings.Contains(err.Error(), "too many bytes") {
		t.Errorf("error is %v", err)
	}
}

func TestArchiveErrorsKeepTheirKind(t *testing.T) {
	b := sample.Conda()
	size := int64(len(b))
	_, err := CheckArchive(t.Context(), failingReader{syscall.EIO}, size, "demo-1.0-h1_0.conda", Limits{})
	if !fault.Is(err, fault.IO) {
		t.Errorf("EIO became %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, fn := range []string{"demo-1.0-h1_0.conda", "demo-1.0-h1_0.tar.bz2"} {
		if _, err := CheckArchive(ctx, bytes.NewReader(b), size, fn, Limits{}); !fault.Is(err, fault.Canceled) {
			t.Errorf("%s, cancelled: %v", fn, err)
		}
	}
	if _, err := CheckArchive(t.Context(), bytes.NewReader(b), size, "demo.zip", Limits{}); !fault.Is(err, fault.Usage) {
		t.Errorf("unknown format: %v", err)
	}
	own := errors.New("mine")
	if err := WalkArchive(t.Context(), bytes.NewReader(b), size, "demo-1.0-h1_0.conda", Limits{}, func(Member, io.Reader) error { return own }); err != own {
		t.Errorf("visitor's error became %v", err)
	}
}

func TestCheckArchiveOfAnotherPackage(t *testing.T) {
	b := sample.Conda()
	_, err := CheckArchive(t.Context(), bytes.NewReader(b), int64(len(b)), "demo-1.1-h1_0.conda", Limits{})
	if !fault.Is(err, fault.Corrupt) || !strings.Contains(err.Error(), "demo-1.0-h1_0") {
		t.Error(err)
	}
}

type failingReader struct{ err error }

func (f failingReader) ReadAt([]byte, int64) (int, error) { return 0, f.err }

func FuzzConda(f *testing.F) {
	f.Add(sample.Conda())
	f.Add(condatest.Package{Name: "a", Version: "1", Build: "0"}.Conda())
	f.Add([]byte("PK\x05\x06"))
	f.Fuzz(func(t *testing.T, b []byte) { checkAny(t, b, "demo-1.0-h1_0.conda") })
}

// FuzzTarBz2 feeds the decoder itself: the seeds are small, so that it comes to what is in them.
func FuzzTarBz2(f *testing.F) {
	f.Add(condatest.Package{Name: "demo", Version: "1.0", Build: "h1_0"}.TarBz2())
	f.Add(condatest.Package{Name: "demo", Version: "1.0", Build: "h1_0", Files: []condatest.File{{Path: "f", Body: "f"}}}.TarBz2())
	f.Add([]byte("BZh91AY&SY"))
	f.Add([]byte("BZh9\x17\x72\x45\x38\x50\x90\x00\x00\x00\x00")) // of nothing
	f.Fuzz(func(t *testing.T, b []byte) { checkAny(t, b, "demo-1.0-h1_0.tar.bz2") })
}

// FuzzTar feeds the tar walk behind a compression that costs nothing.
func FuzzTar(f *testing.F) {
	f.Add(tarOf(tar.Header{Name: "a", Typeflag: tar.TypeSymlink, Linkname: "b/../c"}, tar.Header{Name: "d/", Typeflag: tar.TypeDir}))
	f.Add(tarOf(tar.Header{Name: strings.Repeat("x/", 100) + "f", Typeflag: tar.TypeReg}))
	f.Fuzz(func(t *testing.T, b []byte) {
		w := &walker{ctx: t.Context(), fn: "x", layout: newLayout(Limits{MaxFiles: 1000}), files: 1000, bytes: 1 << 20, content: 1 << 20}
		w.visit = func(m Member, r io.Reader) error {
			if c, err := cleanMember(m.Path); err != nil || c != m.Path {
				t.Errorf("visited %q", m.Path)
			}
			if r != nil {
				if n, err := io.Copy(io.Discard, r); err == nil && n != m.Size {
					t.Errorf("%q: %d of %d bytes", m.Path, n, m.Size)
				}
			}
			return nil
		}
		if err := w.walkTar(bytes.NewReader(b)); err == nil {
			_ = w.layout.checkLinks()
		}
	})
}

func checkAny(t *testing.T, b []byte, fn string) {
	rec, err := CheckArchive(t.Context(), bytes.NewReader(b), int64(len(b)), fn, Limits{MaxBytes: 16 << 20, MaxFiles: 1000})
	if err != nil && !fault.Is(err, fault.Corrupt) {
		t.Errorf("kind %v: %v", fault.KindOf(err), err)
	}
	if stem, _ := CutArchiveExt(fn); err == nil && rec.Dist() != stem {
		t.Errorf("%s was taken for %s", rec.Dist(), fn)
	}
}
