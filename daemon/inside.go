package daemon

import (
	"errors"
	"io/fs"
	"path/filepath"
)

// inside reports whether path, once symbolic links in it have been followed, is dir
// or below it. What of path does not exist yet is taken as it stands.
func inside(path, dir string) (bool, error) {
	// What lies there by its name alone is not looked at: on our own mount that would
	// start a session.
	if rel, err := filepath.Rel(dir, path); err == nil && filepath.IsLocal(rel) {
		return true, nil
	}
	real, rest := path, ""
	for {
		r, err := filepath.EvalSymlinks(real)
		if err == nil {
			real = filepath.Join(r, rest)
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
		rest = filepath.Join(filepath.Base(real), rest)
		real = filepath.Dir(real)
	}
	if r, err := filepath.EvalSymlinks(dir); err == nil {
		dir = r
	}
	rel, err := filepath.Rel(dir, real)
	return err == nil && filepath.IsLocal(rel), nil
}
