package index

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"condafs/fault"
	"condafs/hashing"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/table"
	"golang.org/x/sys/unix"
)

// ScrubParts is how many parts a scrub has: the database with what it could be made of
// again, and the directories of objects/.
const ScrubParts = 1 + 256

// ScrubOptions are what a Scrub is made with. None may be nil.
type ScrubOptions struct {
	// Pace is told how many bytes were read, and returns when more may be. Its error ends
	// the part.
	Pace func(ctx context.Context, bytes int) error
	// Read is told what was read of the store's own content.
	Read func(blobs, bytes int64)
	// Found takes problems, those that belong together in one call. They have no Paths
	// yet, and what is missing may have been collected: see Affected. A damaged blob that
	// it moves away is not looked at again. Its error ends the part.
	Found func(ctx context.Context, problems ...Problem) error
}

// Scrub reads the store part by part, as the disk has it and not the page cache. Clients
// and collections go on meanwhile. It is for one goroutine; Close gives it back.
type Scrub struct {
	store *Store
	o     ScrubOptions
	known *expectation // nil before the first part
}

// NewScrub returns a Scrub that has read nothing.
func (s *Store) NewScrub(o ScrubOptions) *Scrub { return &Scrub{store: s, o: o} }

// ScrubSize is about how many bytes a scrub reads.
func (s *Store) ScrubSize() int64 { return s.bytes.Load() }

// Close gives back what a Scrub has noted.
func (x *Scrub) Close() error { return x.Forget() }

// Forget makes the next part find out anew what should be there. By itself, a Scrub does
// so once.
func (x *Scrub) Forget() error {
	if x.known == nil {
		return nil
	}
	err := x.known.close()
	x.known = nil
	return err
}

// Part reads one of ScrubParts. Damage is a finding, not an error.
func (x *Scrub) Part(ctx context.Context, n int) error {
	ctx, cancel := x.store.untilClose(ctx)
	defer cancel()
	err := x.part(ctx, n)
	if err != nil && ctx.Err() != nil {
		err = fault.New("scrub", x.store.dir, fault.Canceled, context.Cause(ctx))
	}
	return err
}

func (x *Scrub) part(ctx context.Context, n int) error {
	var problems []Problem
	if x.known == nil {
		var err error
		if x.known, problems, err = x.expect(ctx); err != nil {
			return err
		}
	}
	if n == 0 {
		return x.database(ctx, problems)
	}
	if len(problems) > 0 {
		if err := x.o.Found(ctx, problems...); err != nil {
			return err
		}
	}
	return x.objects(ctx, byte(n-1))
}

// reader returns what reads as the disk has it, at the scrub's pace.
func (x *Scrub) reader(ctx context.Context) *uncached {
	return newUncached(func(bytes int) error {
		x.o.Read(0, int64(bytes))
		// Small files cost a block, too.
		return x.o.Pace(ctx, max(bytes, uncachedAlign))
	})
}

// objects reads the blobs whose digests begin with a byte.
func (x *Scrub) objects(ctx context.Context, first byte) error {
	wanted, err := x.known.part(first)
	if err != nil {
		return fault.New("scrub", x.store.dir, fault.Other, err)
	}
	u := x.reader(ctx)
	shard := fmt.Sprintf("%02x", first)
	each := x.store.eachInShard
	if _, err := os.Lstat(filepath.Join(x.store.dir, objectsName, shard)); errors.Is(err, fs.ErrNotExist) {
		each = func(context.Context, string, func(objectFile) error) error { return nil } // all is missing
	}
	err = each(ctx, shard, func(f objectFile) error {
		if f.foreign {
			return x.o.Found(ctx, foreign(f.name))
		}
		size, is := wanted[f.digest]
		delete(wanted, f.digest)
		if !is {
			size = -1
		}
		return x.blob(ctx, u, f, size)
	})
	if err != nil {
		return err
	}
	var gone []Problem
	for d := range wanted {
		if !x.store.HasBlob(d) {
			gone = append(gone, missing(d))
		}
	}
	if len(gone) == 0 {
		return nil
	}
	return x.o.Found(ctx, gone...)
}

// blob reads one. Its size is -1 if nothing referred to it when that was looked up.
func (x *Scrub) blob(ctx context.Context, u *uncached, file objectFile, size int64) error {
	s := x.store
	f, err := os.OpenFile(filepath.Join(s.dir, file.name), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // collected, or put aside by a repair
	}
	if err != nil {
		return fault.New("scrub", file.name, fault.Other, err)
	}
	defer f.Close() // only read
	good, err := s.rehashBy(f, file.digest, func() (hashing.Sums, error) { return u.sum(f) })
	x.o.Read(1, 0)
	p := Problem{Kind: Content, Digest: file.digest, File: file.name, Detail: "its bytes on the disk are not what its name says"}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case fault.Is(err, fault.IO):
		p.Detail = err.Error() // a device that cannot read a block
	case err != nil:
		return fault.New("scrub", file.name, fault.Other, err)
	case good:
		return nil
	case size < 0 && s.suspect(file.info):
		return nil // a crash may have damaged it, and it is hashed before anything relies on it
	case size >= 0 && file.info.Size() != size:
		p.Kind, p.Detail = Size, fmt.Sprintf("it has %d bytes, not %d", file.info.Size(), size)
	}
	return x.o.Found(ctx, p)
}

