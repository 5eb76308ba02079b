package bench

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// diskUse counts the blocks of everything below some directories, in bytes, each inode once. What vanishes meanwhile,
// or is not there at all, takes nothing.
func diskUse(dirs ...string) (int64, error) {
	type inode struct{ dev, ino uint64 }
	seen := map[inode]bool{}
	var bytes int64
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
			var st unix.Stat_t
			if err == nil {
				err = unix.Lstat(p, &st)
			}
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			if i := (inode{st.Dev, st.Ino}); !seen[i] {
				seen[i] = true
				bytes += st.Blocks * 512
			}
			return nil
		})
		if err != nil {
			return 0, fmt.Errorf("bench: measure disk use: %w", err)
		}
	}
	return bytes, nil
}
