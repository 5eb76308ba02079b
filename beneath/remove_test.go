package beneath

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// deepTree makes a chain of n directories in dir, and a file at its end.
func deepTree(t *testing.T, dir string, n int) {
	t.Helper()
	fd := directory(t, dir)
	for range n {
		if err := unix.Mkdirat(fd, "d", 0o700); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(fd, "d", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(next)
		fd = next
	}
	file, err := unix.Openat(fd, "file", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(file)
}

// openFiles counts the descriptors of this process.
func openFiles(t *testing.T) int {
	t.Helper()
	l, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(l)
}

func TestRemoveAll(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		dir := t.TempDir()
		in := func(name string) string { return filepath.Join(dir, name) }
		err := errors.Join(
			os.MkdirAll(in("outside/keep"), 0o755), os.WriteFile(in("outside/keep/file"), []byte("keep"), 0o600),
			os.MkdirAll(in("top/tree/sub"), 0o755), os.WriteFile(in("top/tree/sub/file"), nil, 0o600),
			os.Symlink("../../outside", in("top/tree/link")), os.Symlink(in("outside"), in("top/tree/sub/absolute")), unix.Mkfifo(in("top/tree/fifo"), 0o600),
			os.Symlink("../outside", in("top/link")),
		)
		if err != nil {
			t.Fatal(err)
		}
		deepTree(t, in("top/tree"), 5*deepest+3)
		for i := range 2000 {
			if err := os.WriteFile(in(fmt.Sprintf("top/tree/sub/%0100d", i)), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chmod(in("top/tree/sub"), 0); err != nil {
			t.Fatal(err)
		}
		top := directory(t, in("top"))
		before := openFiles(t)
		for _, name := range []string{"tree", "link", "missing"} {
			if err := RemoveAll(top, name); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if n := openFiles(t); n != before {
			t.Errorf("%d descriptors are open, %d were", n, before)
		}
		if l, err := os.ReadDir(in("top")); err != nil || len(l) != 0 {
			t.Errorf("left: %v, %v", l, err)
		}
		if b, err := os.ReadFile(in("outside/keep/file")); err != nil || string(b) != "keep" {
			t.Errorf("what a link led to: %q, %v", b, err)
		}
		if err := errors.Join(RemoveTree(in("top")), RemoveTree(in("top")), RemoveTree(in("none/at/all"))); err != nil {
			t.Error(err)
		}
	})
}

func TestMeasure(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	big := strings.Repeat("x", 1<<20)
	err := errors.Join(
		os.WriteFile(in("outside"), []byte(big), 0o600),
		os.MkdirAll(in("root/sub"), 0o755), os.WriteFile(in("root/sub/file"), []byte("12345"), 0o600), os.WriteFile(in("root/sparse"), nil, 0o600),
		os.Truncate(in("root/sparse"), 1<<30), os.Symlink("../outside", in("root/link")), os.Symlink("..", in("root/sub/up")), unix.Mkfifo(in("root/fifo"), 0o600),
	)
	if err != nil {
		t.Fatal(err)
	}
	top := directory(t, dir)
	got, err := Measure(top, "root")
	if err != nil || got != (Usage{Files: 7, Bytes: 1<<30 + 5 + int64(len("../outside")+len(".."))}) {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := Measure(top, "missing"); err != nil || got != (Usage{}) {
		t.Errorf("missing: %+v, %v", got, err)
	}
	// A reserve beyond the end of a file counts, too.
	f, err := os.OpenFile(in("root/sub/file"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, 4<<20)
	if err := errors.Join(err, f.Close()); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		t.Fatal(err)
	} else if err == nil {
		if got, err := Measure(top, "root/sub"); err != nil || got.Bytes < 4<<20 {
			t.Errorf("allocated: %+v, %v", got, err)
		}
	}
	deepTree(t, in("root/sub"), maxLevels+10)
	if got, err := Measure(top, "root"); !errors.Is(err, ErrDeep) || got.Files < maxLevels {
		t.Errorf("deep: %+v, %v", got, err)
	}
}
