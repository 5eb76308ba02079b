package index

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"condafs/fault"
	"condafs/hashing"
	"condafs/internal/failpoint"

	"golang.org/x/sys/unix"
)

// SetAside moves what a problem is about into quarantine, where no client reads it:
// a damaged blob, or something that is not ours. It returns the record's id, or ""
// if there is nothing to move any more or it has become sound.
func (s *Store) SetAside(p Problem) (id string, err error) {
	fi, err := os.Lstat(filepath.Join(s.dir, p.File))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fault.New("put aside", p.File, fault.Other, err)
	}
	if p.Kind != Foreign && fi.Mode().IsRegular() {
		// Somebody may have brought the content meanwhile. The file stays open, so that
		// no other one can pass for it.
		f, err := os.OpenFile(filepath.Join(s.dir, p.File), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if err != nil {
			return "", fault.New("put aside", p.File, fault.Other, err)
		}
		defer f.Close() // only read
		good, err := s.sound(f, p.Digest)
		if err == nil && !good {
			fi, err = f.Stat()
		}
		if err != nil {
			return "", fault.New("put aside", p.File, fault.Other, err)
		}
		if good {
			return "", nil
		}
	}
	now := time.Now().UTC()
	id = fmt.Sprintf("damaged-%d", now.UnixNano())
	r := QuarantineRecord{ID: id, Time: now, Path: p.File, Reason: p.Detail, UID: uint32(os.Geteuid()), Bytes: fi.Size()}
	if err := os.MkdirAll(s.QuarantineDir(id), 0o700); err != nil {
		return "", fault.New("put aside", p.File, fault.Other, err)
	}
	// The record first: content without a record would be lost from sight.
	if err := s.AddQuarantine(r); err != nil {
		return "", err
	}
	failpoint.Hit(failpoint.AsideRecorded, s.dir)
	to := filepath.Join(s.QuarantineDir(id), filepath.Base(p.File))
	if !p.Digest.IsZero() {
		to = filepath.Join(s.QuarantineDir(id), p.Digest.String())
	}
	moved, err := s.moveAside(p, fi, to)
	if err != nil {
		return "", fault.New("put aside", p.File, fault.Other, err)
	}
	if !moved {
		return "", s.RemoveQuarantine(id)
	}
	failpoint.Hit(failpoint.AsideMoved, s.dir)
	s.log.Warn("moved into quarantine what is damaged", "file", p.File, "id", id, "why", p.Detail, "affects", p.Paths)
	return id, nil
}

// moveAside renames what was looked at, and not what somebody has put in its place since.
func (s *Store) moveAside(p Problem, fi fs.FileInfo, to string) (bool, error) {
	defer s.naming.lock(p.Digest)()
	from := filepath.Join(s.dir, p.File)
	now, err := os.Lstat(from)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(fi, now) {
		return false, nil
	}
	if err == nil {
		err = os.Rename(from, to)
	}
	if err != nil {
		return false, err
	}
	if p.Kind != Foreign {
		s.held.blob(p.Digest).unsee(p.Digest)
		s.blobs.Add(-1)
		s.bytes.Add(-fi.Size())
	}
	return true, nil
}

// sound reads a blob again, and from the disk, where the damage may be.
func (s *Store) sound(f *os.File, d hashing.Digest) (bool, error) {
	u := newUncached(nil)
	good, err := s.rehashBy(f, d, func() (hashing.Sums, error) { return u.sum(f) })
	if fault.Is(err, fault.IO) { // a device that can't read it: as bad as damaged
		return false, nil
	}
	return good, err
}

// Bring takes a blob that the store has lost: what r gives, if want says so of its
// digest. It is held by h, and durable after SyncBlobs.
func (s *Store) Bring(h *Hold, r io.Reader, want func(d hashing.Digest) bool) (d hashing.Digest, ok bool, err error) {
	f, err := os.CreateTemp(s.StagingDir(), "bring-*")
	if err != nil {
		return d, false, adoptError("lost content", err)
	}
	sums, err := hashing.Reader(io.TeeReader(r, f), 0)
	err = errors.Join(err, f.Close())
	if err == nil && want(sums.Blake3) {
		if _, err = s.AdoptFile(h, unix.AT_FDCWD, f.Name(), sums.Blake3); err == nil {
			return sums.Blake3, true, nil
		}
	}
	if rerr := os.Remove(f.Name()); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
		err = errors.Join(err, rerr)
	}
	return sums.Blake3, false, err
}

// GiveUp notes that a blob cannot be had again and head does not need it any more: as
// long as the store is open, Verify does not complain that older states do.
func (s *Store) GiveUp(d hashing.Digest) { s.givenUp.Store(d, struct{}{}) }

