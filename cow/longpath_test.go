package cow

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A path may be longer than what one system call takes.
func TestOpenBeneathALongPath(t *testing.T) {
	root, err := unix.Open(t.TempDir(), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
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
		unix.Close(fd)
		fd = next
		path = append(path, name)
	}
	defer unix.Close(fd)
	file, err := unix.Openat(fd, "bottom", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(file)
	if err := unix.Symlinkat(".", fd, "link"); err != nil {
		t.Fatal(err)
	}

	got, err := openBeneath(root, strings.Join(append(path, "bottom"), "/"), unix.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(got)
	for last, want := range map[string]error{"missing": unix.ENOENT, "link": unix.ELOOP, "link/bottom": unix.ELOOP} {
		if _, err := openBeneath(root, strings.Join(append(path, last), "/"), unix.O_RDONLY); err != want {
			t.Errorf("%s: %v, want %v", last, err, want)
		}
	}
	if _, err := openBeneath(root, strings.Repeat("x", unix.PathMax), unix.O_RDONLY); err != unix.ENAMETOOLONG {
		t.Errorf("a name without end: %v, want ENAMETOOLONG", err)
	}
}
