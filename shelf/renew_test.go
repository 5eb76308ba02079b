package shelf

import (
	"os"
	"path/filepath"
	"testing"

	"condafs/conda"
	"condafs/hashing"
)

// replaced has a blob be another file with the same content, as after a repair, and tells whether a file of the shelf is that one.
func (w *world) replaced(content string) (isNow func(path string) bool) {
	w.t.Helper()
	hex := hashing.Sum([]byte(content)).String()
	blob := filepath.Join(w.dir, "objects", hex[:2], hex[2:])
	old, err := os.Stat(blob)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := os.Remove(blob); err != nil {
		w.t.Fatal(err)
	}
	h := w.store.NewHold()
	defer h.Release()
	staged := filepath.Join(w.store.StagingDir(), "again")
	if err := os.WriteFile(staged, []byte(content), 0o600); err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.store.AdoptFile(h, -100, staged, hashing.Sum([]byte(content))); err != nil {
		w.t.Fatal(err)
	}
	return func(path string) bool {
		w.t.Helper()
		fi, err := os.Stat(filepath.Join(w.shelf.Path(), path))
		if err != nil {
			w.t.Fatal(err)
		}
		return !os.SameFile(fi, old) && w.read(path) == content
	}
}

// What is renewed, or was about to be, leaves and comes back also if another daemon goes on: after a death, or an end in order.
func TestRenewAcrossDaemons(t *testing.T) {
	for _, how := range []string{"in doubt", "renewed"} {
		t.Run(how, func(t *testing.T) {
			w := newWorld(t, Link)
			w.put("a-1-0", conda.TrustVerified, then, files("a"))
			w.put("b-1-0", conda.TrustVerified, then, files("b"))
			w.shelf.Enter() // by a session that outlives the daemon
			isNow := w.replaced("a")
			names := map[string]bool{"a-1-0": true, "none-1-0": true}
			if err := w.shelf.Doubt(names); err != nil {
				t.Fatal(err)
			}
			if how == "renewed" {
				if err := w.shelf.Renew(names); err != nil {
					t.Fatal(err)
				}
			}
			w.close()
			w.open()
			w.settle()
			if !isNow("a-1-0/lib/x.py") || !w.has("a-1-0/"+conda.CompletionMarker) || !w.has("b-1-0/"+conda.CompletionMarker) {
				t.Error("what was damaged is on the shelf still, or has not come back whole")
			}
		})
	}
}

// A session that an earlier daemon has begun has a ticket before the shelf is looked at. What leaves stays for it.
func TestLeavingWaitsAcrossDaemons(t *testing.T) {
	w := newWorld(t, Link)
	w.put("a-1-0", conda.TrustVerified, then, files("a"))
	w.shelf.Enter()
	if err := w.shelf.Renew(map[string]bool{"a-1-0": true}); err != nil {
		t.Fatal(err)
	}
	w.close()
	w.openWith(&Image{}) // nothing is looked at yet
	old := w.shelf.Enter()
	w.shelf.Continue()
	w.settle()
	if !w.has("a-1-0/lib/x.py") || w.has("a-1-0/"+conda.CompletionMarker) {
		t.Error("it went while somebody relied on it, or came back")
	}
	if w.shelf.Enter().Hides("a-1-0", w.trees["a-1-0"]) {
		t.Error("a new session does not see it on the mount")
	}
	for k := range w.shelf.tickets {
		k.Leave()
	}
	old.Leave()
	w.settle()
	w.settle()
	if !w.has("a-1-0/" + conda.CompletionMarker) {
		t.Error("it does not come back")
	}
}
