package transfer

import (
	"errors"
	"path"

	"condafs/conda"
	"condafs/index"
)

// Progress is how far the work has come.
type Progress struct {
	Phase string
	Done  int64 // in Unit
	Total int64
	Unit  string
	Item  string // the package at work
}

// Spaces are the parts of a snapshot that a user works with: what all users share,
// and what is the user's own, which hides shared things of the same name.
type Spaces struct{ Shared, Private string }

func (s Spaces) both() []string { return []string{s.Private, s.Shared} }

// Note is a name and a sentence about it.
type Note struct{ Path, Why string }

// Done is a unit that has been imported.
type Done struct {
	Path  string // as on the mount: "pkgs/NAME"
	Kind  conda.UnitKind
	Trust conda.Trust
}

// cache is the directory of the mount that is imported to and exported from.
const cache = "pkgs"

// urlLists are the lists of addresses that clients keep beside their packages.
var urlLists = []string{"urls.txt", "urls"}

// storeError marks what ends the whole work: the fault is not in one package.
type storeError struct{ error }

func (e storeError) Unwrap() error { return e.error }

func inStore(err error) error {
	if err == nil {
		return nil
	}
	return storeError{err}
}

func isStoreError(err error) bool {
	_, ok := errors.AsType[storeError](err)
	return ok
}

// find returns the entry of a name in the caller's own space or the shared one.
func find(get func(string) (index.Entry, bool, error), spaces []string, name string) (index.Entry, bool, error) {
	for _, s := range spaces {
		if e, ok, err := get(path.Join(s, cache, name)); err != nil || ok {
			return e, ok, err
		}
	}
	return index.Entry{}, false, nil
}
