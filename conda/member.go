package conda

import (
	"fmt"
	"path"
	"strings"
	"time"
	"unicode/utf8"
)

// MemberType is what a member of an archive is.
type MemberType uint8

// The types that a package may hold. Devices, FIFOs and sockets are refused.
const (
	MemberFile MemberType = iota
	MemberDir
	MemberSymlink
	MemberHardlink // another name of an earlier member
)

// Member is one entry of an archive.
type Member struct {
	Path  string // relative to the package, cleaned
	Type  MemberType
	Mode  uint32 // permission bits, with set-id and sticky bits
	Size  int64  // bytes, of a file
	Mtime time.Time
	Link  string // symlink: its target; hard link: the earlier member's path
}

// layout is the tree that an archive or directory spells out entry by entry. It
// refuses what no file system could hold or what leads out of the package.
type layout struct {
	types map[string]MemberType
	links []symlink
	most  int64 // entries that may be, with the directories that they imply
	bytes int64 // of all paths and targets that may yet come
}

type symlink struct{ path, target string }

func newLayout(lim Limits) *layout {
	return &layout{types: make(map[string]MemberType), most: lim.MaxFiles, bytes: lim.MaxFiles * pathBytes}
}

// add takes one entry, whose path is clean. A directory may come again.
func (l *layout) add(m Member) error {
	if depth := strings.Count(m.Path, "/"); depth > maxDepth {
		return fmt.Errorf("%.80q… lies %d directories deep, %d are possible", m.Path, depth, maxDepth)
	}
	if err := l.addParents(m.Path); err != nil {
		return err
	}
	if old, ok := l.types[m.Path]; ok {
		if old == MemberDir && m.Type == MemberDir {
			return nil
		}
		return fmt.Errorf("%q comes twice", m.Path)
	}
	switch m.Type {
	case MemberSymlink:
		if err := checkTarget(m.Link); err != nil {
			return fmt.Errorf("symlink %q: %w", m.Path, err)
		}
		l.bytes -= int64(len(m.Link))
		l.links = append(l.links, symlink{m.Path, m.Link})
	case MemberHardlink:
		t, ok := l.types[m.Link]
		if !ok || t != MemberFile && t != MemberHardlink {
			return fmt.Errorf("hard link %q: %q is no earlier file of the package", m.Path, m.Link)
		}
	}
	return l.set(m.Path, m.Type)
}

// set notes a path, within bounds: a small archive can name very many, very long ones.
func (l *layout) set(p string, t MemberType) error {
	l.types[p] = t
	l.bytes -= int64(len(p))
	if int64(len(l.types)) > l.most || l.bytes < 0 {
		return fmt.Errorf("more than %d files and directories, or %d bytes of names", l.most, l.most*pathBytes)
	}
	return nil
}

// addParents makes the directories above p. Nothing lies below a symlink: that
// would be written to wherever the link leads.
func (l *layout) addParents(p string) error {
	for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
		t, ok := l.types[dir]
		if ok && t == MemberDir {
			return nil
		}
		if ok {
			return fmt.Errorf("%q lies below %q, which is no directory", p, dir)
		}
		if err := l.set(dir, MemberDir); err != nil {
			return err
		}
	}
	return nil
}

// checkLinks refuses symlinks that lead out of the package. It is to be called
// when all entries are known. Targets that do not exist are fine: other
// packages may bring them.
func (l *layout) checkLinks() error {
	for _, s := range l.links {
		if err := l.checkLink(s); err != nil {
			return fmt.Errorf("symlink %q: %w", s.path, err)
		}
	}
	return nil
}

// checkLink follows a target by its names. A ".." after another symlink is
// refused, since only the file system knows where that would lead.
func (l *layout) checkLink(s symlink) error {
	at := path.Dir(s.path)
	for name := range strings.SplitSeq(s.target, "/") {
		switch name {
		case "", ".":
			continue
		case "..":
			if at == "." {
				return fmt.Errorf("%q leads out of the package", s.target)
			}
			if l.types[at] == MemberSymlink {
				return fmt.Errorf("%q goes up from another symlink", s.target)
			}
			at = path.Dir(at)
		default:
			at = path.Join(at, name)
		}
	}
	return nil
}

func checkTarget(target string) error {
	switch {
	case target == "":
		return fmt.Errorf("no target")
	case len(target) >= maxPath:
		return fmt.Errorf("target of %d bytes, %d are possible", len(target), maxPath-1)
	case strings.IndexByte(target, 0) >= 0:
		return fmt.Errorf("target %q holds a NUL byte", target)
	case !utf8.ValidString(target):
		return fmt.Errorf("target %q is not UTF-8", target)
	case target[0] == '/':
		return fmt.Errorf("target %q is absolute", target)
	}
	return nil
}
