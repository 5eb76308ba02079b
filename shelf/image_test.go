package shelf

import (
	"slices"
	"testing"

	"condafs/conda"
	"condafs/internal/fieldtest"
)

// TestHandOver has another program take up a shelf with sessions that are older than some of what is on it: what is hidden
// from each, and what it may rely on, stays.
func TestHandOver(t *testing.T) {
	w := newWorld(t, Link)
	w.put("a-1-0", conda.TrustVerified, then, files("a"))
	first := w.shelf.Enter()
	w.put("b-1-0", conda.TrustVerified, then, files("b"))
	second := w.shelf.Enter()
	w.delete("a-1-0") // it waits for both tickets
	sinces := []uint64{first.Since(), second.Since()}
	hides := func(tickets []*Ticket) (is []bool) {
		for _, k := range tickets {
			is = append(is, k.Hides("a-1-0", w.trees["a-1-0"]), k.Hides("b-1-0", w.trees["b-1-0"]))
		}
		return is
	}
	want := []bool{true, false, true, true}
	if got := hides([]*Ticket{first, second}); !slices.Equal(got, want) {
		t.Fatalf("hidden is %v, want %v", got, want)
	}
	for range 2 {
		w.shelf.Pause()
		img := w.shelf.Draw()
		if err := w.store.Close(); err != nil {
			t.Fatal(err)
		}
		w.openWith(img)
		tickets := []*Ticket{w.shelf.Reenter(sinces[0]), w.shelf.Reenter(sinces[1])}
		w.shelf.Continue()
		w.settle()
		if got := hides(tickets); !slices.Equal(got, want) {
			t.Errorf("hidden is %v, want %v", got, want)
		}
		if !w.has("a-1-0") {
			t.Error("what tickets are for has left")
		}
		if w.shelf.Enter().Hides("a-1-0", w.trees["a-1-0"]) {
			t.Error("what leaves is hidden from a new session")
		}
	}
	for k := range w.shelf.tickets {
		k.Leave()
	}
	w.settle()
	if w.has("a-1-0") || !w.has("b-1-0") {
		t.Error("what nobody relies on any more is still there, or what stays is not")
	}
}

// TestPause stops and goes on, with nothing lost that came meanwhile.
func TestPause(t *testing.T) {
	w := newWorld(t, Link)
	w.shelf.Pause()
	w.shelf.Sync()
	w.shelf.Continue()
	w.put("a-1-0", conda.TrustVerified, then, files("a"))
	if !w.has("a-1-0") {
		t.Error("it does not go on")
	}
}

// What becomes of each field when another program takes over; see cow's test of the same name.
func TestEveryFieldIsHandedOver(t *testing.T) {
	for _, h := range []struct {
		of                      any
		image, restored, unused string
	}{
		{Shelf{}, "known gen ready", "store o log sharing dir tickets all", "ctx stop done wake turn work mu full"},
		{shelved{}, "tree since leaving", "", ""},
		{Ticket{}, "gen", "s", "once"},
	} {
		fieldtest.All(t, h.of, "put what is new into the image (image.go), or say here why not", h.image, h.restored, h.unused)
	}
}
