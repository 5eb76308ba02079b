package shelf

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"condafs/fault"
)

// unwritable is a regular file that nobody can open for writing, not even root: the
// kernel takes its mode, 0444, seriously.
const unwritable = "/proc/sys/kernel/ostype"

// forbid makes clients see that they can't write to the shelf: they try to open
// urls.txt for appending. Modes would not stop root; to make the file immutable would,
// but needs a privilege, and nobody could remove the store of a daemon that was killed.
func (s *Shelf) forbid() error {
	urls := filepath.Join(s.Path(), urlsName)
	if to, err := os.Readlink(urls); err != nil || to != unwritable {
		if err := os.Remove(urls); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fault.New("make shelf", urls, fault.Other, err)
		}
		if err := os.Symlink(unwritable, urls); err != nil {
			return fault.New("make shelf", urls, fault.Other, err)
		}
	}
	if err := os.Chmod(s.Path(), dirMode); err != nil {
		return fault.New("make shelf", s.Path(), fault.Other, err)
	}
	return nil
}
