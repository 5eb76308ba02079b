package fs

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"
)

// Cases of the suite that no local file system passes.
var impossible = map[string]string{
	"FcntlFlockLocksFile": "wants two POSIX locks of one process to conflict, which they never do",
}

func TestPosix(t *testing.T) {
	bothWays(t, nil, func(t *testing.T, m *testMount) {
		for _, name := range slices.Sorted(maps.Keys(posixtest.All)) {
			t.Run(name, func(t *testing.T) {
				if why := impossible[name]; why != "" {
					t.Skip(why)
				}
				dir := filepath.Join(m.pkg, name)
				must(t, os.Mkdir(dir, 0o755))
				posixtest.All[name](t, dir)
				must(t, os.RemoveAll(dir))
			})
		}
	})
}
