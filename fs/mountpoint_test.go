package fs

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"condafs/fault"
)

func TestMountPointMistakes(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	write(t, file, "x")
	full := filepath.Join(dir, "full")
	must(t, os.MkdirAll(filepath.Join(full, "pkgs"), 0o755))
	empty := filepath.Join(dir, "empty")
	must(t, os.Mkdir(empty, 0o755))
	tests := []struct {
		name, path string
		kind       fault.Kind
		words      []string
	}{
		{"missing", filepath.Join(dir, "none"), fault.NotFound, []string{"no such directory", "mkdir -p"}},
		{"a file", file, fault.Usage, []string{"not a directory"}},
		{"below a file", filepath.Join(file, "x"), fault.NotFound, nil},
		{"not empty", full, fault.Exists, []string{"not empty", "import"}},
		{"in use by another file system", "/proc", fault.Busy, []string{"(proc)"}},
		{"long", "/" + string(make([]byte, 5000)), fault.Usage, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			wantKind(t, CheckMountPoint(tt.path, false), tt.kind, tt.words...)
		})
	}
	t.Run("good", func(t *testing.T) { must(t, CheckMountPoint(empty, false)) })
}

func TestMountedTwice(t *testing.T) {
	m := newMount(t, mountOptions{})
	wantKind(t, CheckMountPoint(m.dir, false), fault.Busy, "mounted here already", "condafs umount")
	_, err := Mount(m.engine, MountOptions{MountPoint: m.dir})
	wantKind(t, err, fault.Busy)
}

// TestStaleMount mounts with a daemon that dies at once.
func TestStaleMount(t *testing.T) {
	asRoot(t)
	dir := t.TempDir()
	dev, err := unix.Open(fuseDevice, unix.O_RDWR|unix.O_CLOEXEC, 0)
	must(t, err)
	must(t, unix.Mount("test", dir, "fuse.test", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", dev)))
	must(t, unix.Close(dev))
	wantKind(t, CheckMountPoint(dir, false), fault.Stale, "daemon has died", "umount --lazy "+dir)
	must(t, Unmount(dir, true))
	must(t, CheckMountPoint(dir, false))
	wantKind(t, Unmount(dir, false), fault.NotMounted, "nothing is mounted")
}

func TestNoDevice(t *testing.T) {
	wantKind(t, checkDevice(filepath.Join(t.TempDir(), "fuse")), fault.NotFound, "modprobe fuse", "--device /dev/fuse")
}

func TestNoHelper(t *testing.T) {
	conf := filepath.Join(t.TempDir(), "fuse.conf")
	write(t, conf, "# user_allow_other\n")
	wantKind(t, checkHelper(true, conf), fault.Permission, "user_allow_other", conf)
	write(t, conf, "user_allow_other\n")
	must(t, checkHelper(true, conf))
	must(t, checkHelper(false, filepath.Join(t.TempDir(), "none")))
	wantKind(t, checkHelper(true, filepath.Join(t.TempDir(), "none")), fault.Permission)
	_, err := findHelper([]string{filepath.Join(t.TempDir(), "none")})
	wantKind(t, err, fault.NotFound, "install it with")
}

func TestUnescape(t *testing.T) {
	if got := unescape.Replace(`/a\040b\134c`); got != `/a b\c` {
		t.Errorf("got %q", got)
	}
}
