package posix

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"
)

// TestPosixtest runs the cases of go-fuse. They are functions of Go, so this binary is the process that runs them.
func TestPosixtest(t *testing.T) {
	if *child {
		dir, err := os.Getwd()
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range slices.Sorted(maps.Keys(posixtest.All)) {
			t.Run(name, func(t *testing.T) {
				work := dir + "/" + name
				if err := os.Mkdir(work, 0o755); err != nil {
					t.Fatal(err)
				}
				posixtest.All[name](t, work)
			})
		}
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	compare(t, "posixtest", func(p *place) (results, error) {
		return output(p.command("posixtest", self, "-test.run=^TestPosixtest$", "-test.v", "-posixtest"), func(out string) results {
			return lines(out, goTest, map[string]string{"PASS": "pass", "FAIL": "fail", "SKIP": "skip"})
		})
	})
}

var goTest = regexp.MustCompile(`(?m)^ +--- (?P<verdict>\w+): TestPosixtest/(?P<case>\S+)`)
