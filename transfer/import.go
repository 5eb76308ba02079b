package transfer

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"

	"condafs/conda"
	"condafs/fault"
	"condafs/hashing"
	"condafs/index"
	"condafs/internal/failpoint"
)

// ImportOptions say what to import for whom.
type ImportOptions struct {
	// Dir is a directory of packages. Nothing in it is changed.
	Dir string
	// UID owns what is imported. Packages that are not verified are only theirs.
	UID      uint32
	Spaces   Spaces
	Limits   conda.Limits
	Progress func(Progress) // may be nil; called from several goroutines
}

// ImportReport says what an import did.
type ImportReport struct {
	Imported []Done
	Present  int    // units that the store had already
	Rejected []Note // what did not hold, and why
	Skipped  []Note // what is no package, and why
	Bytes    int64  // of the imported
}

// maxFiles bounds how much of a directory is listed before evidence bounds it better.
const maxFiles = 500_000

// Import takes the packages of a directory into the store. A package that does not
// hold is in the report and no error; an error means that the import as a whole
// could not go on. What was imported before stays.
func Import(ctx context.Context, store *index.Store, o ImportOptions) (*ImportReport, error) {
	root, err := os.OpenRoot(o.Dir)
	if err != nil {
		return nil, fault.New("import", o.Dir, fault.Other, err)
	}
	defer root.Close() //nolint:errcheck // read only
	groups, lists, skipped, err := scan(root)
	if err != nil {
		return nil, err
	}
	if len(groups) == 0 {
		return nil, fault.New("import", o.Dir, fault.Usage, errors.New("no packages in it")).
			WithHint("give a directory like ~/miniconda3/pkgs")
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	im := &importer{
		ctx: ctx, store: store, o: o, root: root, cancel: cancel,
		putter: putter{store: store}, spaces: o.Spaces.both(),
		head: store.PinHead(), todo: make(chan *group), ready: make(chan *ready, 64),
		report: ImportReport{Skipped: skipped}, total: int64(len(groups)),
	}
	defer im.head.Release()
	im.run(groups)
	if err := context.Cause(ctx); err != nil {
		if isStoreError(err) {
			return nil, err
		}
		return nil, fault.New("import", o.Dir, fault.Canceled, err).
			WithHint("run it again to go on: what is imported stays")
	}
	failpoint.Hit(failpoint.ImportLists, store.Dir())
	if err := im.mergeLists(lists); err != nil {
		return nil, err
	}
	return &im.report, nil
}

// importer is one import under way.
type importer struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	store  *index.Store
	o      ImportOptions
	root   *os.Root // of o.Dir: whoever can write there can't lead us out
	putter putter
	spaces []string        // where to look for a name, the caller's own first
	head   *index.Snapshot // as it was at the start
	todo   chan *group
	ready  chan *ready
	total  int64

	mu     sync.Mutex // guards what follows
	report ImportReport
	done   int64
}

// ready is a unit that holds and waits to be published.
type ready struct {
	name  string
	kind  conda.UnitKind
	entry index.Entry
	tree  *index.Tree // of a package
	hold  *index.Hold // keeps its blobs until it is published
}

// run has as many groups in work as there are processors, and publishes beside.
func (im *importer) run(groups []*group) {
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for g := range im.todo {
				if im.ctx.Err() == nil {
					im.group(g)
				}
			}
		})
	}
	var publisher sync.WaitGroup
	publisher.Go(im.publish)
	for _, g := range groups {
		im.todo <- g
	}
	close(im.todo)
	workers.Wait()
	close(im.ready)
	publisher.Wait()
}

// group imports what there is of one package: the archives first, as they are
// evidence for the directory.
func (im *importer) group(g *group) {
	im.progress(0, g.name)
	rec := im.record(g)
	var beside *archive
	for _, fn := range g.archives {
		a, err := im.archive(fn, rec)
		if err != nil {
			im.reject(fn, err)
			continue
		}
		defer a.close(im)
		// A record names the archive that it is about; without one, any will do.
		if beside == nil || (rec != nil && rec.Fn == fn) {
			beside = a
		}
	}
	if g.dir {
		if err := im.directory(g.name, beside); err != nil {
			im.reject(g.name, err)
		}
	}
	im.progress(1, g.name)
}

