package cow

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"condafs/fault"
	"condafs/hashing"
	"condafs/index"
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

// FuzzRecovered: whatever a dead daemon has left of a session, the next one begins, and
// keeps nothing but what is in the session's own directory out of it.
func FuzzRecovered(f *testing.F) {
	manifest := []byte(`{"Path":"cGtncy9hLTEtMA==","Public":{"Kind":4},"PublicTree":"AAAA","Overlay":[{"Rel":"Zg==","Digest":""}]}`)
	f.Add(`{"members":[{"pid":1,"start":1}],"closed":true}`, manifest, true, []byte(`{"Path":"cGtncy9hLTEtMA==","Drop":true}`+"\n"), []byte("pkgs/b-1-0"))
	f.Add(`{"kept":true,"outcome":{"exit_code":1}}`, []byte(`{"Path":"Li4vLi4veA=="}`), true, []byte(nil), []byte("../../x"))
	f.Add(`{"killed":true,"foreign":true}`, []byte("torn"), false, []byte("\x00"), []byte(nil))
	dir, err := memDir(f)
	if err != nil {
		f.Fatal(err)
	}
	w := newWorldAt(f, filepath.Join(dir, "store"))
	if err := w.e.Close(context.Background()); err != nil {
		f.Fatal(err)
	}
	beside := filepath.Join(dir, "beside")
	f.Cleanup(func() {
		w.closeStore()
		if err := os.RemoveAll(dir); err != nil {
			f.Error(err)
		}
	})
	f.Fuzz(func(t *testing.T, state string, manifest []byte, sound bool, gains, gone []byte) {
		s := w.store.SessionDir("x")
		if sound {
			manifest = append([]byte(hashing.Sum(manifest).String()+"\n"), manifest...)
		}
		err := errors.Join(
			os.MkdirAll(filepath.Join(s, "upper", "pkgs", "a-1-0"), 0o700), os.MkdirAll(filepath.Join(s, "sealed"), 0o700),
			os.WriteFile(filepath.Join(s, "upper", "pkgs", "a-1-0", "f"), []byte("f"), 0o600),
			os.WriteFile(filepath.Join(s, "sealed", "m"+redoSuffix), manifest, 0o600),
			os.WriteFile(filepath.Join(s, "sealed", "k"+keptSuffix), manifest, 0o600),
			os.WriteFile(filepath.Join(s, "sealed", "g"+goneSuffix), gone, 0o600),
			os.WriteFile(filepath.Join(s, "gained"), gains, 0o600),
			os.WriteFile(beside, []byte("beside"), 0o600))
		if err != nil {
			t.Fatal(err)
		}
		if err := w.store.PutSession(index.SessionRecord{ID: "x", UID: 7, Seq: w.store.Head(), State: state, PID: 1, Start: 1}); err != nil {
			t.Skip(err) // longer than a record may be
		}
		o := w.options()
		o.Logger = slog.New(slog.DiscardHandler)
		e, err := New(w.store, o)
		if err != nil {
			t.Fatal(err)
		}
		e.await()
		if err := e.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if b, err := os.ReadFile(beside); err != nil || string(b) != "beside" {
			t.Errorf("beside the store: %q, %v", b, err)
		}
		if err := errors.Join(w.store.DeleteSession("x"), os.RemoveAll(s)); err != nil {
			t.Fatal(err)
		}
	})
}
