package cow

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"path"
	"slices"
	"strings"

	"condafs/conda"
	"condafs/fault"
	"condafs/hashing"
	"condafs/index"
)

// form is what a path looks like in the store.
type form struct {
	entry index.Entry
	tree  *index.Tree // of a package
}

// part is one path of a unit that has passed its checks.
type part struct {
	unit conda.Unit
	path string
	gen  uint64 // of the unit when it was read
	// shown is what the view goes on showing; public is what others see: modes
	// don't depend on the client's umask, and metadata tells no session's path.
	shown, public form
	// overlay holds the files that are to move, by their paths below path; nil
	// if nothing of it is in the overlay.
	overlay map[string]hashing.Digest
}

// acquire waits until another unit of the session may be checked.
func (s *Session) acquire(ctx context.Context) error {
	a := s.view.account
	turns := []chan struct{}{s.e.slots}
	if a != nil {
		turns = []chan struct{}{a.checks, s.e.slots}
	}
	for i, t := range turns {
		select {
		case t <- struct{}{}:
		case <-ctx.Done():
			if i > 0 {
				<-turns[0]
			}
			return fault.New("check unit", "", fault.Canceled, context.Cause(ctx))
		}
	}
	return nil
}

func (s *Session) yield() {
	<-s.e.slots
	if a := s.view.account; a != nil {
		<-a.checks
	}
}

// preparePackage checks the package in the directory root and, with it, the
// archive and metadata beside it. A package that is not complete is NotFound.
func (s *Session) preparePackage(ctx context.Context, root string) ([]*part, error) {
	if err := s.acquire(ctx); err != nil {
		return nil, err
	}
	defer s.yield()
	u := conda.Classify(root, true)
	c, err := s.read(root)
	if err != nil {
		return nil, err
	}
	if !c.isDir() {
		return nil, fault.New("check package", root, fault.Corrupt, errors.New("it is no directory"))
	}
	if u.Kind == conda.Package && c.find(conda.CompletionMarker) == nil {
		return nil, fault.New("check package", root, fault.NotFound, errors.New("it is not complete"))
	}
	archive, evidence, err := s.archiveFor(c)
	if err != nil {
		return nil, err
	}
	if archive != nil {
		defer archive.close()
	}
	if err := s.recall(c, evidence); err != nil {
		return nil, err
	}
	verdict, err := conda.VerifyPackage(ctx, path.Base(root), c, evidence, s.e.o.Limits)
	if err != nil {
		return nil, err
	}
	if err := s.refuteRecord(ctx, root, verdict.Record, evidence); err != nil {
		return nil, err
	}
	p, err := s.treePart(u, c, verdict)
	if err != nil {
		return nil, err
	}
	parts := []*part{p}
	if verdict.Trust == conda.TrustVerified {
		parts = append(parts, archive.part(s, conda.TrustVerified))
	}
	sidecars, err := s.prepareSidecars(u)
	return append(parts, sidecars...), err
}

// refuteRecord tells of a record that names the archive beside it with another hash,
// though that archive is sound: then it is the record that lies.
func (s *Session) refuteRecord(ctx context.Context, root string, rec *conda.Record, archive *conda.ArchiveEvidence) error {
	if rec == nil || archive == nil || rec.Fn != archive.Fn {
		return nil
	}
	fit, why := rec.Fits(archive.Sums)
	if fit != conda.FitNo {
		return nil
	}
	if _, err := conda.CheckArchive(ctx, archive.R, archive.Size, archive.Fn, s.e.o.Limits); err != nil {
		if fault.Is(err, fault.Corrupt) {
			return nil // the archive is what is wrong, and judged by itself
		}
		return err
	}
	return fault.New("check package", root, fault.Corrupt, fmt.Errorf("its record lies: %s", why))
}

