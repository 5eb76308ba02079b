package cow

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// What native attributes can't say stands in extended attributes.
const (
	// xattrMark holds the inode number that an object copied up goes on
	// showing, and the mode where its native one must differ.
	xattrMark = "user.condafs.attr"
	// xattrOrigin is set on a directory that came from below and was renamed,
	// and tells where what it is merged with is. See object.origin.
	xattrOrigin = "user.condafs.origin"
	// xattrOpaque is set on a directory that hides what is below it.
	xattrOpaque = "user.overlay.opaque"
	// xattrWhiteout is set on an empty file that stands for a whiteout where the
	// file system takes no such device. Its mark says so, too.
	xattrWhiteout = "user.overlay.whiteout"
)

// hiddenXattr reports whether clients must neither see nor set an attribute.
func hiddenXattr(name string) bool {
	return strings.HasPrefix(name, "user.condafs.") || strings.HasPrefix(name, "user.overlay.")
}

// mark is the content of xattrMark.
type mark struct {
	ino     uint64 // 0: the native one
	mode    uint32 // permission bits
	hasMode bool
	// whiteout says that this is none of the client's files but a whiteout.
	whiteout bool
}

func (m mark) encode() []byte {
	var s []string
	if m.ino != 0 {
		s = append(s, fmt.Sprintf("ino=%x", m.ino))
	}
	if m.hasMode {
		s = append(s, fmt.Sprintf("mode=%o", m.mode))
	}
	if m.whiteout {
		s = append(s, "whiteout")
	}
	return []byte(strings.Join(s, " "))
}

func decodeMark(b []byte) (m mark, err error) {
	for _, f := range strings.Fields(string(b)) {
		key, val, _ := strings.Cut(f, "=")
		switch key {
		case "ino":
			_, err = fmt.Sscanf(val, "%x", &m.ino)
		case "mode":
			m.hasMode = true
			_, err = fmt.Sscanf(val, "%o", &m.mode)
		case "whiteout":
			m.whiteout = true
		}
		if err != nil {
			return m, fmt.Errorf("%s %q: %w", xattrMark, b, err)
		}
	}
	return m, nil
}

// modeBits are the permission bits that a file can have here: set-user-id and
// set-group-id would let one user's package run as another.
const modeBits = 0o1777

// nativeMode is the mode that a native file gets: whoever the daemon runs as must
// be able to open it. A file whose mode differs from it has a mark.
func nativeMode(typ, mode uint32) uint32 {
	switch typ {
	case unix.S_IFREG:
		return mode&modeBits | 0o600
	case unix.S_IFDIR:
		return mode&modeBits | 0o700
	}
	return mode & modeBits
}

// withMode returns the mark for a file of this mode.
func (m mark) withMode(typ, mode uint32) mark {
	mode &= modeBits
	m.hasMode = nativeMode(typ, mode) != mode
	m.mode = 0
	if m.hasMode {
		m.mode = mode
	}
	return m
}

// markable reports whether files of a type can have a mark: the kernel forbids
// user xattrs on links and special files.
func markable(typ uint32) bool { return typ == unix.S_IFREG || typ == unix.S_IFDIR }

// setOpaque makes a native directory hide what is below it. On an overlayfs the
// usual xattr may be reserved for that file system itself.
func setOpaque(dirfd int, name string) error {
	path := procPath(dirfd, name)
	err := unix.Lsetxattr(path, xattrOpaque, []byte("y"), 0)
	if err == unix.EPERM || err == unix.EOPNOTSUPP {
		err = unix.Lsetxattr(path, xattrOrigin, []byte(noOrigin), 0)
	}
	return err
}

// getNative reads an extended attribute of a native name; nil if there is none.
func getNative(dirfd int, name, attr string) ([]byte, error) {
	var small [128]byte
	buf := small[:]
	path := procPath(dirfd, name)
	for {
		n, err := unix.Lgetxattr(path, attr, buf)
		switch err {
		case nil:
			return buf[:n], nil
		case unix.ENODATA, unix.EOPNOTSUPP:
			return nil, nil
		case unix.ERANGE:
			buf = make([]byte, 64<<10)
		default:
			return nil, err
		}
	}
}

// readMark reads the mark of a native name.
func readMark(dirfd int, name string) (mark, error) {
	b, err := getNative(dirfd, name, xattrMark)
	if err != nil || b == nil {
		return mark{}, err
	}
	return decodeMark(b)
}

// writeMark replaces old by m.
func writeMark(dirfd int, name string, old, m mark) error {
	switch {
	case m == old:
		return nil
	case m == mark{}:
		return unix.Lremovexattr(procPath(dirfd, name), xattrMark)
	}
	return unix.Lsetxattr(procPath(dirfd, name), xattrMark, m.encode(), 0)
}
