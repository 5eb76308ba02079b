package index

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"condafs/fault"
	"condafs/hashing"
)

// VerifyOptions are what a caller of Verify may choose.
type VerifyOptions struct {
	// Full hashes every blob. Otherwise only those are hashed whose time says that
	// somebody wrote to them.
	Full bool
}

// ProblemKind is what is wrong.
type ProblemKind string

const (
	Missing ProblemKind = "missing" // a blob is not there
	Size    ProblemKind = "size"    // a blob is shorter or longer than it should be
	Content ProblemKind = "content" // a blob's bytes are not what its name says
	BadTree ProblemKind = "tree"    // a tree is not there or does not decode
	Foreign ProblemKind = "foreign" // something that condafs did not put where its files are
	Index   ProblemKind = "index"   // the database is damaged, or has lost entries
	Journal ProblemKind = "journal" // what the database could be made of again is damaged
)

// Problem is one thing that is wrong.
type Problem struct {
	Kind        ProblemKind    `json:"kind"`
	Digest      hashing.Digest `json:"digest,omitzero"`
	File        string         `json:"file,omitempty"`  // relative to the store
	Paths       []string       `json:"paths,omitempty"` // entries of head that it affects
	Detail      string         `json:"detail"`
	Quarantined string         `json:"quarantined,omitempty"` // the record's id, after a repair
	Fixed       string         `json:"fixed,omitempty"`       // what a repair did about it, for people
}

// missing is a blob that is not there.
func missing(d hashing.Digest) Problem {
	return Problem{Kind: Missing, Digest: d, File: blobName(d), Detail: "the blob is not there"}
}

// foreign is what lies where only condafs puts anything.
func foreign(name string) Problem {
	return Problem{Kind: Foreign, File: name, Detail: "condafs puts no such file there"}
}

// damagedIndex is damage to the database, of which a new one has to be made.
func damagedIndex(file string, err error) Problem {
	return Problem{Kind: Index, File: file, Detail: err.Error() + "; " + hintRebuild}
}

// VerifyReport tells what was looked at and what is wrong.
type VerifyReport struct {
	Blobs    int64     `json:"blobs"`
	Bytes    int64     `json:"bytes"`
	Hashed   int64     `json:"hashed"` // blobs
	Problems []Problem `json:"problems"`
}

// Verify compares the store with what head and the sessions say it should hold, and
// names every entry of head that is affected by what is wrong. Damage is a finding,
// not an error.
// progress, if not nil, is told how many bytes were looked at and about how many
// there are; it is called from several goroutines, one at a time.
func (s *Store) Verify(ctx context.Context, o VerifyOptions, progress func(done, total int64)) (VerifyReport, error) {
	ctx, cancel := s.untilClose(ctx)
	defer cancel()
	states := s.pinLive()
	defer func() {
		for _, p := range states {
			p.Release()
		}
	}()
	v := &verification{store: s, options: o, progress: progress, pool: hashing.NewPool(0), readFile: os.ReadFile}
	for _, p := range states {
		v.states = append(v.states, p.Seq())
	}
	v.head = v.states[len(v.states)-1]
	err := v.run(ctx)
	if err != nil && ctx.Err() != nil {
		err = fault.New("verify", s.dir, fault.Canceled, context.Cause(ctx))
	}
	return v.report, err
}

type verification struct {
	store    *Store
	options  VerifyOptions
	states   []Seq // what must be whole, head last
	head     Seq
	progress func(done, total int64)
	pool     *hashing.Pool
	expected map[hashing.Digest]int64 // sizes of the states' blobs that were not found yet
	badTrees map[hashing.Digest]string

	headTrees map[hashing.Digest]struct{}
	readFile  func(name string) ([]byte, error) // of the journal and beside it

	mu     sync.Mutex // guards report
	report VerifyReport
}

func (v *verification) run(ctx context.Context) error {
	if err := v.checkIndex(ctx); err != nil {
		return err
	}
	if err := v.expect(ctx); err != nil {
		return err
	}
	if err := v.checkJournal(ctx); err != nil {
		return err
	}
	if err := v.compare(ctx); err != nil {
		return err
	}
	for d := range v.expected {
		v.add(missing(d))
	}
	for d, why := range v.badTrees {
		v.add(Problem{Kind: BadTree, Digest: d, Detail: why})
	}
	if err := v.blame(ctx); err != nil {
		return err
	}
	v.report.Problems = slices.DeleteFunc(v.report.Problems, func(p Problem) bool {
		// A repair has given it up, and head has done without it since. Sessions from
		// before know by the error.
		_, given := v.store.givenUp.Load(p.Digest)
		return given && p.Kind == Missing && len(p.Paths) == 0
	})
	slices.SortFunc(v.report.Problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.File, b.File), slices.Compare(a.Digest[:], b.Digest[:]))
	})
	return nil
}

