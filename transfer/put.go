package transfer

import (
	"errors"
	"io"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"condafs/hashing"
	"condafs/index"
)

// putter copies files into a store, by sharing their extents where the file
// systems can.
type putter struct {
	store   *index.Store
	noClone atomic.Bool // it was tried, and they can't
}

// cloneFrom is the size from which a clone pays; smaller files are quicker copied.
const cloneFrom = 64 << 10

// put copies f, which is at its start, and keeps the copy under h.
func (p *putter) put(h *index.Hold, f *os.File, extra hashing.Extra) (hashing.Sums, error) {
	if fi, err := f.Stat(); err == nil && fi.Size() >= cloneFrom && !p.noClone.Load() {
		sums, ok, err := p.clone(h, f, extra)
		if ok || err != nil {
			return sums, err
		}
		p.noClone.Store(true)
	}
	src := &reader{r: f}
	sums, err := p.store.PutBlob(h, src, extra)
	if src.err != nil {
		return sums, src.err // the source failed, and not the store
	}
	return sums, inStore(err)
}

// clone reports false if the file systems can't.
func (p *putter) clone(h *index.Hold, f *os.File, extra hashing.Extra) (sums hashing.Sums, ok bool, err error) {
	tmp, err := os.CreateTemp(p.store.StagingDir(), "import-")
	if err != nil {
		return sums, false, inStore(err)
	}
	name := tmp.Name()
	drop := func(err error) error { return errors.Join(err, tmp.Close(), os.Remove(name)) }
	if unix.IoctlFileClone(int(tmp.Fd()), int(f.Fd())) != nil {
		return sums, false, inStore(drop(nil))
	}
	if sums, err = hashing.File(tmp, extra); err != nil {
		return sums, false, inStore(drop(err))
	}
	if err := tmp.Close(); err != nil {
		return sums, false, inStore(errors.Join(err, os.Remove(name)))
	}
	if _, err := p.store.AdoptFile(h, unix.AT_FDCWD, name, sums.Blake3); err != nil {
		return sums, false, inStore(errors.Join(err, os.Remove(name)))
	}
	return sums, true, nil
}

// reader remembers that reading failed.
type reader struct {
	r   io.Reader
	err error
}

func (r *reader) Read(b []byte) (int, error) {
	n, err := r.r.Read(b)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}
