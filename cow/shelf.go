package cow

import (
	"slices"
	"strings"

	"condafs/conda"
	"condafs/hashing"
	"condafs/index"
)

// Shelf is where packages lie that clients can take natively, past the mount.
type Shelf interface {
	// Enter lets a session rely on what is there now.
	Enter() ShelfTicket
	// Offer says that packages were published in SharedSpace, as verified. They are
	// there when it returns.
	Offer(names ...string)
	// Sync says that packages were deleted or replaced.
	Sync()
}

// ShelfTicket is what one session may rely on until it leaves.
type ShelfTicket interface {
	// Hides tells whether the package of this name and tree is on the shelf.
	Hides(name string, tree hashing.Digest) bool
	Leave()
}

// besideShelf is a source without the packages that a session takes from the shelf:
// conda links from a directory that it can write to before any other, so it must not
// find them twice. Their archives go with them, as conda extracts an archive again
// that has no directory beside it.
type besideShelf struct {
	source
	ticket ShelfTicket
}

const shelvedDir = SharedSpace + "/pkgs"

// hides tells whether an entry of shelvedDir is hidden.
func (b besideShelf) hides(name string, e *index.Entry) (bool, error) {
	switch e.Kind {
	case index.KindTree:
		return b.ticket.Hides(name, e.Digest), nil
	case index.KindFile:
		dist, ok := conda.CutArchiveExt(name)
		if !ok {
			return false, nil
		}
		pkg, ok, err := b.source.Get(shelvedDir + "/" + dist)
		return err == nil && ok && pkg.Kind == index.KindTree && b.ticket.Hides(dist, pkg.Digest), err
	}
	return false, nil
}

func (b besideShelf) Get(path string) (index.Entry, bool, error) {
	e, ok, err := b.source.Get(path)
	if err != nil || !ok {
		return e, ok, err
	}
	dir, name := splitPath(path)
	if dir != shelvedDir {
		return e, true, nil
	}
	hidden, err := b.hides(name, &e)
	if err != nil || hidden {
		return index.Entry{}, false, err
	}
	return e, true, nil
}

func (b besideShelf) List(dir string) ([]index.DirEntry, error) {
	list, err := b.source.List(dir)
	if err != nil || dir != shelvedDir {
		return list, err
	}
	hidden := make(map[string]bool)
	for i := range list {
		if e := &list[i]; e.Kind == index.KindTree && b.ticket.Hides(e.Name, e.Digest) {
			hidden[e.Name] = true
		}
	}
	return slices.DeleteFunc(list, func(e index.DirEntry) bool {
		if e.Kind == index.KindFile {
			dist, ok := conda.CutArchiveExt(e.Name)
			return ok && hidden[dist]
		}
		return hidden[e.Name]
	}), nil
}

// offer tells the shelf what was published.
func (e *Engine) offer(r *Report) {
	if e.o.Shelf == nil {
		return
	}
	var names []string
	for _, u := range r.Committed {
		name, ok := strings.CutPrefix(u.Path, "pkgs/")
		switch {
		case !ok || strings.Contains(name, "/"):
		case u.Deleted:
			e.o.Shelf.Sync()
		case u.Kind == conda.Package && u.Trust == conda.TrustVerified:
			names = append(names, name)
		}
	}
	if len(names) > 0 {
		e.o.Shelf.Offer(names...)
	}
}
