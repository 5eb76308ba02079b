package beneath

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// bothWays runs a test with openat2 and as on a kernel without it.
func bothWays(t *testing.T, test func(t *testing.T)) {
	t.Run("openat2", test)
	t.Run("one by one", func(t *testing.T) {
		defer noOpenat2.Store(noOpenat2.Swap(true))
		test(t)
	})
}

func directory(t *testing.T, path string) int {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

// farm makes a directory full of ways out, beside a file that must not be reached.
func farm(t *testing.T) (root int, secret string) {
	t.Helper()
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, "root", name) }
	secret = filepath.Join(dir, "secret")
	err := errors.Join(
		os.MkdirAll(in("real/deep"), 0o755), os.WriteFile(in("real/deep/file"), []byte("mine"), 0o600), os.WriteFile(secret, []byte("secret"), 0o600),
		os.Symlink("../secret", in("up")), os.Symlink(secret, in("absolute")), os.Symlink("..", in("parent")), os.Symlink("/", in("slash")),
		os.Symlink("real", in("inner")), os.Symlink("loop", in("loop")), os.Symlink("/proc/self/root", in("magic")),
		unix.Mkfifo(in("fifo"), 0o600), unix.Mkfifo(in("real/fifo"), 0o600),
	)
	if err != nil {
		t.Fatal(err)
	}
	return directory(t, filepath.Join(dir, "root")), secret
}

func TestOpenStaysBeneath(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		root, secret := farm(t)
		for path, want := range map[string]error{
			"": nil, ".": nil, "real": nil, "real/deep/file": nil, "real//deep/./file": nil,
			"up": unix.ELOOP, "absolute": unix.ELOOP, "loop": unix.ELOOP, "inner": unix.ELOOP,
			"parent/secret": unix.ELOOP, "slash/etc/passwd": unix.ELOOP, "inner/deep/file": unix.ELOOP, "magic/etc": unix.ELOOP,
			"..": unix.EXDEV, "../secret": unix.EXDEV, "real/../../secret": unix.EXDEV, secret: unix.EXDEV, "/": unix.EXDEV,
			"none": unix.ENOENT, "none/x": unix.ENOENT, "real/deep/file/x": unix.ENOTDIR,
		} {
			for _, flags := range []int{unix.O_RDONLY | unix.O_NONBLOCK, unix.O_PATH} {
				fd, err := Open(root, path, flags)
				if err == nil {
					_ = unix.Close(fd)
				}
				if flags == unix.O_PATH && err == nil && want == unix.ELOOP && !strings.Contains(path, "/") {
					t.Errorf("%q: a link was opened by O_PATH", path)
				}
				if !errors.Is(err, want) {
					t.Errorf("%q with %#x: %v, want %v", path, flags, err, want)
				}
			}
		}
	})
}

func TestOpenFile(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		root, _ := farm(t)
		f, err := OpenFile(root, "real/deep/file")
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 4)
		if _, err := f.Read(b); err != nil || string(b) != "mine" {
			t.Errorf("%q, %v", b, err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		for path, want := range map[string]error{"fifo": ErrNotRegular, "real": ErrNotRegular, "up": ErrNotRegular, "": ErrNotRegular, "none": unix.ENOENT, "../secret": unix.EXDEV} {
			if _, err := OpenFile(root, path); !errors.Is(err, want) {
				t.Errorf("%q: %v, want %v", path, err, want)
			}
		}
	})
}

func TestParent(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		root, _ := farm(t)
		fd, name, err := Parent(root, "real/deep/file")
		if err != nil || name != "file" {
			t.Fatal(name, err)
		}
		var st unix.Stat_t
		if err := errors.Join(unix.Fstatat(fd, name, &st, 0), unix.Close(fd)); err != nil || st.Size != 4 {
			t.Error(st.Size, err)
		}
		for path, want := range map[string]error{"": unix.EINVAL, "..": unix.EINVAL, "real/..": unix.EINVAL, "real/": unix.EINVAL, "parent/x": unix.ELOOP, "../x": unix.EXDEV, "fifo/x": unix.ENOTDIR} {
			if _, _, err := Parent(root, path); !errors.Is(err, want) {
				t.Errorf("%q: %v, want %v", path, err, want)
			}
		}
	})
}

// A path may be longer than what one system call takes.
func TestOpenALongPath(t *testing.T) {
	root := directory(t, t.TempDir())
	name := strings.Repeat("d", 200)
	fd, err := unix.Dup(root)
	if err != nil {
		t.Fatal(err)
	}
	var path []string
	for range 45 { // 9,000 bytes
		if err := unix.Mkdirat(fd, name, 0o700); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		_ = unix.Close(fd)
		fd = next
		path = append(path, name)
	}
	defer unix.Close(fd)
	file, err := unix.Openat(fd, "bottom", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(file)
	if err := unix.Symlinkat(".", fd, "link"); err != nil {
		t.Fatal(err)
	}

	got, err := Open(root, strings.Join(append(path, "bottom"), "/"), unix.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(got)
	for last, want := range map[string]error{"missing": unix.ENOENT, "link": unix.ELOOP, "link/bottom": unix.ELOOP} {
		if _, err := Open(root, strings.Join(append(path, last), "/"), unix.O_RDONLY); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", last, err, want)
		}
	}
	if _, err := Open(root, strings.Repeat("x", unix.PathMax), unix.O_RDONLY); err != unix.ENAMETOOLONG {
		t.Errorf("a name without end: %v, want ENAMETOOLONG", err)
	}
}
