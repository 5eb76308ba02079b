package conda

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"

	"condafs/conda/condatest"
	"condafs/fault"
)

func repodata(n int) string {
	sha := condatest.Hex256(nil)
	var b strings.Builder
	b.WriteString(`{"info": {"subdir": "linux-64", "x": [1, {"y": null}]}, "packages": {`)
	for i := range n {
		fmt.Fprintf(&b, `"old-%d-0.tar.bz2": {"name": "old", "version": "%d", "build": "0", "depends": ["a >=1", "\"\u00e9\\"], "size": %d},`, i, i, i)
	}
	b.WriteString(`"last-1-0.tar.bz2": {"name": "last", "version": "1", "build": "0", "timestamp": 1.5e3}}, "removed": [], "packages.conda": {`)
	fmt.Fprintf(&b, `"new-1-0.conda": {"name": "new", "version": "1", "build": "0", "sha256": "%s", "size": 7, "subdir": "noarch"},`, sha)
	b.WriteString(`"bad-1-0.conda": {"name": "bad", "sha256": true}}, "repodata_version": 1}`)
	return b.String()
}

func TestLookupRepodata(t *testing.T) {
	doc := repodata(3000)
	if !json.Valid([]byte(doc)) {
		t.Fatal("the test's own JSON is bad")
	}
	lookup := func(fn string) (*Record, bool, error) { return LookupRepodata(strings.NewReader(doc), fn) }
	if rec, ok, err := lookup("old-2999-0.tar.bz2"); err != nil || !ok || rec.Version != "2999" || rec.Size != 2999 || rec.Subdir != "linux-64" || rec.Fn != "old-2999-0.tar.bz2" {
		t.Errorf("%+v %v %v", rec, ok, err)
	}
	if rec, ok, err := lookup("new-1-0.conda"); err != nil || !ok || rec.SHA256 != condatest.Hex256(nil) || rec.Subdir != "noarch" {
		t.Errorf("%+v %v %v", rec, ok, err)
	}
	if rec, ok, err := lookup("none-1-0.conda"); err != nil || ok || rec != nil {
		t.Errorf("%+v %v %v", rec, ok, err)
	}
	escaped := strings.Replace(doc, `"new-1-0.conda"`, `"new\u002d1-0.conda"`, 1)
	if _, ok, err := LookupRepodata(strings.NewReader(escaped), "new-1-0.conda"); !ok || err != nil {
		t.Errorf("escaped key: %v, %v", ok, err)
	}
	if _, _, err := lookup("bad-1-0.conda"); !fault.Is(err, fault.Corrupt) {
		t.Errorf("bad record: %v", err)
	}
	if _, _, err := LookupRepodata(strings.NewReader(doc[:len(doc)-200]), "none"); !fault.Is(err, fault.Corrupt) {
		t.Errorf("cut off: %v", err)
	}
	if _, _, err := LookupRepodata(iotest.ErrReader(syscall.EIO), "none"); !fault.Is(err, fault.IO) {
		t.Errorf("EIO: %v", err)
	}
	for _, r := range []io.Reader{iotest.OneByteReader(strings.NewReader(doc)), iotest.DataErrReader(strings.NewReader(doc))} {
		if _, ok, err := LookupRepodata(r, "new-1-0.conda"); !ok || err != nil {
			t.Errorf("short reads: %v, %v", ok, err)
		}
	}
}

func TestCheckRepodata(t *testing.T) {
	msgpack := []byte{0x82, 0xa1, 'a', 0x93, 1, 0xcd, 1, 2, 0xc0, 0xa1, 'b', 0xcb, 0, 0, 0, 0, 0, 0, 0, 0}
	shards := func(header, body []byte) []byte {
		b := binary.LittleEndian.AppendUint32([]byte("SHARD-CACHE-V1"), uint32(len(header)))
		return append(append(b, header...), body...)
	}
	tests := []struct {
		name string
		b    []byte
		ok   bool
	}{
		{"ab.json", []byte(repodata(10)), true},
		{"ab.json", []byte(`{}`), true},
		{"ab.json", []byte(repodata(10))[:500], false},
		{"ab.json", []byte(`[]`), false},
		{"ab.json", nil, false},
		{"ab.json", []byte(`{} {}`), false},
		{"ab.json", []byte(`{"a":` + strings.Repeat("[", 600) + strings.Repeat("]", 600) + `}`), false},
		{"ab.info.json", []byte(`{"mtime_ns": 1, "size": 2}`), true},
		{"ab.info.json", nil, false}, // conda makes it before it writes to it
		{"ab.state.json", []byte(`{"url": "x"`), false},
		{"ab.msgpack", msgpack, true},
		{"ab.msgpack", msgpack[:len(msgpack)-1], false},
		{"ab.msgpack", append(bytes.Clone(msgpack), 0), false},
		{"ab.msgpack", []byte{0xc1}, false},
		{"ab.msgpack", bytes.Repeat([]byte{0x91}, 1000), false},
		{"ab.msgpack", []byte{0xdd, 0xff, 0xff, 0xff, 0xff}, false},
		{"ab.msgpack.zst", condatest.Zstd(msgpack), true},
		{"ab.msgpack.zst", condatest.Zstd(msgpack)[:12], false},
		{"ab.msgpack.zst", msgpack, false},
		{"ab.shards-cache-v1", shards(msgpack, msgpack), true},
		{"ab.shards-cache-v1", shards(msgpack, nil), true},
		{"ab.shards-cache-v1", shards(msgpack[:5], msgpack), false},
		{"ab.shards-cache-v1", nil, false},
		{"ab.shards-cache-v1", []byte("SHARD-CACHE-V2\x00\x00\x00\x00"), false},
		{"ab.solv", []byte("SOLV\x00\x01"), true},
		{"ab.solv", []byte("SOL"), false},
		{"x.db", []byte("SQLite format 3\x00 and pages"), true},
		{"x.db", []byte("SQLite format 2\x00"), false},
		{"x.db-wal", nil, true},
		{"ab.q", []byte{0x80}, true},
	}
	for _, tt := range tests {
		err := CheckRepodata("pkgs/cache/"+tt.name, bytes.NewReader(tt.b))
		if tt.ok && err != nil {
			t.Errorf("%s %.40q: %v", tt.name, tt.b, err)
		}
		if !tt.ok && (!fault.Is(err, fault.Corrupt) || !strings.Contains(err.Error(), "pkgs/cache/"+tt.name)) {
			t.Errorf("%s %.40q was taken: %v", tt.name, tt.b, err)
		}
	}
	if err := CheckRepodata("x.json", iotest.ErrReader(errors.Join(syscall.EIO))); !fault.Is(err, fault.IO) {
		t.Errorf("EIO: %v", err)
	}
}

