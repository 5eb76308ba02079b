package conda

import (
	"io"
	"iter"

	"condafs/hashing"
)

// FileKind is what an object in an extracted package is.
type FileKind uint8

const (
	RegularFile FileKind = iota
	DirectoryFile
	SymlinkFile
)

// FileInfo describes one object of a [FileSet].
type FileInfo struct {
	Kind FileKind
	Mode uint32 // permission bits
	Size int64  // bytes, of a regular file
	Link string // target, of a symlink
	// Sums hashes a regular file, by extra too. [VerifyPackage] calls it from
	// several goroutines, once for each file; where [ArchiveEvidence.Unpacked] is
	// asked, before that once with no extra, and that is all if the answer is yes.
	Sums func(extra hashing.Extra) (hashing.Sums, error)
}

// FileSet is an extracted package, wherever it lies. Paths are relative to the
// package. It must not change while it is verified.
type FileSet interface {
	// Entries yields all objects below the package, in any order.
	Entries() iter.Seq2[string, FileInfo]
	// Open opens a regular file. A missing one is fault.NotFound.
	Open(path string) (io.ReadCloser, error)
}

// Trust says how much is known about a package.
type Trust uint8

const (
	// TrustOpaque: nothing was checked.
	TrustOpaque Trust = iota
	// TrustConsistent: the tree agrees with its own list of files.
	TrustConsistent
	// TrustVerified: the tree is the content of an archive whose hash is the
	// one in the package's record.
	TrustVerified
)

// String returns the word used in logs and reports.
func (t Trust) String() string {
	switch t {
	case TrustConsistent:
		return "consistent"
	case TrustVerified:
		return "verified"
	}
	return "opaque"
}

// Verdict is the result of [VerifyPackage] for a package that may be published.
type Verdict struct {
	Trust  Trust
	Record *Record
	Why    string // why the trust is not higher; empty for Verified

	// Modes are the permission bits of those files, by path, that the archive says
	// other things of than [NormalMode] does.
	Modes map[string]uint32
}

// Mode returns the permission bits under which a regular file of the package is
// published, which the client shows with these.
func (v *Verdict) Mode(path string, shown uint32) uint32 {
	if m, ok := v.Modes[path]; ok {
		return m
	}
	return NormalMode(RegularFile, shown)
}

// ArchiveEvidence is an archive that lies beside the extracted package.
type ArchiveEvidence struct {
	R    io.ReaderAt
	Size int64 // bytes
	Fn   string
	Sums hashing.Sums // with SHA-256 and MD5, see [Record.Fits]

	// Unpacked, if not nil, tells whether the files, all of which have been hashed,
	// are known to be what an archive with these sums holds, as somebody has
	// compared just that before. Then this one is not unpacked again. It is asked
	// only if the record fits the archive.
	Unpacked func() (bool, error)
}
