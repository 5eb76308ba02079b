//go:build condafs_faults

package cow

import (
	"strings"
	"testing"

	"condafs/conda"
	"condafs/index"
	"condafs/internal/failpoint"
)

// TestKnownArchiveIsReplaced: between the check of an archive, which found it verified in the head, and its publication, somebody else
// replaces or removes it there. That it was verified stays true, as it does of what the session started from.
func TestKnownArchiveIsReplaced(t *testing.T) {
	const path = "pkgs/tool-1.0-0.conda"
	const known, away, own = SharedSpace + "/" + path, SharedSpace + "/pkgs/away.conda", "u4711/" + path
	replace := func(w *world) {
		hold := w.store.NewHold()
		defer hold.Release()
		sums, err := w.store.PutBlob(hold, strings.NewReader("another"), 0)
		if err != nil {
			w.t.Fatal(err)
		}
		w.relabel(known, known, func(e *index.Entry) { e.Digest, e.Size, e.SHA256 = sums.Blake3, sums.Size, sha256Hex("another") })
	}
	remove := func(w *world) { w.relabel(known, away, func(*index.Entry) {}) }
	for _, test := range []struct {
		name      string
		meanwhile func(w *world)
		before    bool // it happens before the check
		at        string
		trust     conda.Trust
	}{
		{name: "removed", meanwhile: remove, at: known, trust: conda.TrustVerified},
		{name: "replaced", meanwhile: replace, at: own, trust: conda.TrustVerified},
		{name: "replaced before", meanwhile: replace, before: true, at: own, trust: conda.TrustConsistent},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			f := makePackage(t, "tool-1.0-0", nil)
			pid, c := w.process() // while there is none, so that its snapshot knows nothing
			first := w.procs.spawn(1)
			w.clientAs(first, w.e.owner).install(f)
			w.exit(first)
			c.download(f)
			if test.before {
				test.meanwhile(w)
				w.exit(pid)
			} else {
				arrived, gone := make(chan struct{}), make(chan struct{})
				defer failpoint.Set(w.dir, func(at failpoint.Point) error {
					if at == failpoint.PublishBegin {
						close(arrived)
						<-gone
					}
					return nil
				})()
				w.procs.exit(pid)
				<-arrived
				test.meanwhile(w)
				close(gone)
				w.await()
			}
			if e := w.head(test.at); e == nil || conda.Trust(e.Trust) != test.trust {
				t.Errorf("the head has %+v at %s, want it %v", e, test.at, test.trust)
			}
		})
	}
}
