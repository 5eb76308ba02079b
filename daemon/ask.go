package daemon

import (
	"bytes"
	"errors"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"condafs/fault"
)

// AskCommand is the command that a program is started with to ask a mount whether it
// answers, by [Ask].
const AskCommand = "ask"

// Ask makes one real round trip through the kernel and the daemon of a mount and back. It
// waits for as long as that takes.
func Ask(mountPoint string) error {
	var st unix.Statfs_t // the kernel never answers this by itself
	if err := unix.Statfs(mountPoint, &st); err != nil {
		return fault.New("ask", mountPoint, fault.Other, err)
	}
	return nil
}

// askMount has another process do that. If we did it ourselves, and hung, nobody could
// even kill us: see package fs.
func (d *daemon) askMount() error {
	cmd := exec.Command("/proc/self/exe", AskCommand, d.config.MountPoint)
	cmd.Args[0] = "condafs"
	cmd.Dir = "/"
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return fault.New("ask", d.config.MountPoint, fault.Other, errors.Join(err, errors.New(strings.TrimSpace(stderr.String()))))
	}
	return nil
}
