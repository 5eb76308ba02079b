package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"condafs/fault"
)

// helperName is the first argument that makes this program the helper of `condafs
// run`. It is no command: nobody types it.
const helperName = "__become"

// bindMode says what the helper does with the mount.
type bindMode string

const (
	bindMust bindMode = "must" // bind the session over the mount, or fail
	bindTry  bindMode = "try"  // bind it if that is possible
	bindNot  bindMode = "not"  // the magic link will do
)

// Exit statuses of what cannot be run, as shells have them.
const (
	exitCannotExec = 126
	exitNotFound   = 127
)

// runHelper runs in the process that becomes the command: MODE MOUNT ID -- COMMAND ARG...
// It returns only if that fails.
func runHelper(args []string) int {
	// Capabilities and the parent-death signal belong to a thread; exec keeps this one's.
	runtime.LockOSThread()
	if len(args) < 5 || args[3] != "--" {
		fmt.Fprintln(os.Stderr, "condafs: "+helperName+" is used by `condafs run` only")
		return 2
	}
	mode, mount, id, command := bindMode(args[0]), args[1], args[2], args[4:]
	if err := enter(mode, mount, id); err != nil {
		fmt.Fprintln(os.Stderr, "condafs: "+oneLine(err.Error()))
		return exitStatus(err)
	}
	code, err := replace(command, os.Environ())
	if err != nil {
		fmt.Fprintln(os.Stderr, "condafs: "+oneLine(err.Error()))
		return 1
	}
	return code
}

// enter makes this process a member of the session, and binds the session's tree
// over the mount.
func enter(mode bindMode, mount, id string) error {
	if err := join(mount, id); err != nil {
		// Within another session's namespace the link is hidden below its tree.
		if mode == bindNot || unix.Unmount(mount, unix.UMOUNT_NOFOLLOW) != nil {
			return err
		}
		if err := join(mount, id); err != nil {
			return err
		}
	}
	if mode != bindNot {
		err := bind(mount, id)
		if err != nil && mode == bindMust {
			return fault.New("bind session", mount, fault.Other, err).WithHint("this system does not allow it; use --namespace=auto")
		}
	}
	return dropCapabilities()
}

// join looks at the magic link, which tells the daemon of this process, and tells
// us that the daemon takes it for a member of the session.
func join(mount, id string) error {
	to, err := os.Readlink(filepath.Join(mount, "pkgs"))
	switch {
	case errors.Is(err, unix.EINVAL):
		return fault.New("start a new session in", mount, fault.Unsupported, errors.New("it shows another session here, in a private mount namespace")).
			WithHint("start that one with --namespace=never")
	case err != nil:
		return fault.New("join session", id, fault.Other, err)
	case linkedSession(mount, to) != id:
		return fault.New("join session", id, fault.Other, fmt.Errorf("the mount takes this process for one of session %q", linkedSession(mount, to)))
	}
	return nil
}

// bind shows the session's tree in place of the mount, to this namespace alone.
func bind(mount, id string) error {
	// First of all, nothing that is done here may reach other namespaces. What is
	// mounted and unmounted there shall reach this one.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("keep mounts to this namespace: %w", err)
	}
	if err := unix.Mount(filepath.Join(mount, ".sessions", id), mount, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	return nil
}

// dropCapabilities takes back what a user namespace was entered with, so that the
// command has no more than its user.
func dropCapabilities() error {
	if os.Geteuid() == 0 {
		return nil // root's own, and as they were
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
		return fault.New("drop capabilities", "", fault.Other, err)
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&hdr, &none[0]); err != nil {
		return fault.New("drop capabilities", "", fault.Other, err)
	}
	return nil
}

// replace makes this process the command. It returns only if that fails: with the
// exit status that a shell would give, after saying why.
func replace(args, env []string) (int, error) {
	path, err := lookPath(args[0])
	if err == nil {
		err = syscall.Exec(path, args, env)
		if errors.Is(err, unix.ENOEXEC) {
			// A script without #!, as shells take it.
			err = syscall.Exec("/bin/sh", append([]string{"/bin/sh", path}, args[1:]...), env)
		}
	}
	code := exitCannotExec
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, exec.ErrNotFound) {
		code = exitNotFound
	}
	f := fault.New("run", args[0], fault.Other, cause(err))
	if code == exitNotFound {
		f = f.WithHint("is it installed, and in $PATH?")
	}
	fmt.Fprintln(os.Stderr, "condafs: "+oneLine(f.Error()))
	return code, nil
}

// lookPath finds a command as a shell does: one with a slash is a path, also
// relative to the working directory.
func lookPath(name string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	path, err := exec.LookPath(name)
	if errors.Is(err, exec.ErrDot) {
		err = nil // $PATH says so, and it is not for us to forbid
	}
	return path, err
}

// cause drops the name that the message has already.
func cause(err error) error {
	var e *exec.Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}
