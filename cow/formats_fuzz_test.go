package cow

import (
	"os"
	"path/filepath"
	"testing"

	"condafs/fault"
	"condafs/hashing"
)

// FuzzMark: what lies in the attribute is refused, or means the same when it is written again.
func FuzzMark(f *testing.F) {
	f.Add([]byte("ino=1f mode=644"))
	f.Add([]byte("mode=1777 whiteout"))
	f.Add([]byte("ino=0x mode=-1"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMark(b)
		if err != nil {
			return
		}
		if again, err := decodeMark(m.encode()); err != nil || again != m {
			t.Errorf("%q is %+v, and again %+v, %v", b, m, again, err)
		}
	})
}

// FuzzManifest: what is no manifest is told to be corrupt, also where its sum is right.
func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"Path":"cGtncy9hLTEtMA=="}`))
	f.Add([]byte(`{"Path":"cGtncy9hLTEtMA==","Public":{"Kind":4},"PublicTree":"AAAA"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		name := filepath.Join(t.TempDir(), "manifest")
		for _, content := range [][]byte{body, append([]byte(hashing.Sum(body).String()+"\n"), body...)} {
			if err := os.WriteFile(name, content, 0o600); err != nil {
				t.Fatal(err)
			}
			if s, err := readSealing(name); err != nil && !fault.Is(err, fault.Corrupt) || err == nil && s.item == nil {
				t.Errorf("%+v, %v", s, err)
			}
		}
	})
}

// FuzzGained: a log of any content opens, and what follows what could be read of it is
// kept and read the next time.
func FuzzGained(f *testing.F) {
	f.Add([]byte(`{"Path":"cGtncy9hLTEtMA==","Entry":{"Kind":1}}` + "\n" + `{"Path":"cGtn`))
	f.Add([]byte(`{"Path":"cGtncy9hLTEtMA==","Drop":true}` + "\n"))
	f.Add([]byte("\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		name := filepath.Join(t.TempDir(), "gained")
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		var g gained
		if err := g.open(name); err != nil {
			t.Fatal(err)
		}
		if err := g.record(gainRecord{Path: []byte("pkgs/new-1-0")}); err != nil {
			t.Fatal(err)
		}
		if err := g.close(); err != nil {
			t.Fatal(err)
		}
		var again gained
		if err := again.open(name); err != nil {
			t.Fatal(err)
		}
		if again.dirs["pkgs"]["new-1-0"] == nil {
			t.Error("the record that followed is lost")
		}
	})
}
