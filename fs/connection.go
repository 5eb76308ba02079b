package fs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"condafs/fault"
)

// connections is where the kernel shows those of all FUSE file systems, if that is mounted.
const connections = "/sys/fs/fuse/connections"

// connection names the control file of a mount's connection, by its device number. It
// does not ask the mount: see doc.go.
func connection(mountPoint string) (string, error) {
	_, device, err := lookUpMount(mountPoint)
	if err != nil {
		return "", err
	}
	_, minor, ok := strings.Cut(device, ":")
	if !ok {
		return "", fault.New("find the connection of", mountPoint, fault.NotMounted, errors.New("it is not among the mounts"))
	}
	return filepath.Join(connections, minor, "abort"), nil
}

// abortConnection ends a connection by its control file.
func abortConnection(file string) error {
	c, err := OpenControl(file)
	if err != nil {
		return err
	}
	return errors.Join(c.Abort(), c.Close())
}

// Control is the open control file of a connection. Once that has ended, it does nothing.
type Control struct{ f *os.File }

// Abort ends the connection: whoever waits for an answer gets an error, and so does the daemon.
func (c *Control) Abort() error {
	_, err := c.f.WriteString("1")
	return err
}

// Close closes the file.
func (c *Control) Close() error { return c.f.Close() }

// OpenControl opens a control file: see [Server.ControlFile].
func OpenControl(file string) (*Control, error) {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err == nil {
		return &Control{f}, nil
	}
	if !errors.Is(err, fs.ErrNotExist) || !direct() {
		return nil, err
	}
	// Nobody has mounted that file system, as in most containers. Root needs no place for it.
	top, err := detachedMount("fusectl")
	if err != nil {
		return nil, err
	}
	defer unix.Close(top) //nolint:errcheck // it goes, and has nothing to tell
	rel, err := filepath.Rel(connections, file)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Openat(top, rel, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", file, err)
	}
	return &Control{os.NewFile(uintptr(fd), file)}, nil
}

// detachedMount mounts a file system of the kernel's own where no path leads, and returns its root.
func detachedMount(fsType string) (int, error) {
	fd, err := unix.Fsopen(fsType, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("mount %s: %w", fsType, err)
	}
	defer unix.Close(fd) //nolint:errcheck // it has nothing to tell
	if err := unix.FsconfigCreate(fd); err != nil {
		return -1, fmt.Errorf("mount %s: %w", fsType, err)
	}
	top, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return -1, fmt.Errorf("mount %s: %w", fsType, err)
	}
	return top, nil
}

// GiveUp takes away a mount whose daemon hangs, without asking it for anything: the mount leaves the tree, and whoever waits for
// an answer, or asks for one later, gets an error. mountPoint must not be a link. Where the waiting can't be
// ended, the error says so; the mount is gone then all the same.
func GiveUp(mountPoint string) error {
	dir, err := filepath.EvalSymlinks(filepath.Dir(mountPoint)) // to look at the mount itself would be to ask it
	if err != nil {
		return fault.New("unmount", mountPoint, fault.Other, err)
	}
	mountPoint = filepath.Join(dir, filepath.Base(mountPoint))
	file, err := connection(mountPoint)
	if err != nil {
		return err
	}
	aborted := abortConnection(file)
	if err := unmount(mountPoint, direct(), true); err != nil {
		return err
	}
	if aborted != nil {
		return fault.New("abort the connection of", mountPoint, fault.Other, aborted).
			WithHint("whoever waits for it goes on when root has done: mount -t fusectl none " + connections + "; echo 1 > " + file)
	}
	return nil
}
