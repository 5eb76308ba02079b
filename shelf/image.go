package shelf

import (
	"context"
	"maps"
	"slices"

	"condafs/hashing"
)

// Image is what a shelf knows and has not on disk: which state of it tickets are for. It
// is plain data.
type Image struct {
	Gen   uint64
	Ready bool
	Known []Shelved
}

// Shelved is a package on the shelf, with the generations in which it came and began to
// leave.
type Shelved struct {
	Name           string
	Tree           hashing.Digest
	Since, Leaving uint64
}

// Pause stops what goes on in the background, until Continue; nobody else may change the
// shelf meanwhile. It waits for a package that is being published.
func (s *Shelf) Pause() {
	s.stop()
	<-s.done
}

// Continue lets the background go on after Pause, or after Open with an image.
func (s *Shelf) Continue() {
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.done = make(chan struct{})
	s.Sync() // what was left
	go s.run()
}

// Draw makes the image of a paused shelf.
func (s *Shelf) Draw() *Image {
	s.mu.Lock()
	defer s.mu.Unlock()
	img := &Image{Gen: s.gen, Ready: s.ready}
	for _, name := range slices.Sorted(maps.Keys(s.known)) {
		k := s.known[name]
		img.Known = append(img.Known, Shelved{name, k.tree, k.since, k.leaving})
	}
	return img
}

func (s *Shelf) restore(img *Image) {
	s.gen, s.ready = img.Gen, img.Ready
	for _, k := range img.Known {
		s.known[k.Name] = &shelved{tree: k.Tree, since: k.Since, leaving: k.Leaving}
	}
}
