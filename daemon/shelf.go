package daemon

import (
	"context"
	"path/filepath"

	"condafs/conda"
	"condafs/control"
	"condafs/cow"
	"condafs/index"
	"condafs/shelf"
)

// The names of the shelves in a store.
const (
	shelfName        = "shelf"
	rattlerShelfName = "shelf-rattler"
)

// What the shelves show of head.
const sharedPackages = cow.SharedSpace + "/pkgs"

func rattlerPackages(owner uint32) string { return cow.PrivateSpace(owner) + "/rattler/pkgs" }

// openShelf takes up the store's shelf; the result is nil if there is to be none. img is
// what another program knew of it, or nil.
func openShelf(store *index.Store, c Config, img *shelf.Image) (*shelf.Shelf, error) {
	return shelf.Open(store, shelf.Options{
		Mode: c.Shelf, Name: shelfName, From: sharedPackages, AllUsers: c.AllowOther, Logger: c.Logger, Image: img,
		Wanted: func(e *index.Entry) bool { return conda.Trust(e.Trust) == conda.TrustVerified },
	})
}

// openRattlerShelf takes up that of the owner's rattler packages. They have no archives
// to be compared with, so they are nobody else's.
func openRattlerShelf(store *index.Store, c Config, owner uint32, img *shelf.Image) (*shelf.Shelf, error) {
	return shelf.Open(store, shelf.Options{
		Mode: c.Shelf, Name: rattlerShelfName, From: rattlerPackages(owner), Logger: c.Logger, Image: img,
		Wanted: func(e *index.Entry) bool { return conda.Trust(e.Trust) >= conda.TrustConsistent },
	})
}

// onShelf is a shelf as the engine sees it.
type onShelf struct{ *shelf.Shelf }

// Enter implements cow.Shelf.
func (s onShelf) Enter() cow.ShelfTicket { return s.Shelf.Enter() }

// Reenter implements cow.Shelf.
func (s onShelf) Reenter(since uint64) cow.ShelfTicket { return s.Shelf.Reenter(since) }

// shelfChanged has the shelf compared with the head.
func (a *api) shelfChanged() {
	if a.daemon == nil {
		return
	}
	for _, s := range a.daemon.shelves() {
		s.Sync()
	}
}

// shelfPath is the directory that clients take packages from; "" if there is none.
func (a *api) shelfPath() string {
	if a.daemon == nil || a.daemon.shelf == nil {
		return ""
	}
	return a.daemon.shelf.Path()
}

// shelves are those that there are.
func (d *daemon) shelves() []*shelf.Shelf {
	var l []*shelf.Shelf
	for _, s := range []*shelf.Shelf{d.shelf, d.rattlerShelf} {
		if s != nil {
			l = append(l, s)
		}
	}
	return l
}

// checkShelves adds to a report what somebody has changed on the shelves.
func (a *api) checkShelves(ctx context.Context, o shelf.CheckOptions, out *control.VerifyReport) error {
	if a.daemon == nil {
		return nil
	}
	for _, s := range a.daemon.shelves() {
		found, err := s.Check(ctx, o)
		if err != nil {
			return err
		}
		for _, d := range found {
			p := control.Problem{Kind: "shelf", File: filepath.Join(s.Path(), d.Path), Detail: d.Detail, Paths: []string{}}
			if d.Mended {
				p.Fixed = "mended"
			} else if !o.Dry {
				p.Fixed = "its package leaves the shelf"
			}
			out.Problems = append(out.Problems, p)
		}
	}
	return nil
}