// prepareSidecars reads rattler's metadata beside a package.
func (s *Session) prepareSidecars(u conda.Unit) ([]*part, error) {
	var parts []*part
	for _, p := range u.Sidecars {
		f, err := s.readFile(p, 0)
		if fault.Is(err, fault.NotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		f.close()
		if f.Size > 64 {
			return nil, fault.New("check package", p, fault.Corrupt, fmt.Errorf("%d bytes of metadata", f.Size))
		}
		parts = append(parts, f.part(s, conda.TrustOpaque))
	}
	return parts, nil
}

// content is a harvested directory as evidence is asked of it.
type content struct {
	path  string
	gen   uint64
	list  []HarvestEntry
	sums  []hashing.Sums // of list, where they were asked for
	byRel map[string]int
	known *index.Tree // the package that it was found to be: see recall
}

// read harvests a path that nobody writes to.
func (s *Session) read(p string) (*content, error) {
	if s.view.Writers(p) > 0 {
		return nil, fault.New("read unit", p, fault.Busy, errors.New("it is open for writing"))
	}
	h, err := s.view.Harvest(p)
	if err != nil {
		return nil, err
	}
	if len(h.Entries) == 0 || h.Entries[0].Path != "" {
		return nil, fault.New("read unit", p, fault.NotFound, nil)
	}
	c := &content{path: p, gen: h.Gen, list: h.Entries, sums: make([]hashing.Sums, len(h.Entries)), byRel: make(map[string]int, len(h.Entries))}
	for i := range h.Entries {
		c.byRel[h.Entries[i].Path] = i
	}
	return c, nil
}

func (c *content) isDir() bool { return c.list[0].Kind == index.KindDir }

func (c *content) find(rel string) *HarvestEntry {
	if i, ok := c.byRel[rel]; ok {
		return &c.list[i]
	}
	return nil
}

// special stands for FIFOs, sockets and the like, which no package may hold.
const special conda.FileKind = 255

// Entries implements conda.FileSet.
func (c *content) Entries() iter.Seq2[string, conda.FileInfo] {
	return func(yield func(string, conda.FileInfo) bool) {
		for i := range c.list[1:] {
			i++
			h := &c.list[i]
			info := conda.FileInfo{Kind: special, Mode: h.Mode, Size: h.Size, Link: h.Link, Sums: func(extra hashing.Extra) (hashing.Sums, error) { return c.hash(i, extra) }}
			switch h.Kind {
			case index.KindDir:
				info.Kind = conda.DirectoryFile
			case index.KindFile:
				info.Kind = conda.RegularFile
			case index.KindSymlink:
				info.Kind = conda.SymlinkFile
			}
			if !yield(h.Path, info) {
				return
			}
		}
	}
}

// Open implements conda.FileSet.
func (c *content) Open(rel string) (io.ReadCloser, error) {
	h := c.find(rel)
	if h == nil || h.Kind != index.KindFile {
		return nil, fault.New("open", c.path+"/"+rel, fault.NotFound, nil)
	}
	return h.Open()
}

func (c *content) hash(i int, extra hashing.Extra) (hashing.Sums, error) {
	if h := &c.list[i]; h.Lower && extra == 0 { // the store knows it by what is asked for
		c.sums[i] = hashing.Sums{Size: h.Size, Blake3: h.Digest}
		return c.sums[i], nil
	}
	f, err := c.list[i].Open()
	if err != nil {
		return hashing.Sums{}, err
	}
	sums, err := hashing.File(f, extra)
	if err := errors.Join(err, f.Close()); err != nil {
		return hashing.Sums{}, err
	}
	c.sums[i] = sums
	return sums, nil
}

// tree makes the tree of a directory whose files have been hashed, as the view shows
// it.
func (c *content) tree() (*index.Tree, error) {
	b := index.NewTreeBuilder(c.list[0].TreeEntry)
	for i := range c.list[1:] {
		i++
		if err := b.Add(c.list[i].Path, c.entry(i)); err != nil {
			return nil, err
		}
	}
	return b.Build()
}

// entry returns what is at i of the list, with the digest of what was read.
func (c *content) entry(i int) index.TreeEntry {
	e := c.list[i].TreeEntry
	if e.Kind == index.KindFile {
		e.Digest, e.Size = c.sums[i].Blake3, c.sums[i].Size
	}
	return e
}

// treePart makes the trees of a package that has passed its checks, and so has
// been hashed.
func (s *Session) treePart(u conda.Unit, c *content, v conda.Verdict) (*part, error) {
	p := &part{unit: u, path: u.Root, gen: c.gen, overlay: make(map[string]hashing.Digest)}
	shown, err := c.tree()
	if err != nil {
		return nil, err
	}
	root := c.list[0].TreeEntry
	root.Mode = conda.NormalMode(conda.DirectoryFile, root.Mode)
	b := index.NewTreeBuilder(root)
	inOverlay := !c.list[0].Lower
	for i, h := range c.list {
		if i == 0 {
			continue
		}
		e := c.entry(i)
		inOverlay = inOverlay || !h.Lower
		switch e.Kind {
		case index.KindDir:
			e.Mode = conda.NormalMode(conda.DirectoryFile, e.Mode)
		case index.KindFile:
			if !h.Lower {
				p.overlay[h.Path] = e.Digest
			}
			e.Mode = c.publicMode(h.Path, e.Mode, &v)
			if err := s.rewrite(u.Root+"/"+h.Path, &e, h.Open); err != nil {
				return nil, err
			}
		}
		if err := b.Add(h.Path, e); err != nil {
			return nil, err
		}
	}
	if !inOverlay {
		p.overlay = nil
	}
	public, err := b.Build()
	if err != nil {
		return nil, err
	}
	p.shown, p.public = s.treeForm(shown, v), s.treeForm(public, v)
	return p, nil
}

// publicMode returns what a file's mode is for others.
func (c *content) publicMode(path string, shown uint32, v *conda.Verdict) uint32 {
	if c.known != nil {
		if i, ok := c.known.Find(path); ok {
			return c.known.At(i).Mode
		}
	}
	return v.Mode(path, shown)
}

// treeForm returns what the store knows of a package with this tree and verdict.
func (s *Session) treeForm(t *index.Tree, v conda.Verdict) form {
	root := t.At(0)
	f := form{tree: t, entry: index.Entry{
		Kind: index.KindTree, Trust: uint8(v.Trust), Mode: root.Mode, Owner: s.uid, Mtime: root.Mtime,
		Size: t.Bytes(), Digest: t.Digest(), Content: t.ContentDigest(),
	}}
	if v.Record != nil {
		f.entry.SHA256 = v.Record.SHA256
	}
	return f
}

// maxText bounds metadata that is searched for what must not be published.
const maxText = 16 << 20

// rewrite takes the session's path, and credentials, out of a file that a client may
// have written them into, and changes e to the new content.
func (s *Session) rewrite(p string, e *index.TreeEntry, open opener) error {
	if e.Size > maxText || !conda.Rewritable(p) {
		return nil
	}
	b, err := readAll(open)
	if err != nil {
		return err
	}
	public := b
	if s.e.o.MountPoint != "" {
		public, _ = conda.RewriteSessionPaths(public, s.e.o.MountPoint, s.id)
	}
	if strings.HasSuffix(p, "/"+conda.CompletionMarker) {
		public, _ = conda.StripCredentials(public)
	}
	if bytes.Equal(public, b) {
		return nil
	}
	sums, err := s.e.store.PutBlob(s.hold, bytes.NewReader(public), 0)
	if err != nil {
		return err
	}
	e.Digest, e.Size = sums.Blake3, sums.Size
	return nil
}

// readAll reads a small file.
func readAll(open opener) ([]byte, error) {
	f, err := open()
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(f)
	return b, errors.Join(err, f.Close())
}

// archiveFor finds the archive of an extracted package in the view, to compare
// the two. Both results are nil if there is none, or it is being written.
func (s *Session) archiveFor(c *content) (*file, *conda.ArchiveEvidence, error) {
	for _, name := range archiveNames(c) {
		f, err := s.readFile(path.Dir(c.path)+"/"+name, archiveExtra)
		if fault.Is(err, fault.NotFound) || fault.Is(err, fault.Busy) {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		return f, &conda.ArchiveEvidence{R: f, Size: f.sums.Size, Fn: name, Sums: f.sums}, nil
	}
	return nil, nil, nil
}

// archiveNames returns the names that the package's archive may have, that in
// its record first.
func archiveNames(c *content) []string {
	names := conda.Archives(path.Base(c.path))
	if h := c.find(conda.CompletionMarker); h != nil && h.Kind == index.KindFile {
		if rec, err := readRecord(h.Open); err == nil && rec.Fn == names[1] {
			slices.Reverse(names)
		}
	}
	return names
}

func readRecord(open opener) (*conda.Record, error) {
	f, err := open()
	if err != nil {
		return nil, err
	}
	rec, err := conda.ParseRecord(f)
	return rec, errors.Join(err, f.Close())
}

// prepareArchive checks an archive whose extracted package isn't there to vouch
// for it: against the hashes that the view knows, or else by its structure.
func (s *Session) prepareArchive(ctx context.Context, u conda.Unit) (*part, error) {
	if err := s.acquire(ctx); err != nil {
		return nil, err
	}
	defer s.yield()
	f, err := s.readFile(u.Root, archiveExtra)
	if err != nil {
		return nil, err
	}
	defer f.close()
	fn := path.Base(u.Root)
	root, _ := packageRoot(u)
	misfit := ""
	if h, err := s.view.Harvest(root + "/" + conda.CompletionMarker); err == nil && len(h.Entries) == 1 && h.Entries[0].Kind == index.KindFile {
		if rec, err := readRecord(h.Entries[0].Open); err == nil && rec.Fn == fn {
			fit, why := rec.Fits(f.sums)
			switch fit {
			case conda.FitYes:
				return f.part(s, conda.TrustVerified), nil
			case conda.FitNo:
				misfit = why
			}
		}
	}
	known, err := s.knownArchive(u.Root, f.sums.Blake3)
	if err != nil {
		return nil, err
	}
	if known == conda.TrustVerified || s.provenByRepodata(u, fn, f.sums) {
		return f.part(s, conda.TrustVerified), nil
	}
	if known == conda.TrustConsistent {
		return f.part(s, known), nil
	}
	if _, err := conda.CheckArchive(ctx, f, f.sums.Size, fn, s.e.o.Limits); err != nil {
		if misfit != "" && fault.Is(err, fault.Corrupt) {
			err = fault.New("check archive", u.Root, fault.Corrupt, errors.New(misfit))
		}
		return nil, err
	}
	return f.part(s, conda.TrustConsistent), nil
}

// maxRepodata bounds how much repodata is searched for one archive, in bytes.
const maxRepodata = 512 << 20

// provenByRepodata looks the archive up in the repodata caches of the view. One
// that knows the name with another hash proves nothing: two channels may have
// files of one name.
func (s *Session) provenByRepodata(u conda.Unit, fn string, sums hashing.Sums) bool {
	dir, _, _ := strings.Cut(u.Root, "/")
	h, err := s.view.Harvest(dir + "/cache")
	if err != nil {
		return false
	}
	left := int64(maxRepodata)
	for _, c := range h.Entries {
		cu := conda.Classify(dir+"/cache/"+c.Path, false)
		if c.Kind != index.KindFile || cu.Kind != conda.Repodata || cu.Root != dir+"/cache/"+c.Path || c.Size > left {
			continue
		}
		left -= c.Size
		if rec, ok := lookup(c.Open, fn); ok {
			if fit, _ := rec.Fits(sums); fit == conda.FitYes {
				return true
			}
		}
	}
	return false
}

// lookup ignores what isn't readable as repodata: it is no evidence.
func lookup(open opener, fn string) (*conda.Record, bool) {
	f, err := open()
	if err != nil {
		return nil, false
	}
	defer f.Close() //nolint:errcheck // read only
	rec, ok, err := conda.LookupRepodata(f, fn)
	return rec, ok && err == nil
}