// AwaitCommits returns when every update that was under way has ended, and what it has
// made is in head. One that begins later finds that a blob is gone, if it was gone before.
func (s *Store) AwaitCommits(ctx context.Context) error {
	_, err := s.commits.do(ctx, &request{alone: true, prepare: func(*batch) error { return nil }})
	return err
}

// HasTree tells whether a tree is there and sound.
func (s *Store) HasTree(d hashing.Digest) (bool, error) {
	_, err := s.loadTree(d)
	if fault.Is(err, fault.Corrupt) {
		return false, nil
	}
	return err == nil, err
}

// SyncBlobs makes durable what was brought.
func (s *Store) SyncBlobs() error {
	// By a descriptor of its own: the committer must not miss a failure that only the
	// first who asks is told.
	root, err := os.Open(s.dir)
	if err == nil {
		err = errors.Join(unix.Syncfs(int(root.Fd())), root.Close())
	}
	if err != nil {
		return fault.New("sync store", s.dir, fault.Other, err)
	}
	return nil
}

// MendTree takes a tree that the database has lost from its file. One that is not
// there either, or damaged, is fault.Corrupt.
func (s *Store) MendTree(ctx context.Context, d hashing.Digest) error {
	b, err := s.readTreeFile(d)
	if err == nil {
		_, err = DecodeTree(b)
	}
	if err != nil {
		return err
	}
	_, err = s.commits.do(ctx, &request{alone: true, prepare: func(batch *batch) error {
		for _, o := range splitParts(treePrefix(d), b) {
			batch.record(o)
		}
		return nil
	}})
	return err
}

// Referrer is an entry that refers to something lost.
type Referrer struct {
	Path   string // of the index: SPACE/…
	Entry  Entry
	Head   bool        // it is in head; else only a session sees it
	Lost   []TreeEntry // of a package: the files that are lost
	NoTree bool        // of a package: its list of files is lost
}

// Referrers finds the entries of all live states that refer to lost blobs or trees.
func (s *Store) Referrers(ctx context.Context, lost func(d hashing.Digest) bool) ([]Referrer, error) {
	states := s.pinLive()
	defer func() {
		for _, p := range states {
			p.Release()
		}
	}()
	var seqs []Seq
	for _, p := range states {
		seqs = append(seqs, p.Seq())
	}
	head := states[len(states)-1]
	var all []Referrer
	err := s.eachVersion(ctx, seqs, func(path string, e *Entry) error {
		if e.Kind == KindTree || e.Kind == KindFile && lost(e.Digest) {
			all = append(all, Referrer{Path: path, Entry: *e})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var out []Referrer
	trees := make(map[hashing.Digest][]TreeEntry)
	for _, r := range all {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if r.Entry.Kind == KindTree {
			files, seen := trees[r.Entry.Digest]
			if !seen {
				t, err := s.loadTree(r.Entry.Digest)
				switch {
				case fault.Is(err, fault.Corrupt):
					r.NoTree = true
				case err != nil:
					return nil, err
				default:
					for _, e := range t.All() {
						if e.Kind == KindFile && lost(e.Digest) {
							files = append(files, e)
						}
					}
					trees[r.Entry.Digest] = files
				}
			}
			if r.Lost = files; len(files) == 0 && !r.NoTree {
				continue
			}
		}
		now, ok, err := head.Get(r.Path)
		if err != nil {
			return nil, err
		}
		r.Head = ok && now == r.Entry
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b Referrer) int { return cmp.Compare(a.Path, b.Path) })
	return out, nil
}

// MendJournal writes the journal anew, and the manifests beside it, if there is such a
// problem among these. The database must be sound: it is what they are written from.
func (s *Store) MendJournal(ctx context.Context, problems []Problem) error {
	found := false
	for _, p := range problems {
		if p.Kind != Journal {
			continue
		}
		found = true
		if p.Digest.IsZero() {
			continue
		}
		// A damaged manifest makes room for the one that the database has.
		if _, err := s.readTreeFileBy(newUncached(nil).readFile, p.Digest); fault.Is(err, fault.Corrupt) {
			if err := os.Remove(s.treeFile(p.Digest)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fault.New("mend journal", p.File, fault.Other, err)
			}
		}
	}
	if !found {
		return nil
	}
	for _, name := range []string{treesName, journalName} {
		if err := os.Mkdir(filepath.Join(s.dir, name), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return fault.New("mend journal", s.dir, fault.Other, err)
		}
	}
	return s.checkpoint(ctx)
}
