package integration

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"condafs/internal/lossyfs"
)

// TestClientsGetTheErrno lets each kind of operation that writes fail below an overlay, with each errno that a disk, a
// quota or the system can give. The client gets that errno, not another; afterwards the same operation works, and what
// is committed is right.
func TestClientsGetTheErrno(t *testing.T) {
	t.Parallel()
	disk := lossyfs.New(lossyfs.Strict)
	dir := testDir(t)
	under := filepath.Join(dir, "disk")
	if err := os.Mkdir(under, 0o755); err != nil {
		t.Fatal(err)
	}
	mounted, err := disk.Mount(under)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := mounted.Unmount(); err != nil {
			t.Error(err)
		}
	})
	m := mountStore(t, filepath.Join(under, "store"), filepath.Join(dir, "mnt"))
	pkgs := m.pkgs()
	in := func(name string) string { return filepath.Join(pkgs, name) }
	old := in("old.txt")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(old, []byte("before"), 0o644))
	file, err := os.OpenFile(in("open.txt"), os.O_RDWR|os.O_CREATE, 0o644)
	must(err)
	defer file.Close()
	ops := []struct {
		name string
		kind lossyfs.Kind
		do   func() error
	}{
		{"create", lossyfs.Create, func() error { return os.WriteFile(in("new.txt"), nil, 0o644) }},
		{"mkdir", lossyfs.Create, func() error { return os.Mkdir(in("dir"), 0o755) }},
		{"symlink", lossyfs.Create, func() error { return os.Symlink("old.txt", in("link")) }},
		{"link", lossyfs.Link, func() error { return os.Link(old, in("second.txt")) }},
		{"write", lossyfs.Write, func() error { _, err := file.WriteAt([]byte("text"), 0); return err }},
		{"fsync", lossyfs.Sync, file.Sync},
		{"truncate", lossyfs.Truncate, func() error { return file.Truncate(1) }},
		{"chmod", lossyfs.SetAttr, func() error { return os.Chmod(old, 0o600) }},
		{"setxattr", lossyfs.SetXattr, func() error { return unix.Setxattr(old, "user.x", []byte("y"), 0) }},
		{"rename", lossyfs.Rename, func() error { return os.Rename(in("new.txt"), in("newer.txt")) }},
		{"unlink", lossyfs.Remove, func() error { return os.Remove(in("newer.txt")) }},
		{"rmdir", lossyfs.Remove, func() error { return os.Remove(in("dir")) }},
	}
	for _, op := range ops {
		for _, errno := range []unix.Errno{unix.ENOSPC, unix.EDQUOT, unix.EIO, unix.EMFILE} {
			var failed atomic.Int32
			disk.Inject(func(o lossyfs.Op) lossyfs.Verdict {
				if o.Kind == op.kind && strings.Contains(o.Path, "/upper/") {
					failed.Add(1)
					return lossyfs.Verdict{Errno: errno}
				}
				return lossyfs.Verdict{}
			})
			err := op.do()
			disk.Inject(nil)
			if !errors.Is(err, errno) || failed.Load() == 0 {
				t.Errorf("%s: %v, and %v was given %d times", op.name, err, errno, failed.Load())
			}
		}
		if err := op.do(); err != nil {
			t.Errorf("%s, with the disk well again: %v", op.name, err)
		}
	}
	must(file.Close())
	if b, err := os.ReadFile(old); err != nil || string(b) != "before" {
		t.Errorf("%q, %v", b, err)
	}
	m.verify()
}
