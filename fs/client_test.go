package fs

import (
	"os"
	"path/filepath"
	"testing"
)

// TestPythonClients runs what would deadlock or mislead in this process: mappings,
// locks between processes, databases, whole trees.
func TestPythonClients(t *testing.T) {
	bothWays(t, nil, func(t *testing.T, m *testMount) {
		for _, script := range []string{"mapping.py", "sqlite.py", "locks.py", "rmtree.py", "deep.py"} {
			t.Run(script, func(t *testing.T) {
				dir := filepath.Join(m.pkg, script)
				must(t, os.Mkdir(dir, 0o755))
				python(t, script, dir)
			})
		}
	})
}