// record reads what the extracted directory says about its archive.
func (im *importer) record(g *group) *conda.Record {
	if !g.dir {
		return nil
	}
	f, err := openQuick(im.root, g.name+"/"+conda.CompletionMarker)
	if err != nil {
		return nil // told when the directory is checked
	}
	rec, err := conda.ParseRecord(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil
	}
	return rec
}

// archive is an archive that is in the store.
type archive struct {
	fn     string
	digest hashing.Digest
	f      *os.File // the store's; nil until it is needed
	sums   hashing.Sums
	hold   *index.Hold
}

func (a *archive) close(im *importer) {
	if a.f != nil {
		if err := a.f.Close(); err != nil {
			im.cancel(inStore(fault.New("close", a.fn, fault.Other, err)))
		}
	}
	a.hold.Release()
}

// load opens the store's copy, and hashes it unless that was done when it was made.
func (a *archive) load(store *index.Store) (err error) {
	if a.f == nil {
		if a.f, err = store.OpenBlob(a.digest); err != nil {
			return inStore(err)
		}
	}
	if a.sums.Has == 0 {
		a.sums, err = hashing.File(a.f, hashing.SHA256|hashing.MD5)
	}
	return inStore(err)
}

// archive imports one archive and returns it, to be closed, as evidence.
func (im *importer) archive(fn string, rec *conda.Record) (*archive, error) {
	src, err := openQuick(im.root, fn)
	if err != nil {
		return nil, err
	}
	defer src.Close() //nolint:errcheck // read only
	fi, err := src.Stat()
	if err != nil {
		return nil, err
	}
	have, present, err := find(im.head.Get, im.spaces, fn)
	if err != nil {
		return nil, inStore(err)
	}
	a := &archive{fn: fn, hold: im.store.NewHold()}
	if present && have.Kind == index.KindFile && have.Size == fi.Size() && have.Mtime == fi.ModTime().UnixNano() {
		a.digest = have.Digest
		a.hold.Blob(a.digest)
		im.present()
		return a, nil
	}
	a.sums, err = takeFile(src, func(f *os.File) (hashing.Sums, error) {
		sums, err := im.putter.put(a.hold, f, hashing.SHA256|hashing.MD5)
		failpoint.Hit(failpoint.ImportPut, im.store.Dir())
		return sums, err
	})
	a.digest = a.sums.Blake3
	trust := conda.TrustOpaque
	if err == nil {
		err = a.load(im.store)
	}
	if err == nil {
		trust, err = im.judge(a, rec)
	}
	if err != nil {
		a.close(im)
		return nil, err
	}
	// Published by a hold of its own: this one goes when the directory is done.
	hold := im.store.NewHold()
	hold.Blob(a.digest)
	im.ready <- &ready{name: fn, kind: conda.Archive, hold: hold, entry: index.Entry{
		Kind: index.KindFile, Trust: uint8(trust), Mode: conda.NormalMode(conda.RegularFile, uint32(fi.Mode().Perm())), Owner: im.o.UID,
		Mtime: fi.ModTime().UnixNano(), Size: a.sums.Size, Digest: a.digest, SHA256: hex.EncodeToString(a.sums.SHA256[:]),
	}}
	return a, nil
}

// judge finds out how far an archive can be trusted: by the hashes that the record
// beside it says, or else by its structure. One that is sound and does not fit its
// record shows that the record lies, which is the directory's fault.
func (im *importer) judge(a *archive, rec *conda.Record) (conda.Trust, error) {
	misfit := ""
	if rec != nil && rec.Fn == a.fn {
		fit, why := rec.Fits(a.sums)
		if fit == conda.FitYes {
			return conda.TrustVerified, nil
		}
		if fit == conda.FitNo {
			misfit = why
		}
	}
	if _, err := conda.CheckArchive(im.ctx, a.f, a.sums.Size, a.fn, im.o.Limits); err != nil {
		if misfit != "" && fault.Is(err, fault.Corrupt) {
			err = fault.New("check archive", a.fn, fault.Corrupt, errors.New(misfit))
		}
		return 0, err
	}
	return conda.TrustConsistent, nil
}