// The scanner must take what encoding/json takes, and nothing else.
func FuzzJSON(f *testing.F) {
	for _, s := range []string{
		`{}`, `[]`, ` {"a" : [ 1 , -0.5e+3, true,false , null, "x\u00e9\n" ] } `, `{"a":1,}`, `[1,]`, `01`, `1.`, `-`, `1e`,
		`"\x"`, "\"\x01\"", `"\u12g4"`, `{"a"}`, `{"a":}`, `nul`, `tru`, `[}`, `{]`, `""""`, `[[[]],{}]`, repodata(2), "\"\xff\"", `{1:2}`,
	} {
		f.Add([]byte(s), 7)
	}
	f.Fuzz(func(t *testing.T, b []byte, chunk int) {
		s := newJSONScanner(&chunks{b, max(chunk, 1)})
		err := s.skip()
		if err == nil {
			err = s.end()
		}
		if err != nil && strings.Contains(err.Error(), "nested deeper") {
			return
		}
		if (err == nil) != json.Valid(b) {
			t.Errorf("%q: error %v, valid %v", b, err, json.Valid(b))
		}
		if err == nil && s.offset() != int64(len(b)) {
			t.Errorf("%q: %d of %d bytes", b, s.offset(), len(b))
		}
		v, err := newJSONScanner(bytes.NewReader(b)).value(1 << 20)
		if err == nil && json.Valid(b) {
			var want, got bytes.Buffer
			if json.Compact(&want, b) != nil || json.Compact(&got, v) != nil || !bytes.Equal(want.Bytes(), got.Bytes()) {
				t.Errorf("%q was captured as %q", b, v)
			}
		}
	})
}

// chunks returns a few bytes at a time.
type chunks struct {
	b []byte
	n int
}

func (c *chunks) Read(b []byte) (int, error) {
	if len(c.b) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), c.n)], c.b)
	c.b = c.b[n:]
	return n, nil
}

func FuzzLookupRepodata(f *testing.F) {
	f.Add([]byte(repodata(2)), "new-1-0.conda")
	f.Add([]byte(`{"packages":{"a":{"name":"a","version":"1","build":"0"}}}`), "a")
	f.Fuzz(func(t *testing.T, b []byte, fn string) {
		rec, ok, err := LookupRepodata(bytes.NewReader(b), fn)
		if err != nil && !fault.Is(err, fault.Corrupt) {
			t.Errorf("kind %v: %v", fault.KindOf(err), err)
		}
		if ok != (rec != nil) || ok && (err != nil || rec.Fn != fn) {
			t.Errorf("%+v %v %v", rec, ok, err)
		}
	})
}

func FuzzCheckRepodata(f *testing.F) {
	for _, n := range []string{"a.json", "a.msgpack", "a.msgpack.zst", "a.shards-cache-v1", "a.db", "a.solv"} {
		f.Add(n, []byte("SHARD-CACHE-V1\x01\x00\x00\x00\xc0"))
		f.Add(n, condatest.Zstd([]byte{0x81, 0xa1, 'x', 0xdc, 0, 1, 0xc4, 1, 0}))
	}
	f.Fuzz(func(t *testing.T, name string, b []byte) {
		if err := CheckRepodata(name, bytes.NewReader(b)); err != nil && !fault.Is(err, fault.Corrupt) {
			t.Errorf("kind %v: %v", fault.KindOf(err), err)
		}
	})
}

func BenchmarkLookupRepodata(b *testing.B) {
	doc := repodata(200_000)
	b.SetBytes(int64(len(doc)))
	for b.Loop() {
		if _, ok, err := LookupRepodata(strings.NewReader(doc), "none"); ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}
