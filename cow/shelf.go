package cow

import (
	"slices"

	"condafs/conda"
	"condafs/hashing"
	"condafs/index"
)

// Shelf is where packages lie that clients can take natively, past the mount.
type Shelf interface {
	// Path is the directory that they lie in.
	Path() string
	// Enter lets a session rely on what is there now.
	Enter() ShelfTicket
	// Reenter gives a session, that had a ticket from an earlier process, the same again.
	Reenter(since uint64) ShelfTicket
	// Offer says that packages were published in SharedSpace, as verified. They are
	// there when it returns.
	Offer(names ...string)
	// Sync says that packages were deleted or replaced.
	Sync()
}

// ShelfTicket is what one session may rely on until it leaves.
type ShelfTicket interface {
	// Hides tells whether the package of this name and tree was on the shelf when the
	// ticket was given.
	Hides(name string, tree hashing.Digest) bool
	// Holds tells whether it is there now, for as long as the ticket.
	Holds(name string, tree hashing.Digest) bool
	// Held names the package of this name that is there now.
	Held(name string) (tree hashing.Digest, ok bool)
	// Since names what the ticket is for: see Shelf.Reenter.
	Since() uint64
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

// byShelf is a source that shows a link to the shelf in the place of a package that is
// there: for clients that know one directory only, and follow links.
type byShelf struct {
	source
	ticket ShelfTicket
	dir    string // of the index
	to     string // the shelf
}

const rattlerDir = "rattler/pkgs"

func (b byShelf) Get(path string) (index.Entry, bool, error) {
	e, ok, err := b.source.Get(path)
	if dir, name := splitPath(path); ok && err == nil && dir == b.dir && e.Kind == index.KindTree && b.ticket.Hides(name, e.Digest) {
		e = linkTo(b.to, name, &e)
	}
	return e, ok, err
}

func (b byShelf) List(dir string) ([]index.DirEntry, error) {
	list, err := b.source.List(dir)
	if err != nil || dir != b.dir {
		return list, err
	}
	for i := range list {
		if e := &list[i]; e.Kind == index.KindTree && b.ticket.Hides(e.Name, e.Digest) {
			e.Entry = linkTo(b.to, e.Name, &e.Entry)
		}
	}
	return list, nil
}

// linkTo returns the entry of a link to a package on a shelf.
func linkTo(shelf, name string, e *index.Entry) index.Entry {
	return index.Entry{Kind: index.KindSymlink, Mode: 0o777, Owner: e.Owner, Mtime: e.Mtime, Link: shelf + "/" + name}
}

// enterShelf returns a new ticket, or that of an earlier process.
func enterShelf(sh Shelf, since *uint64) ShelfTicket {
	if since == nil {
		return sh.Enter()
	}
	return sh.Reenter(*since)
}

// enterShelves gives a session its tickets, the same as before if it had any in an
// earlier process, and returns the source of its view.
func (s *Session) enterShelves(src source, since, rattlerSince *uint64) source {
	if sh := s.e.o.Shelf; sh != nil {
		// Also for those that see everything on the mount: one of their processes may be
		// taking files from the shelf that it knows from an earlier session.
		s.ticket = enterShelf(sh, since)
		if s.start.BesideShelf && s.start.fresh {
			src = besideShelf{src, s.ticket}
		}
	}
	if sh := s.e.o.RattlerShelf; sh != nil && s.uid == s.e.owner {
		s.rattlerTicket = enterShelf(sh, rattlerSince)
		if s.start.fresh {
			src = byShelf{src, s.rattlerTicket, PrivateSpace(s.uid) + "/" + rattlerDir, sh.Path()}
		}
	}
	return src
}

func (s *Session) leaveShelves() {
	for _, t := range []ShelfTicket{s.ticket, s.rattlerTicket} {
		if t != nil {
			t.Leave()
		}
	}
}

// shelved returns what to show of something published in dir: a link, if it is on the
// shelf for clients that follow it.
func (s *Session) shelved(dir string, e *index.DirEntry) index.Entry {
	if dir == rattlerDir && e.Kind == index.KindTree && s.rattlerTicket != nil && s.rattlerTicket.Holds(e.Name, e.Digest) {
		return linkTo(s.e.o.RattlerShelf.Path(), e.Name, &e.Entry)
	}
	return e.Entry
}

// offer tells the shelf what was published.
func (e *Engine) offer(r *Report) {
	offerTo(e.o.Shelf, "pkgs", conda.Package, conda.TrustVerified, r)
	offerTo(e.o.RattlerShelf, rattlerDir, conda.RattlerPackage, conda.TrustConsistent, r)
}

func offerTo(shelf Shelf, in string, kind conda.UnitKind, least conda.Trust, r *Report) {
	if shelf == nil {
		return
	}
	var names []string
	for _, u := range r.Committed {
		dir, name := splitPath(u.Path)
		switch {
		case dir != in:
		case u.Deleted:
			shelf.Sync()
		case u.Kind == kind && u.Trust >= least:
			names = append(names, name)
		}
	}
	if len(names) > 0 {
		shelf.Offer(names...)
	}
}
