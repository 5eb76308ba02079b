package bench

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"condafs/conda"
	"condafs/index"
)

// Of one package of a filled store.
const (
	fillFiles = 200
	fillBlobs = 800 // that all packages share
)

// fill makes a store of n packages. Their names, trees and entries are as large as real ones, but they share their
// blobs: nothing that is measured reads other packages' blobs, and millions of files take long to make.
func fill(ctx context.Context, dir string, n int, progress func(done int)) (err error) {
	s, err := index.Open(dir, index.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	h := s.NewHold()
	defer h.Release()
	var blobs []index.TreeEntry
	for i := range fillBlobs {
		content := fmt.Sprint("shared ", i)
		sums, err := s.PutBlob(h, strings.NewReader(content), 0)
		if err != nil {
			return err
		}
		blobs = append(blobs, index.TreeEntry{Kind: index.KindFile, Mode: 0o644, Size: int64(len(content)), Digest: sums.Blake3})
	}
	const batch = 100
	for first := 0; first < n; first += batch {
		progress(first)
		_, err := s.Update(ctx, index.CommitInfo{Label: "bench"}, func(tx *index.Tx) error {
			for i := first; i < min(first+batch, n); i++ {
				if err := putPackage(tx, i, blobs); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func fillName(i int) string { return fmt.Sprintf("package%d-1.%d-h1234567_0", i, i%10) }

func putPackage(tx *index.Tx, i int, blobs []index.TreeEntry) error {
	b := index.NewTreeBuilder(index.TreeEntry{Mode: 0o755, Mtime: int64(i)})
	for f := range fillFiles {
		e := blobs[(i*7+f*3)%len(blobs)]
		e.Mtime = int64(i)<<40 | int64(f)
		name := fmt.Sprintf("lib/python3.12/site-packages/package%d/part%d/module_%d.py", i, f/20, f)
		if f == 0 {
			name = "info/index.json"
		}
		if err := b.Add(name, e); err != nil {
			return err
		}
	}
	tree, err := b.Build()
	if err != nil {
		return err
	}
	d, err := tx.PutTree(tree)
	if err != nil {
		return err
	}
	return tx.Put("shared/pkgs/"+fillName(i), index.Entry{
		Kind: index.KindTree, Trust: uint8(conda.TrustVerified), Mode: 0o755, Size: tree.Bytes(), Digest: d, Content: tree.ContentDigest(),
	})
}