// directory imports an extracted package.
func (im *importer) directory(name string, beside *archive) error {
	src, err := openSource(im.root, name, maxFiles)
	if err != nil {
		return err
	}
	defer src.Close() //nolint:errcheck // read only
	have, ok, err := find(im.head.Get, im.spaces, name)
	if err != nil {
		return inStore(err)
	}
	if ok && have.Kind == index.KindTree {
		t, err := im.store.Tree(have.Digest)
		if err != nil {
			return inStore(err)
		}
		if src.matches(t) {
			im.present()
			return nil
		}
	}
	if src.byPath[conda.CompletionMarker] == nil {
		return fault.New("check package", name, fault.Corrupt, fmt.Errorf("no %s: it was never completed", conda.CompletionMarker))
	}
	hold := im.store.NewHold()
	src.put = func(f *os.File) (hashing.Sums, error) { return im.putter.put(hold, f, hashing.SHA256) }
	src.putText = func(b []byte) (hashing.Sums, error) {
		sums, err := im.store.PutBlob(hold, bytes.NewReader(b), 0)
		return sums, inStore(err)
	}
	src.open = im.store.OpenBlob
	entry, tree, err := im.verify(name, src, beside)
	if err != nil {
		hold.Release()
		return err
	}
	im.ready <- &ready{name: name, kind: conda.Package, entry: entry, tree: tree, hold: hold}
	return nil
}

func (im *importer) verify(name string, src *source, beside *archive) (index.Entry, *index.Tree, error) {
	var evidence *conda.ArchiveEvidence
	if beside != nil {
		if err := beside.load(im.store); err != nil {
			return index.Entry{}, nil, err
		}
		evidence = &conda.ArchiveEvidence{R: beside.f, Size: beside.sums.Size, Fn: beside.fn, Sums: beside.sums}
	}
	v, err := conda.VerifyPackage(im.ctx, name, src, evidence, im.o.Limits)
	if err != nil {
		return index.Entry{}, nil, err
	}
	if beside != nil && v.Record != nil && v.Record.Fn == beside.fn {
		if fit, why := v.Record.Fits(beside.sums); fit == conda.FitNo {
			return index.Entry{}, nil, fault.New("check package", name, fault.Corrupt, errors.New(why))
		}
	}
	t, err := src.tree(&v)
	if err != nil {
		return index.Entry{}, nil, err
	}
	root := t.At(0)
	e := index.Entry{
		Kind: index.KindTree, Trust: uint8(v.Trust), Mode: root.Mode, Owner: im.o.UID, Mtime: root.Mtime,
		Size: t.Bytes(), Digest: t.Digest(), Content: t.ContentDigest(),
	}
	if v.Record != nil {
		e.SHA256 = v.Record.SHA256
	}
	return e, t, nil
}

// reject notes a package that doesn't hold. A fault of the store, or the caller's
// wish, ends the import instead.
func (im *importer) reject(name string, err error) {
	if isStoreError(err) {
		im.cancel(err)
		return
	}
	if im.ctx.Err() != nil {
		return
	}
	im.note(name, reason(name, err))
}

// reason leaves out what the report's first column says already.
func reason(name string, err error) string {
	if f, ok := errors.AsType[*fault.Error](err); ok && error(f) == err && f.Err != nil && (f.Name == "" || f.Name == name) {
		return f.Err.Error()
	}
	return err.Error()
}

func (im *importer) note(name, why string) {
	im.mu.Lock()
	defer im.mu.Unlock()
	im.report.Rejected = append(im.report.Rejected, Note{name, why})
}

func (im *importer) present() {
	im.mu.Lock()
	defer im.mu.Unlock()
	im.report.Present++
}

func (im *importer) progress(n int64, item string) {
	im.mu.Lock()
	im.done += n
	p := Progress{Phase: "importing", Done: im.done, Total: im.total, Unit: "packages", Item: item}
	im.mu.Unlock()
	if im.o.Progress != nil {
		im.o.Progress(p)
	}
}
