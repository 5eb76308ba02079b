package fs

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"condafs/fault"
)

// Server is a mount that is being served. It is safe for concurrent use.
type Server struct {
	mountPoint string
	direct     bool
	abort      string // what ends the connection when it is written to
	fs         *fileSystem
	done       chan struct{}
	once       sync.Once
}

// MountPoint returns the mount's absolute path.
func (s *Server) MountPoint() string { return s.mountPoint }

// Nodes counts the nodes that the kernel knows.
func (s *Server) Nodes() int { return s.fs.nodes.len() }

// Files counts what clients have open.
func (s *Server) Files() int { return s.fs.files.len() + s.fs.dirs.len() }

// Wait returns when the last request has been answered after an unmount, whoever
// has unmounted.
func (s *Server) Wait() { <-s.done }

// Done is closed when Wait would return.
func (s *Server) Done() <-chan struct{} { return s.done }

// How often an unmount is tried while the mount is in use, and how long apart at
// first: the kernel closes a file's last handle only after close(2) has returned.
const (
	unmountTries = 8
	unmountPause = 2 * time.Millisecond
	hangUpAfter  = time.Second
)

// Unmount takes the mount away. While it is in use that is fault.Busy, unless
// lazy: then it vanishes from the tree at once, and Wait returns when its last
// user has let go. To unmount what is not mounted any more is no error.
func (s *Server) Unmount(lazy bool) error {
	select {
	case <-s.done:
		return nil
	default:
	}
	var err error
	pause := unmountPause
	for range unmountTries {
		err = unmount(s.mountPoint, s.direct, lazy)
		if fault.Is(err, fault.NotMounted) || err == nil && lazy {
			return nil
		}
		if err == nil {
			s.hangUp()
			return nil
		}
		if !fault.Is(err, fault.Busy) {
			return err
		}
		select {
		case <-s.done:
			return nil
		case <-time.After(pause):
		}
		pause *= 2
	}
	return err
}

// ControlFile names the control file of the connection, for OpenControl.
func (s *Server) ControlFile() string { return s.abort }

// hangUp ends the service of a mount that is gone here. A mount namespace that was
// made meanwhile, by a container or by another mount's condafs run, has a copy of
// it, for which the kernel keeps the connection open. Where the connection can't be
// aborted it ends with this process; nothing waits for it.
func (s *Server) hangUp() {
	select {
	case <-s.done:
		return
	case <-time.After(hangUpAfter):
	}
	if err := abortConnection(s.abort); err != nil {
		s.fs.log.Info("another mount namespace keeps a copy of the mount", "mount", s.mountPoint, "error", err)
		s.finish()
	}
}

func (s *Server) finish() { s.once.Do(func() { close(s.done) }) }

// Unmount takes a mount away whose daemon may be dead.
func Unmount(mountPoint string, lazy bool) error {
	if real, err := filepath.EvalSymlinks(mountPoint); err == nil {
		mountPoint = real
	}
	return unmount(mountPoint, direct(), lazy)
}

func unmount(mountPoint string, direct, lazy bool) error {
	var err error
	if direct {
		err = unmountDirect(mountPoint, lazy)
	} else {
		err = unmountByHelper(mountPoint, lazy)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EBUSY):
		return fault.New("unmount", mountPoint, fault.Busy, errors.New("files or directories in it are in use")).
			WithHint("see who uses it with: fuser -vm " + mountPoint + "; or use --lazy")
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
		return fault.New("unmount", mountPoint, fault.NotMounted, errors.New("nothing is mounted here"))
	}
	return fault.New("unmount", mountPoint, fault.Other, err)
}

func unmountDirect(mountPoint string, lazy bool) error {
	flags := unix.UMOUNT_NOFOLLOW
	if lazy {
		flags |= unix.MNT_DETACH
	}
	return unix.Unmount(mountPoint, flags)
}

// unmountByHelper asks fusermount3, whose only word on what went wrong is its text.
func unmountByHelper(mountPoint string, lazy bool) error {
	helper, err := findHelper(helperPlaces)
	if err != nil {
		return err
	}
	args := []string{"-u"}
	if lazy {
		args = append(args, "-z")
	}
	out, err := exec.Command(helper, append(args, "--", mountPoint)...).CombinedOutput()
	if err == nil {
		return nil
	}
	text := strings.TrimSpace(string(out))
	switch {
	case strings.Contains(text, "busy"):
		return unix.EBUSY
	case strings.Contains(text, "not found in"), strings.Contains(text, "Invalid argument"):
		return unix.EINVAL
	case text != "":
		return errors.New(text)
	}
	return err
}
