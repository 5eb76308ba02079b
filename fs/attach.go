package fs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// attach mounts and returns the descriptor of the connection.
func attach(mountPoint string, o options) (fd int, err error) {
	if direct() {
		return attachDirect(mountPoint, o)
	}
	return attachByHelper(mountPoint, o)
}

func (o options) common() []string {
	maxRead := o.maxRead
	if maxRead == 0 {
		maxRead = maxWrite
	}
	list := []string{"default_permissions", fmt.Sprintf("max_read=%d", maxRead)}
	if o.allowOther {
		list = append(list, "allow_other")
	}
	return list
}

// mountFlags are the options that are flags of mount(2).
var mountFlags = map[string]struct {
	flag uintptr
	off  bool
}{
	"nosuid": {unix.MS_NOSUID, false}, "suid": {unix.MS_NOSUID, true},
	"nodev": {unix.MS_NODEV, false}, "dev": {unix.MS_NODEV, true},
	"noexec": {unix.MS_NOEXEC, false}, "exec": {unix.MS_NOEXEC, true},
}

// attachDirect mounts by mount(2).
func attachDirect(mountPoint string, o options) (fd int, err error) {
	fd, err = unix.Open(fuseDevice, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", fuseDevice, err)
	}
	flags := unix.MS_NOSUID | unix.MS_NODEV | o.flags
	data := append(o.common(), fmt.Sprintf("fd=%d", fd), fmt.Sprintf("rootmode=%o", unix.S_IFDIR),
		fmt.Sprintf("user_id=%d", os.Geteuid()), fmt.Sprintf("group_id=%d", os.Getegid()))
	for _, opt := range o.kernel {
		switch f, ok := mountFlags[opt]; {
		case !ok:
			data = append(data, opt)
		case f.off:
			flags &^= f.flag
		default:
			flags |= f.flag
		}
	}
	if err := unix.Mount(fsName, mountPoint, "fuse."+fsName, flags, strings.Join(data, ",")); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// attachByHelper has fusermount3 mount, which sends the descriptor over a socket.
func attachByHelper(mountPoint string, o options) (fd int, err error) {
	helper, err := findHelper(helperPlaces)
	if err != nil {
		return -1, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "fusermount3"), os.NewFile(uintptr(pair[1]), "fusermount3")
	opts := append(o.common(), "fsname="+fsName, "subtype="+fsName)
	cmd := exec.Command(helper, "-o", strings.Join(append(opts, o.kernel...), ","), "--", mountPoint)
	cmd.Env = append(os.Environ(), "_FUSE_COMMFD=3")
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stderr = os.Stderr // its text is the only word on what went wrong
	err = cmd.Run()
	// Without our copy of its end, a helper that has sent nothing makes no one wait.
	err = errors.Join(err, theirs.Close())
	if err == nil {
		fd, err = receive(int(ours.Fd()))
	}
	if err != nil {
		return -1, errors.Join(fmt.Errorf("%s: %w", filepath.Base(helper), err), ours.Close())
	}
	return fd, ours.Close()
}

// receive takes a descriptor from a socket.
func receive(socket int) (fd int, err error) {
	data, control := make([]byte, 8), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(socket, data, control, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, err
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil {
		return -1, err
	}
	if len(messages) != 1 {
		return -1, errors.New("it has sent no descriptor")
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return -1, err
	}
	if len(fds) != 1 {
		return -1, fmt.Errorf("it has sent %d descriptors", len(fds))
	}
	return fds[0], nil
}
