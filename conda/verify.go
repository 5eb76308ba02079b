package conda

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sort"
	"strings"
	"sync"

	"condafs/fault"
	"condafs/hashing"
)

// hashers bounds the files that all verifications together read at a time.
var hashers = sync.OnceValue(func() *hashing.Pool { return hashing.NewPool(0) })

// VerifyPackage decides how far an extracted package can be trusted. dirName is
// the name of its directory; archive is nil when none lies beside it.
//
// A package is TrustVerified when its record carries the hash of the archive,
// the archive has that hash, and the tree is what the archive holds: the same
// paths, contents, link targets and owner's executable bits, beside the record
// itself and directories. It is TrustConsistent when it agrees with its own
// info/paths.json. An old package without that list needs the archive.
//
// Not compared are modification times, which clients clamp in different ways,
// and the other mode bits, which depend on the client and its umask: see
// [NormalMode].
//
// An error of kind fault.Corrupt says that the package must not be published;
// it names the file and why. Other kinds come from the FileSet or the archive's
// reader and say nothing about the package.
func VerifyPackage(ctx context.Context, dirName string, fsys FileSet, archive *ArchiveEvidence, lim Limits) (Verdict, error) {
	v := &verifier{ctx: ctx, name: dirName, fsys: fsys, lim: lim.withDefaults()}
	if err := v.list(); err != nil {
		return Verdict{}, err
	}
	if err := v.identify(); err != nil {
		return Verdict{}, err
	}
	if known, err := v.isKnown(archive); err != nil || known {
		return Verdict{Trust: TrustVerified, Record: v.record}, err
	}
	paths, err := v.readPaths()
	if err != nil {
		return Verdict{}, err
	}
	if err := v.hashAll(hashing.SHA256); err != nil {
		return Verdict{}, err
	}
	listErr := v.checkPaths(paths)
	if listErr != nil && !fault.Is(listErr, fault.Corrupt) {
		return Verdict{}, listErr
	}
	fit, why := FitNo, "its archive is not in the cache"
	if archive != nil {
		fit, why = v.record.Fits(archive.Sums)
	}
	switch {
	case fit != FitNo:
		// The archive decides, also where its own list of files is wrong.
		if listErr != nil {
			paths = nil
		}
		if err := v.compareArchive(archive, paths); err != nil {
			return Verdict{}, err
		}
	case listErr != nil:
		return Verdict{}, listErr
	}
	verdict := Verdict{Trust: TrustConsistent, Record: v.record, Why: why, Modes: v.modes}
	if fit == FitYes {
		verdict.Trust = TrustVerified
	}
	return verdict, nil
}

// verifier holds one package while it is verified.
type verifier struct {
	ctx    context.Context
	name   string
	fsys   FileSet
	lim    Limits
	files  map[string]*object
	order  []*object // the regular files, by path
	record *Record
	modes  map[string]uint32 // see Verdict.Modes
}

type object struct {
	path string
	FileInfo
	sums hashing.Sums
	seen bool // by the archive
}

func (v *verifier) corrupt(format string, args ...any) error {
	return corrupt("verify package", v.name, format, args...)
}

// list takes in the tree and refuses what could not be unpacked elsewhere.
func (v *verifier) list() error {
	v.files = make(map[string]*object)
	tree := newLayout(v.lim)
	var total int64
	for p, info := range v.fsys.Entries() {
		clean, err := cleanMember(p)
		if err != nil {
			return v.corrupt("%w", err)
		}
		m := Member{Path: clean, Link: info.Link}
		switch info.Kind {
		case RegularFile:
			m.Type = MemberFile
			total += info.Size
		case DirectoryFile:
			m.Type = MemberDir
		case SymlinkFile:
			m.Type = MemberSymlink
		default:
			return v.corrupt("%q is no file, directory or symlink", p)
		}
		if err := tree.add(m); err != nil {
			return v.corrupt("%w", err)
		}
		if int64(len(v.files)) >= v.lim.MaxFiles || total > v.lim.MaxBytes {
			return v.corrupt("more than %d files or %d bytes", v.lim.MaxFiles, v.lim.MaxBytes)
		}
		o := &object{path: clean, FileInfo: info}
		v.files[clean] = o
		if info.Kind == RegularFile {
			v.order = append(v.order, o)
		}
	}
	if err := tree.checkLinks(); err != nil {
		return v.corrupt("%w", err)
	}
	sort.Slice(v.order, func(i, j int) bool { return v.order[i].path < v.order[j].path })
	return nil
}

