package fs

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// expected are the errors that racing operations on the same names may meet.
var expected = []error{
	unix.ENOENT, unix.EEXIST, unix.ENOTDIR, unix.EISDIR, unix.ENOTEMPTY, unix.EINVAL, unix.EPERM,
}

// TestManyAtOnce lets several goroutines work on the same few names, so that
// lookups, forgets, opens, copy-ups and renames of the same nodes meet. What they see depends on luck, but it may only be what a local file
// system would show, and contents are never mixed.
func TestManyAtOnce(t *testing.T) {
	const workers, steps = 8, 600
	bothWays(t, seedTwo, func(t *testing.T, m *testMount) {
		base := filepath.Join(m.root, "pkgs", "one-1.0-0")
		names := []string{"lib/a.txt", "lib/deep/b.txt", "bin/tool", "new", "lib/new", "dir/x", "dir"}
		var wg sync.WaitGroup
		for w := range workers {
			wg.Add(1)
			go func() {
				defer wg.Done()
				rnd := rand.New(rand.NewPCG(1, uint64(w)))
				pick := func() string { return filepath.Join(base, names[rnd.IntN(len(names))]) }
				for i := range steps {
					if err := step(rnd.IntN(12), pick(), pick(), fmt.Sprint(".tmp", w), i); err != nil && !isExpected(err) {
						t.Errorf("worker %d, step %d: %v", w, i, err)
						return
					}
				}
			}()
		}
		wg.Wait()
	})
}

func isExpected(err error) bool {
	for _, e := range expected {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// step does one operation. Each file is written under a name of the worker's own
// and holds one byte, repeated.
func step(op int, a, b, tmp string, i int) error {
	content := make([]byte, 5000)
	for j := range content {
		content[j] = byte('a' + i%26)
	}
	switch op {
	case 0, 1:
		return os.WriteFile(a+tmp, content, 0o644)
	case 2:
		return os.Rename(a+tmp, b)
	case 3, 4:
		return checkWhole(a)
	case 5:
		return os.Remove(a)
	case 6:
		return os.Mkdir(a, 0o755)
	case 7:
		_, err := os.ReadDir(filepath.Dir(a))
		return err
	case 8:
		return os.Link(a, b)
	case 9:
		return os.Chmod(a, 0o600+os.FileMode(i%64))
	case 10:
		return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
	default:
		f, err := os.OpenFile(a, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		_, err = f.Seek(0, 2)
		return errors.Join(err, f.Close())
	}
}

// checkWhole reads a file, if it is one, and looks whether its parts belong together.
func checkWhole(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if len(b) != 5000 { // from the snapshot, or being written
		return nil
	}
	for _, c := range b {
		if c != b[0] {
			return fmt.Errorf("%s is mixed of %q and %q", path, b[0], c)
		}
	}
	return nil
}
