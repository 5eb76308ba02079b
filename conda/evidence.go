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
	// Sums hashes a regular file; it must compute SHA-256 too. [VerifyPackage]
	// calls it once for each file, from several goroutines.
	Sums func() (hashing.Sums, error)
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
}

// ArchiveEvidence is an archive that lies beside the extracted package.
type ArchiveEvidence struct {
	R    io.ReaderAt
	Size int64 // bytes
	Fn   string
	Sums hashing.Sums // with SHA-256 and MD5, see [Record.Fits]
}