// identify reads the record and the index, which must agree with each other and
// with the directory's name.
func (v *verifier) identify() error {
	index, err := v.parse(IndexPath, ParseIndex)
	if err != nil {
		return err
	}
	if index == nil {
		return v.corrupt("%s is missing", IndexPath)
	}
	if !sameDist(cutOrigin(v.name), index.Dist()) {
		return v.corrupt("%s is of %s", IndexPath, index.Dist())
	}
	v.record, err = v.parse(CompletionMarker, ParseRecord)
	if err != nil {
		return err
	}
	if v.record == nil {
		v.record = index // rattler writes no record
	}
	if !sameDist(v.record.Dist(), index.Dist()) {
		return v.corrupt("%s is of %s", CompletionMarker, v.record.Dist())
	}
	return nil
}

// sameDist compares names of packages. Clients fold the name's case.
func sameDist(a, b string) bool { return strings.EqualFold(a, b) }

// parse reads one metadata file; nil when there is none.
func (v *verifier) parse(p string, parse func(io.Reader) (*Record, error)) (*Record, error) {
	b, err := v.read(p, maxRecord)
	if b == nil || err != nil {
		return nil, err
	}
	rec, err := parse(bytes.NewReader(b))
	if err != nil {
		return nil, v.corrupt("%w", err)
	}
	return rec, nil
}

// read returns the content of a metadata file; nil when there is none.
func (v *verifier) read(p string, limit int64) ([]byte, error) {
	o := v.files[p]
	if o == nil {
		return nil, nil
	}
	if o.Kind != RegularFile {
		return nil, v.corrupt("%s is no regular file", p)
	}
	r, err := v.fsys.Open(p)
	if err != nil {
		return nil, v.readFailure(p, err)
	}
	b, err := readBounded(p, r, limit)
	if cerr := r.Close(); err == nil && cerr != nil {
		err = v.readFailure(p, cerr)
	}
	if b == nil && err == nil {
		b = []byte{}
	}
	return b, err
}

// readFailure is for errors of the FileSet: they are not about the content.
func (v *verifier) readFailure(p string, err error) error {
	return fault.New("read", v.name+"/"+p, fault.KindOf(err), err)
}

func (v *verifier) readPaths() (*PathsJSON, error) {
	b, err := v.read(PathsPath, maxPathsJSON)
	if b == nil || err != nil {
		return nil, err
	}
	paths, err := ParsePaths(bytes.NewReader(b))
	if err != nil {
		return nil, v.corrupt("%w", err)
	}
	return paths, nil
}

// isKnown reports whether the tree is known to be what the archive holds.
func (v *verifier) isKnown(a *ArchiveEvidence) (bool, error) {
	if a == nil || a.Unpacked == nil {
		return false, nil
	}
	if fit, _ := v.record.Fits(a.Sums); fit != FitYes {
		return false, nil
	}
	if err := v.hashAll(0); err != nil {
		return false, err
	}
	return a.Unpacked()
}

func (v *verifier) hashAll(extra hashing.Extra) error {
	return hashers().Each(v.ctx, len(v.order), func(_ context.Context, i int) error {
		o := v.order[i]
		var err error
		if o.sums, err = o.Sums(extra); err != nil {
			return v.readFailure(o.path, err)
		}
		if o.sums.Has&extra != extra {
			return fault.New("hash", v.name+"/"+o.path, fault.Usage, fmt.Errorf("SHA-256 was not computed"))
		}
		if o.sums.Size != o.Size {
			return fault.New("hash", v.name+"/"+o.path, fault.Busy, fmt.Errorf("the size changed from %d to %d bytes meanwhile", o.Size, o.sums.Size))
		}
		return nil
	})
}

// checkPaths compares the tree with the package's own list.
func (v *verifier) checkPaths(paths *PathsJSON) error {
	if paths == nil {
		return v.corrupt("there is neither %s nor a matching archive to compare with", PathsPath)
	}
	listed := make(map[string]bool, len(paths.Paths))
	for i := range paths.Paths {
		e := &paths.Paths[i]
		listed[e.Path] = true
		if err := v.checkPath(e); err != nil {
			return err
		}
	}
	for p, o := range v.files {
		if o.Kind != DirectoryFile && !listed[p] && !isInfo(p) {
			return v.corrupt("%q is not in %s", p, PathsPath)
		}
	}
	return nil
}