// expect collects what the states refer to.
func (v *verification) expect(ctx context.Context) error {
	v.expected = make(map[hashing.Digest]int64)
	v.badTrees = make(map[hashing.Digest]string)
	v.headTrees = make(map[hashing.Digest]struct{})
	trees := make(map[hashing.Digest]struct{})
	collect := func(trees map[hashing.Digest]struct{}) func(string, *Entry) error {
		return func(_ string, e *Entry) error {
			switch e.Kind {
			case KindFile:
				v.expected[e.Digest] = e.Size
			case KindTree:
				trees[e.Digest] = struct{}{}
			}
			return nil
		}
	}
	err := v.store.eachVersion(ctx, v.states, collect(trees))
	if err == nil {
		err = v.store.eachVersion(ctx, []Seq{v.head}, collect(v.headTrees))
	}
	if fault.Is(err, fault.Corrupt) {
		v.add(damagedIndex(dbName, err))
		return nil
	}
	if err != nil {
		return err
	}
	for d := range trees {
		if err := ctx.Err(); err != nil {
			return err
		}
		t, err := v.store.loadTree(d)
		if fault.Is(err, fault.Corrupt) {
			v.badTrees[d] = err.Error()
			continue
		}
		if err != nil {
			return err
		}
		for e := range t.files() {
			v.expected[e.Digest] = e.Size
		}
	}
	return nil
}

// hashBatch is how many blobs are collected before they are hashed in parallel.
const hashBatch = 256

// compare looks at every file in objects/.
func (v *verification) compare(ctx context.Context) error {
	var todo []objectFile
	err := v.store.eachObject(ctx, func(f objectFile) error {
		if f.foreign {
			v.add(foreign(f.name))
			return nil
		}
		size, wanted := v.expected[f.digest]
		delete(v.expected, f.digest)
		if wanted && f.info.Size() != size {
			v.looked(f)
			v.add(Problem{Kind: Size, Digest: f.digest, File: f.name, Detail: fmt.Sprintf("it has %d bytes, not %d", f.info.Size(), size)})
			return nil
		}
		if !v.options.Full && v.store.untouched(filepath.Join(v.store.dir, f.name), f.digest, f.info) || !wanted && v.store.suspect(f.info) {
			// Garbage that a crash of the machine may have damaged is no problem: it is
			// hashed before anything relies on it.
			v.looked(f)
			return nil
		}
		if todo = append(todo, f); len(todo) < hashBatch {
			return nil
		}
		err := v.hash(ctx, todo)
		todo = todo[:0]
		return err
	})
	if err != nil {
		return err
	}
	return v.hash(ctx, todo)
}

func (v *verification) hash(ctx context.Context, files []objectFile) error {
	return v.pool.Each(ctx, len(files), func(_ context.Context, i int) error {
		f := files[i]
		good, err := v.store.rehash(filepath.Join(v.store.dir, f.name), f.digest)
		switch {
		case errors.Is(err, os.ErrNotExist):
			return nil // garbage, collected meanwhile
		case fault.Is(err, fault.IO):
			// A device that cannot read a block: a finding, and the scan goes on.
			v.add(Problem{Kind: Content, Digest: f.digest, File: f.name, Detail: err.Error()})
		case err != nil:
			return fault.New("verify blob", f.name, fault.Other, err)
		case !good:
			v.add(Problem{Kind: Content, Digest: f.digest, File: f.name, Detail: "its bytes are not what its name says"})
		}
		v.looked(f)
		v.mu.Lock()
		v.report.Hashed++
		v.mu.Unlock()
		return nil
	})
}

func (v *verification) add(p Problem) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.report.Problems = append(v.report.Problems, p)
}

func (v *verification) looked(f objectFile) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.report.Blobs++
	v.report.Bytes += f.info.Size()
	if v.progress != nil {
		v.progress(v.report.Bytes, max(v.report.Bytes, v.store.bytes.Load()))
	}
}

// blame finds the entries of head that problems affect.
func (v *verification) blame(ctx context.Context) error {
	byDigest := make(map[hashing.Digest]*Problem)
	for i := range v.report.Problems {
		if p := &v.report.Problems[i]; !p.Digest.IsZero() && p.Kind != Journal {
			byDigest[p.Digest] = p
		}
	}
	if len(byDigest) == 0 {
		return nil
	}
	type packaged struct {
		path string
		tree hashing.Digest
	}
	var packages []packaged
	err := v.store.eachVersion(ctx, []Seq{v.head}, func(path string, e *Entry) error {
		if p := byDigest[e.Digest]; p != nil {
			p.Paths = append(p.Paths, path)
		}
		if e.Kind == KindTree {
			packages = append(packages, packaged{path, e.Digest})
		}
		return nil
	})
	if fault.Is(err, fault.Corrupt) {
		return nil // told by checkIndex
	}
	if err != nil {
		return err
	}
	for _, pkg := range packages {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, bad := v.badTrees[pkg.tree]; bad {
			continue
		}
		t, err := v.store.loadTree(pkg.tree)
		if err != nil {
			return err
		}
		for path, e := range t.All() {
			if e.Kind != KindFile {
				continue
			}
			if p := byDigest[e.Digest]; p != nil {
				p.Paths = append(p.Paths, pkg.path+"/"+path)
			}
		}
	}
	return nil
}
