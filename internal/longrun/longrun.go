// Package longrun says whether tests are to run their longest cases too.
package longrun

import (
	"flag"
	"os"
	"strconv"
	"sync"
	"testing"
)

// Wanted reports whether CONDAFS_LONG is set to anything but the empty string. Without it, each test keeps to what finds most
// mistakes for its time, so that `go test -race ./...` ends within minutes and is run often.
func Wanted() bool { return os.Getenv("CONDAFS_LONG") != "" }

const checksFlag = "rapid.checks"

// checksGiven reports whether the command line says how many checks rapid makes.
var checksGiven = sync.OnceValue(func() (given bool) {
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == checksFlag })
	return given
})

// Checks lets rapid make n checks of what t checks in place of its default, unless the longest cases are wanted or the command line
// says how many. Not for tests that run in parallel: rapid's flag is one for all.
func Checks(t testing.TB, n int) {
	t.Helper()
	if Wanted() || checksGiven() {
		return
	}
	f := flag.Lookup(checksFlag)
	if err := flag.Set(checksFlag, strconv.Itoa(n)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := flag.Set(checksFlag, f.DefValue); err != nil {
			t.Error(err)
		}
	})
}