func (v *verifier) checkPath(e *PathEntry) error {
	o := v.files[e.Path]
	if o == nil {
		return v.corrupt("%q is missing", e.Path)
	}
	if e.Type == SoftLink && o.Kind == SymlinkFile || e.Type == Directory && o.Kind == DirectoryFile {
		return nil
	}
	// Some archives hold a copy where the list has a softlink. Its hash is that
	// of the content that the link led to, so a copy can be told.
	copied := e.Type == SoftLink && e.HasSHA256
	switch {
	case o.Kind != RegularFile || e.Type != HardLink && !copied:
		return v.corrupt("%q is no %s", e.Path, e.Type)
	case e.Size >= 0 && o.sums.Size != e.Size:
		return v.corrupt("%q has %d bytes instead of %d", e.Path, o.sums.Size, e.Size)
	case e.HasSHA256 && o.sums.SHA256 != e.SHA256:
		return v.corrupt("%q has SHA-256 %x instead of %x", e.Path, o.sums.SHA256, e.SHA256)
	}
	return nil
}

func isInfo(p string) bool { return strings.HasPrefix(p, "info/") }

// compareArchive checks that the tree is what the archive holds. Files that
// paths vouches for (nil: none) need not be hashed again.
func (v *verifier) compareArchive(a *ArchiveEvidence, paths *PathsJSON) error {
	proven := make(map[string]bool)
	if paths != nil {
		for i := range paths.Paths {
			if e := &paths.Paths[i]; e.Type == HardLink && e.HasSHA256 {
				proven[e.Path] = true
			}
		}
	}
	hasher := hashing.New(0)
	err := WalkArchive(v.ctx, a.R, a.Size, a.Fn, v.lim, func(m Member, r io.Reader) error {
		o := v.files[m.Path]
		if o == nil {
			return v.corrupt("%q is missing, %s has it", m.Path, a.Fn)
		}
		o.seen = true
		if err := v.compareMember(o, m, a.Fn); err != nil {
			return err
		}
		if m.Type != MemberFile || m.Path == CompletionMarker || proven[m.Path] && !isInfo(m.Path) {
			return nil
		}
		hasher.Reset()
		if _, err := io.Copy(hasher, r); err != nil {
			return readFailure("read archive", a.Fn, err)
		}
		if hasher.Sums().Blake3 != o.sums.Blake3 {
			return v.corrupt("%q differs from the one in %s", m.Path, a.Fn)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for p, o := range v.files {
		if !o.seen && o.Kind != DirectoryFile && p != CompletionMarker {
			return v.corrupt("%q is not in %s", p, a.Fn)
		}
	}
	return nil
}

// compareMember compares all but the content. The completion marker is the
// client's, whatever the archive has under that name.
func (v *verifier) compareMember(o *object, m Member, fn string) error {
	if m.Path == CompletionMarker {
		return nil
	}
	switch m.Type {
	case MemberDir:
		if o.Kind != DirectoryFile {
			return v.corrupt("%q is a directory in %s", m.Path, fn)
		}
	case MemberSymlink:
		if o.Kind != SymlinkFile || o.Link != m.Link {
			return v.corrupt("%q is a symlink to %q in %s", m.Path, m.Link, fn)
		}
	case MemberHardlink:
		first := v.files[m.Link]
		if o.Kind != RegularFile || first == nil || first.sums.Blake3 != o.sums.Blake3 {
			return v.corrupt("%q is the same as %q in %s", m.Path, m.Link, fn)
		}
		if mode, ok := v.modes[m.Link]; ok {
			v.modes[m.Path] = mode
		}
	case MemberFile:
		if o.Kind != RegularFile {
			return v.corrupt("%q is a regular file in %s", m.Path, fn)
		}
		if o.sums.Size != m.Size {
			return v.corrupt("%q has %d bytes instead of the %d in %s", m.Path, o.sums.Size, m.Size, fn)
		}
		if (o.Mode^m.Mode)&ownerExec != 0 {
			return v.corrupt("%q has mode %04o, in %s %04o", m.Path, o.Mode, fn, m.Mode)
		}
		// As clients unpack it under the usual umask; who has it can read it.
		if mode := m.Mode&^0o022&0o777 | 0o400; mode != NormalMode(RegularFile, o.Mode) {
			if v.modes == nil {
				v.modes = make(map[string]uint32)
			}
			v.modes[m.Path] = mode
		}
	}
	return nil
}

const (
	ownerWrite = 0o200
	ownerExec  = 0o100
)

// NormalMode returns the permission bits under which an object is published, if no
// archive says more. What clients leave behind depends on the archive, the client and
// the umask; only the owner's bits to write and to execute are the package's. So one that
// was extracted under umask 077 can be read by the others who share it.
func NormalMode(kind FileKind, mode uint32) uint32 {
	if kind == DirectoryFile {
		return 0o755
	}
	normal := 0o444 | mode&ownerWrite
	if mode&ownerExec != 0 {
		normal |= 0o111
	}
	return normal
}
