package transfer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path"

	"condafs/conda"
	"condafs/fault"
	"condafs/hashing"
	"condafs/index"
	"condafs/internal/failpoint"
)

// maxBatch is how many units one commit takes: as many as have become ready while
// the one before was written, so that thousands of packages don't cost thousands
// of syncs.
const maxBatch = 256

// publish commits units as they become ready. After an error it only lets go.
func (im *importer) publish() {
	for first := range im.ready {
		batch := []*ready{first}
	fill:
		for len(batch) < maxBatch {
			select {
			case r, ok := <-im.ready:
				if !ok {
					break fill
				}
				batch = append(batch, r)
			default:
				break fill
			}
		}
		if err := im.commit(batch); err != nil {
			im.cancel(inStore(err))
		}
		for _, r := range batch {
			r.hold.Release()
		}
	}
}

// outcome is what a commit did with one unit.
type outcome struct {
	done Done
	why  string // why it was not taken
	same bool   // the store had it
}

func (im *importer) commit(batch []*ready) error {
	if im.ctx.Err() != nil && isStoreError(context.Cause(im.ctx)) {
		return nil
	}
	var results []outcome
	info := index.CommitInfo{Label: "import", Command: "condafs import " + im.o.Dir, UID: im.o.UID, PID: os.Getpid()}
	// What is ready is committed also when the caller has given up: it holds.
	failpoint.Hit(failpoint.ImportBatch, im.store.Dir())
	_, err := im.store.Update(context.WithoutCancel(im.ctx), info, func(tx *index.Tx) error {
		results = results[:0]
		for _, r := range batch {
			o, err := im.place(tx, r)
			if err != nil {
				return err
			}
			results = append(results, o)
		}
		return nil
	})
	if err != nil {
		return err
	}
	failpoint.Hit(failpoint.ImportCommitted, im.store.Dir())
	im.mu.Lock()
	defer im.mu.Unlock()
	for i, o := range results {
		switch {
		case o.why != "":
			im.report.Rejected = append(im.report.Rejected, Note{batch[i].name, o.why})
		case o.same:
			im.report.Present++
		default:
			im.report.Imported = append(im.report.Imported, o.done)
			im.report.Bytes += batch[i].entry.Size
		}
	}
	return nil
}

// place puts a unit where it may go: to all users if it is verified and nobody was
// first with other content, else to its owner.
func (im *importer) place(tx *index.Tx, r *ready) (outcome, error) {
	spaces := []string{im.o.Spaces.Private}
	if conda.Trust(r.entry.Trust) == conda.TrustVerified {
		spaces = []string{im.o.Spaces.Shared, im.o.Spaces.Private}
	} else if e, ok, err := tx.Get(path.Join(im.o.Spaces.Shared, cache, r.name)); err != nil {
		return outcome{}, err
	} else if ok && sameContent(e, r.entry) {
		return outcome{same: true}, nil
	}
	for _, space := range spaces {
		at := path.Join(space, cache, r.name)
		e, ok, err := tx.Get(at)
		switch {
		case err != nil:
			return outcome{}, err
		case ok && sameContent(e, r.entry) && e.Trust >= r.entry.Trust:
			return outcome{same: true}, nil
		case ok && !sameContent(e, r.entry) && e.SHA256 != "" && e.SHA256 == r.entry.SHA256:
			return outcome{why: "the store has other content under the same name and archive hash; one of the two is wrong"}, nil
		case ok && !sameContent(e, r.entry):
			continue
		}
		if r.tree != nil {
			if _, err := tx.PutTree(r.tree); err != nil {
				return outcome{}, err
			}
		}
		done := Done{Path: cache + "/" + r.name, Kind: r.kind, Trust: conda.Trust(r.entry.Trust)}
		tx.Note("+ " + done.Path + " (" + done.Trust.String() + ")")
		return outcome{done: done}, tx.Put(at, r.entry)
	}
	return outcome{why: "the store has another package of this name, which was first"}, nil
}

func sameContent(a, b index.Entry) bool {
	if a.Kind != b.Kind {
		return false
	}
	if a.Kind == index.KindTree {
		return a.Content == b.Content
	}
	return a.Digest == b.Digest
}

// maxList bounds a list of addresses, in bytes.
const maxList = 64 << 20

// mergeLists adds the addresses that packages came from to those of the user.
func (im *importer) mergeLists(lists []string) error {
	for _, name := range lists {
		ours, err := readList(im.root, name)
		if err != nil {
			im.note(name, reason(name, err))
			continue
		}
		if err := im.mergeList(name, ours); err != nil {
			return err
		}
	}
	return nil
}

func readList(root *os.Root, name string) ([]byte, error) {
	f, err := openQuick(root, name)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxList+1))
	if err == nil && len(b) > maxList {
		err = fault.New("read", name, fault.Corrupt, errors.New("too large for a list of addresses"))
	}
	return b, errors.Join(err, f.Close())
}

// errMoved says that the list has changed since it was read.
var errMoved = errors.New("the list has changed")

func (im *importer) mergeList(name string, ours []byte) error {
	at := path.Join(im.o.Spaces.Private, cache, name)
	for {
		if err := im.tryList(at, ours); !errors.Is(err, errMoved) {
			return err
		}
	}
}

func (im *importer) tryList(at string, ours []byte) error {
	head := im.store.PinHead()
	defer head.Release()
	old, ok, err := find(head.Get, im.spaces, path.Base(at))
	if err != nil {
		return err
	}
	var theirs []byte
	if ok {
		if theirs, err = im.blob(old.Digest); err != nil {
			return err
		}
	}
	union := conda.UnionURLs(nil, theirs, ours)
	if bytes.Equal(union, theirs) {
		return nil
	}
	hold := im.store.NewHold()
	defer hold.Release()
	sums, err := im.store.PutBlob(hold, bytes.NewReader(union), 0)
	if err != nil {
		return err
	}
	fi, err := im.root.Stat(path.Base(at))
	if err != nil {
		return err
	}
	entry := index.Entry{Kind: index.KindFile, Trust: uint8(conda.TrustOpaque), Mode: 0o644, Owner: im.o.UID, Mtime: fi.ModTime().UnixNano(), Size: sums.Size, Digest: sums.Blake3}
	info := index.CommitInfo{Label: "import", Command: "condafs import " + im.o.Dir, UID: im.o.UID, PID: os.Getpid(), What: []string{"+ " + cache + "/" + path.Base(at)}}
	_, err = im.store.Update(im.ctx, info, func(tx *index.Tx) error {
		now, there, err := find(tx.Get, im.spaces, path.Base(at))
		if err != nil {
			return err
		}
		if there != ok || now != old {
			return errMoved
		}
		return tx.Put(at, entry)
	})
	return err
}

func (im *importer) blob(d hashing.Digest) ([]byte, error) {
	f, err := im.store.OpenBlob(d)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(f)
	return b, errors.Join(err, f.Close())
}
