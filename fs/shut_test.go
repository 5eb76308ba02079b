package fs

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestShutMountPoint(t *testing.T) {
	for _, test := range []struct {
		mode os.FileMode
		shut bool
	}{{0o555, true}, {0o500, true}, {0o755, false}, {0o575, false}} {
		dir := filepath.Join(t.TempDir(), "m")
		if err := errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, test.mode)); err != nil {
			t.Fatal(err)
		}
		reopen := func() error { return setImmutable(dir, false) }
		if err := setImmutable(dir, true); direct() && err != nil {
			t.Skip("nothing can be made immutable here:", err)
		}
		if err := reopen(); direct() && err != nil {
			t.Fatal(err)
		}
		shut(dir)
		err := os.Mkdir(filepath.Join(dir, "pkgs"), 0o755)
		if direct() {
			if err := reopen(); err != nil {
				t.Error(err)
			}
		}
		if want := test.shut && direct(); want != errors.Is(err, unix.EPERM) {
			t.Errorf("%o: making a directory there: %v", test.mode, err)
		}
	}
}

func setImmutable(path string, on bool) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	flags, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
	if err == nil {
		flags &^= immutable
		if on {
			flags |= immutable
		}
		err = unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, flags)
	}
	return errors.Join(err, unix.Close(fd))
}