// Examine reads one blob that something needs, as a Scrub does, and returns what is wrong
// with it.
func (s *Store) Examine(ctx context.Context, d hashing.Digest) (problems []Problem, err error) {
	fi, err := os.Lstat(s.blobPath(d))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, given := s.givenUp.Load(d); given {
			return nil, nil
		}
		return []Problem{missing(d)}, nil
	case err != nil:
		return nil, fault.New("examine blob", d.String(), fault.Other, err)
	case !fi.Mode().IsRegular():
		return []Problem{foreign(blobName(d)), missing(d)}, nil
	}
	x := s.NewScrub(ScrubOptions{
		Pace:  func(ctx context.Context, _ int) error { return ctx.Err() },
		Read:  func(int64, int64) {},
		Found: func(_ context.Context, ps ...Problem) error { problems = append(problems, ps...); return nil },
	})
	err = x.blob(ctx, x.reader(ctx), objectFile{name: blobName(d), digest: d, info: fi}, fi.Size())
	return problems, err
}

// database looks at what is not in objects/.
func (x *Scrub) database(ctx context.Context, problems []Problem) error {
	s := x.store
	states := s.pinLive()
	defer func() {
		for _, p := range states {
			p.Release()
		}
	}()
	u := x.reader(ctx)
	v := &verification{store: s, options: VerifyOptions{Full: true}, head: states[len(states)-1].Seq(), readFile: u.readFile}
	v.report.Problems = problems
	damage, err := s.checkDatabaseFiles(ctx, false)
	if err != nil {
		return err
	}
	tables, err := x.tables(ctx, u)
	if err != nil {
		return err
	}
	for _, d := range append(damage, tables...) {
		v.add(damagedIndex(d.file, d.err))
	}
	if err := v.checkHead(ctx); err != nil {
		return err
	}
	if err := v.checkJournal(ctx); err != nil {
		return err
	}
	entries, err := os.ReadDir(filepath.Join(s.dir, objectsName))
	if err != nil {
		return fault.New("list objects", s.dir, fault.Other, err)
	}
	for _, e := range entries {
		var shard byte
		if _, err := fmt.Sscanf(e.Name(), "%02x", &shard); err != nil || !e.IsDir() || e.Name() != fmt.Sprintf("%02x", shard) {
			v.add(foreign(objectsName + "/" + e.Name()))
		}
	}
	if len(v.report.Problems) == 0 {
		return nil
	}
	return x.o.Found(ctx, v.report.Problems...)
}

// checkHead looks whether the entries of head are all there, and lists its trees.
func (v *verification) checkHead(ctx context.Context) error {
	whole, err := v.store.checkSum(ctx)
	if err == nil && !whole {
		err = errHeadLost
	}
	v.headTrees = make(map[hashing.Digest]struct{})
	if err == nil {
		err = v.store.eachVersion(ctx, []Seq{v.head}, func(_ string, e *Entry) error {
			if e.Kind == KindTree {
				v.headTrees[e.Digest] = struct{}{}
			}
			return nil
		})
	}
	if fault.Is(err, fault.Corrupt) {
		v.add(damagedIndex(dbName, err))
		return nil
	}
	return err
}

// tables reads Badger's tables. It replaces them at any time, so one is damaged if it is
// so twice and still named.
func (x *Scrub) tables(ctx context.Context, u *uncached) (damage []tableDamage, err error) {
	named, err := manifestTables(x.store.dir)
	if err != nil {
		return nil, nil // checkDatabaseFiles tells
	}
	ids := make([]uint64, 0, len(named))
	for id := range named {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		var found error
		for range 2 {
			if found = x.table(u, id, named[id]); found == nil {
				break
			}
			if ctx.Err() != nil || fault.Is(found, fault.TooMany) || fault.Is(found, fault.Permission) {
				return damage, found
			}
			if now, err := manifestTables(x.store.dir); err == nil {
				if _, still := now[id]; !still {
					found = nil
					break
				}
			}
		}
		if found != nil {
			damage = append(damage, tableDamage{tableName(id), found})
		}
	}
	return damage, nil
}

func (x *Scrub) table(u *uncached, id uint64, m badger.TableManifest) error {
	b, err := u.readFile(filepath.Join(x.store.dir, tableName(id)))
	if err != nil {
		return err
	}
	return verifyTable(id, b, m)
}

func tableName(id uint64) string { return dbName + "/" + table.IDToFilename(id) }
