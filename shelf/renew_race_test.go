//go:build condafs_faults

package shelf

import (
	"testing"
	"time"

	"condafs/conda"
	"condafs/internal/failpoint"
)

// TestRenewWaitsForWhoPublishes: a package is being put on the shelf, by files that are found to be damaged and are replaced in that moment.
// It is renewed although it is not there yet.
func TestRenewWaitsForWhoPublishes(t *testing.T) {
	w := newWorld(t, Link)
	var isNow func(string) bool
	renewed := make(chan error, 1)
	disarm := failpoint.Set(w.dir, func(p failpoint.Point) error {
		if p != failpoint.ShelfMade || isNow != nil {
			return nil
		}
		isNow = w.replaced("a")
		go func() { renewed <- w.shelf.Renew(map[string]bool{"a-1-0": true}) }()
		select {
		case err := <-renewed:
			t.Error("it does not wait for who publishes it")
			renewed <- err
		case <-time.After(20 * time.Millisecond): // time to do what is wrong
		}
		return nil
	})
	w.put("a-1-0", conda.TrustVerified, then, files("a"))
	disarm()
	if err := <-renewed; err != nil {
		t.Fatal(err)
	}
	w.settle()
	if !isNow("a-1-0/lib/x.py") || !w.has("a-1-0/"+conda.CompletionMarker) {
		t.Error("the damaged file is on the shelf")
	}
}
