package lossyfs

import "golang.org/x/sys/unix"

// Kind is what an operation does.
type Kind string

const (
	Lookup   Kind = "lookup"
	Open     Kind = "open"
	Read     Kind = "read"
	List     Kind = "list"
	Create   Kind = "create" // also mkdir, mknod, symlink and O_TMPFILE
	Write    Kind = "write"
	Truncate Kind = "truncate"
	Allocate Kind = "allocate"
	SetAttr  Kind = "setattr"
	SetXattr Kind = "setxattr" // or remove one
	Link     Kind = "link"
	Rename   Kind = "rename"
	Remove   Kind = "remove"
	Sync     Kind = "sync"
)

// Changes reports whether an operation of this kind changes or syncs anything.
func (k Kind) Changes() bool { return k != Lookup && k != Open && k != Read && k != List }

// Op is an operation that is about to be done.
type Op struct {
	N    int // counts all operations of the file system
	Kind Kind
	Path string // relative to the root
}

// Verdict is what becomes of it. The zero Verdict lets it be done.
type Verdict struct {
	Errno    unix.Errno // it fails
	Short    int        // a write writes no more than that many bytes
	PowerOff bool       // it and all that follow fail with EIO
}

// Inject has decide called before each operation; nil ends that. It is called under a
// lock: it must be quick, and must not call f.
func (f *FS) Inject(decide func(Op) Verdict) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.inject = decide
}

// Ops returns how many operations there were.
func (f *FS) Ops() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ops
}
