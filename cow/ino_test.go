package cow

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// A new file whose native inode number something else shows still, gets another, and keeps it.
func TestNumberThatWasLent(t *testing.T) {
	r := newRig(t)
	for _, typ := range []uint32{unix.S_IFREG, unix.S_IFDIR} {
		name := map[uint32]string{unix.S_IFREG: "file", unix.S_IFDIR: "dir"}[typ]
		make := func(c *made) {
			t.Helper()
			if typ == unix.S_IFDIR {
				check(t, unix.Mkdirat(r.v.workfd, name, 0o700))
				check(t, c.finishName(r.v.workfd, name, typ, 0o755))
				return
			}
			fd, err := openat(r.v.workfd, name, unix.O_CREAT|unix.O_RDWR, 0o600)
			check(t, err)
			defer unix.Close(fd)
			check(t, c.finish(fd, typ, 0o644))
		}
		first := made{v: r.v}
		make(&first)
		if first.ino() != first.st.Ino {
			t.Errorf("%s: a number that nobody shows was changed", name)
		}
		r.v.lendIno(first.st.Ino)
		again := made{v: r.v}
		if typ == unix.S_IFDIR {
			check(t, again.finishName(r.v.workfd, name, typ, 0o755))
		} else {
			fd, err := openat(r.v.workfd, name, unix.O_RDWR, 0)
			check(t, err)
			check(t, again.finish(fd, typ, 0o644))
			check(t, unix.Close(fd))
		}
		kept, err := readMark(r.v.workfd, name)
		check(t, err)
		if again.st.Ino != first.st.Ino || again.ino() == first.ino() || again.ino()&lowerIno == 0 || kept.ino != again.ino() {
			t.Errorf("%s: %d was lent; the file shows %d and keeps %d", name, first.ino(), again.ino(), kept.ino)
		}
	}
}

// What was sealed while somebody knows it lends its number.
func TestSealedNodeLendsItsNumber(t *testing.T) {
	r := newRig(t)
	check(t, r.mkdir("pkgs/new-1-0", 0o755))
	check(t, r.create("pkgs/new-1-0/file", "content", 0o644))
	n, err := r.node("pkgs/new-1-0/file")
	check(t, err)
	before := n.ino
	check(t, r.seal("pkgs/new-1-0"))
	if _, lent := r.v.lent[before]; !lent || n.ino != before {
		t.Errorf("it shows %d, and %v are lent", n.ino, r.v.lent)
	}
	r.v.Forget(n, 1)
}

// The names of a symbolic link that has been copied up show one number, whichever of
// their directories has been forgotten meanwhile.
func TestNamesOfACopiedUpLinkShowOneNumber(t *testing.T) {
	r := newRig(t)
	dir, err := r.node("pkgs")
	check(t, err)
	check(t, r.link("pkgs/a-1-0/lib/libz.so", "pkgs/new"))
	first, err := r.stat("pkgs/a-1-0/lib/libz.so")
	check(t, err)
	second, err := r.stat("pkgs/new")
	check(t, err)
	list, err := r.v.ReadDir(dir)
	check(t, err)
	i := slices.IndexFunc(list, func(e Dirent) bool { return e.Name == "new" })
	if first.Ino != second.Ino || i < 0 || list[i].Ino != first.Ino {
		t.Errorf("the names show %d and %d, the listing %v", first.Ino, second.Ino, list)
	}
	r.v.Forget(dir, 1)
}
