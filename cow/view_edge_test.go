package cow

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"condafs/fault"
)

func TestHandles(t *testing.T) {
	r := newRig(t)
	check(t, r.create("pkgs/f", "0123456789", 0o644))
	h, err := r.openAt("pkgs/f", unix.O_RDWR)
	check(t, err)
	check(t, h.Allocate(0, 0, 20))
	if a, err := r.stat("pkgs/f"); err != nil || a.Size != 20 {
		t.Errorf("after fallocate: %+v, %v", a, err)
	}
	if off, err := h.Seek(3, unix.SEEK_DATA); off != 3 || err != nil {
		t.Errorf("data at %d, %v", off, err)
	}
	if off, err := h.Seek(0, unix.SEEK_HOLE); off < 10 || err != nil {
		t.Errorf("hole at %d, %v", off, err)
	}
	_, err = h.Seek(0, 0)
	want(t, "seek from the start", err, unix.EINVAL)
	check(t, h.Sync())
	if !h.Writable() || h.Immutable() || h.File() == nil {
		t.Error("it is a writable file of the overlay")
	}
	n, err := r.node("pkgs/f")
	check(t, err)
	if a, err := r.v.Setattr(n, h, SetAttr{Valid: SetSize, Size: 4}); err != nil || a.Size != 4 {
		t.Errorf("ftruncate: %+v, %v", a, err)
	}
	check(t, h.Release())
	check(t, h.Release())
	h, err = r.v.Open(n, unix.O_RDONLY)
	check(t, err)
	_, err = h.WriteAt([]byte("x"), 0)
	want(t, "write to what was opened for reading", err, unix.EBADF)
	want(t, "fallocate likewise", h.Allocate(0, 0, 1), unix.EBADF)
	check(t, h.Release())
	h, err = r.v.Open(n, unix.O_RDONLY|unix.O_TRUNC)
	check(t, err)
	if s, err := readHandle(h); s != "" || err != nil {
		t.Errorf("truncated by opening: %q, %v", s, err)
	}
	check(t, h.Release())
	if n.View() != r.v {
		t.Error("another view")
	}
	r.v.Forget(n, 1)
}

func TestCreateOpensWhatIsThere(t *testing.T) {
	r := newRig(t)
	check(t, r.in("pkgs/urls.txt", func(dir *Node, name string) error {
		n, a, h, err := r.v.Create(dir, name, unix.O_RDWR, 0o600)
		check(t, err)
		if s, err := readHandle(h); s != "private\n" || err != nil || a.Mode != unix.S_IFREG|0o644 {
			t.Errorf("%q, %v, %+v", s, err, a)
		}
		check(t, h.Release())
		r.v.Forget(n, 1)
		return nil
	}))
	want(t, "create over a directory", r.in("pkgs/cache", func(dir *Node, name string) error {
		_, _, _, err := r.v.Create(dir, name, unix.O_RDWR, 0o600)
		return err
	}), unix.EISDIR)
}

// More directories than descriptors are kept for.
func TestManyDirectories(t *testing.T) {
	r := newRig(t)
	var held []*Node
	for i := range 3 * maxDirs {
		p := fmt.Sprintf("pkgs/d%d", i)
		check(t, r.mkdir(p, 0o755))
		check(t, r.create(p+"/f", p, 0o644))
		n, err := r.node(p)
		check(t, err)
		held = append(held, n)
	}
	for i := range held {
		p := fmt.Sprintf("pkgs/d%d", i)
		if s, err := r.read(p + "/f"); s != p || err != nil {
			t.Errorf("%s: %q, %v", p, s, err)
		}
	}
	if n := len(r.v.dirs.slots); n > maxDirs {
		t.Errorf("%d descriptors are kept", n)
	}
	for _, n := range held {
		r.v.Forget(n, 1)
	}
}

func TestAfterClose(t *testing.T) {
	r := newRig(t)
	n, err := r.node("pkgs/urls.txt")
	check(t, err)
	h, err := r.v.Open(n, unix.O_RDONLY)
	check(t, err)
	st, err := r.v.Statfs()
	if err != nil || st.Blocks == 0 || st.Namelen != 255 {
		t.Errorf("%+v, %v", st, err)
	}
	check(t, r.v.Close())
	check(t, r.v.Close())
	if s, err := readHandle(h); s != "private\n" || err != nil {
		t.Errorf("%q, %v", s, err)
	}
	if a, err := r.v.Getattr(n, h); err != nil || a.Size != 8 {
		t.Errorf("%+v, %v", a, err)
	}
	_, err = r.v.Getattr(n, nil)
	want(t, "getattr", err, unix.ESTALE)
	_, _, err = r.v.Lookup(r.v.Root(), "pkgs")
	want(t, "lookup", err, unix.ESTALE)
	_, err = r.v.Open(n, unix.O_RDONLY)
	want(t, "open", err, unix.ESTALE)
	_, err = r.v.Statfs()
	want(t, "statfs", err, unix.ESTALE)
	check(t, h.Release())
	if !r.v.Forget(n, 1) {
		t.Error("it should be gone")
	}
}

func TestDamagedXattrs(t *testing.T) {
	for _, c := range []struct{ attr, value string }{
		{xattrMark, "ino=x"},
		{xattrMark, "mode=9"},
		{xattrOrigin, "t abc"},
		{xattrOrigin, "?"},
	} {
		r := newRig(t)
		check(t, r.mkdir("pkgs/d", 0o755))
		check(t, r.v.Close())
		check(t, unix.Lsetxattr(filepath.Join(r.upper, "pkgs/d"), c.attr, []byte(c.value), 0))
		r.open()
		_, err := r.stat("pkgs/d")
		if err == nil || fault.Errno(err) != unix.EIO || !strings.Contains(err.Error(), c.value) {
			t.Errorf("%s=%q: %v", c.attr, c.value, err)
		}
	}
}

func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k,nr_inodes=200"); err != nil {
		t.Skip("cannot mount a tmpfs: ", err)
	}
	t.Cleanup(func() { check(t, unix.Unmount(dir, 0)) })
	r := newRigIn(t, dir)
	r.src.file(t, "shared/pkgs/big.conda", strings.Repeat("x", 1<<20))
	check(t, r.create("pkgs/f", "f", 0o644))
	before := r.dump()
	if err := r.write("pkgs/big.conda", "x", 0); fault.Errno(err) != unix.ENOSPC {
		t.Errorf("copy-up: %v", err)
	}
	if err := r.rename("pkgs/big.conda", "pkgs/other", 0); fault.Errno(err) != unix.ENOSPC {
		t.Errorf("rename: %v", err)
	}
	if list, err := os.ReadDir(filepath.Join(dir, "work")); len(list) > 0 || err != nil {
		t.Errorf("left in the work directory: %v, %v", list, err)
	}
	if got := r.dump(); !maps.Equal(got, before) {
		t.Errorf("got %v\nwant %v", got, before)
	}
	filler := filepath.Join(dir, "filler")
	check(t, fill(filler))
	for what, err := range map[string]error{
		"mkdir":  fillUp(r),
		"unlink": r.unlink("pkgs/urls.txt"),
	} {
		if err != nil && fault.Errno(err) != unix.ENOSPC {
			t.Errorf("%s: %v", what, err)
		}
	}
	check(t, os.Remove(filler))
	r.reopen()
	if s, err := r.read("pkgs/f"); s != "f" || err != nil {
		t.Errorf("%q, %v", s, err)
	}
}

// fill takes all blocks of a file system.
func fill(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if fault.Errno(err) == unix.ENOSPC {
		err = nil
	}
	return closeAfter(f, err)
}

// fillUp makes directories until there is no room for another, which leaves nothing.
func fillUp(r *rig) error {
	for i := range 200 {
		p := fmt.Sprintf("pkgs/d%d", i)
		if err := r.mkdir(p, 0o755); err != nil {
			if _, serr := r.stat(p); serr != unix.ENOENT {
				return fmt.Errorf("%s is there after %v: %v", p, err, serr)
			}
			return err
		}
	}
	return nil
}
