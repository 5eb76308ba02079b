package main

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"condafs/fault"
)

// runChild runs args in the session and returns its exit status. What runs is this
// program again, as a helper that prepares the mounts and then becomes the command.
func runChild(mount, id, namespace string, args, env []string) (int, error) {
	// Orphans of the command become ours, so that they can still be told to be the
	// session's.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return 0, fault.New("run", args[0], fault.Other, err)
	}
	signals := holdSignals()
	defer signals.stop()
	pid, err := start(mount, id, namespace, args, env)
	if err != nil {
		return 0, err
	}
	// By its pidfd, so that no signal ever goes to another process with its pid.
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return 0, fault.New("run", args[0], fault.Other, fmt.Errorf("watch pid %d: %w", pid, err))
	}
	signals.forwardTo(fd)
	ws, err := reap(pid)
	if err != nil {
		return 0, fault.New("run", args[0], fault.Other, err)
	}
	if ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return ws.ExitStatus(), nil
}

// start starts the helper, in new namespaces if it may have them. All descriptors
// that we have been given, a make's job server say, go on to the command.
func start(mount, id, namespace string, args, env []string) (int, error) {
	try := func(mode bindMode, sys *syscall.SysProcAttr) (int, error) {
		argv := append([]string{"condafs", helperName, string(mode), mount, id, "--"}, args...)
		return syscall.ForkExec("/proc/self/exe", argv, &syscall.ProcAttr{Env: env, Files: []uintptr{0, 1, 2}, Sys: sys})
	}
	if namespace != nsNever {
		mode := bindTry
		if namespace == nsAlways {
			mode = bindMust
		}
		pid, err := try(mode, privateMounts(os.Geteuid(), os.Getegid()))
		if err == nil {
			return pid, nil
		}
		if namespace == nsAlways {
			return 0, fault.New("make a private mount namespace", "", fault.Other, err).
				WithHint("this system does not allow it; use --namespace=auto")
		}
	}
	pid, err := try(bindNot, nil)
	if err != nil {
		return 0, fault.New("run", args[0], fault.Other, err)
	}
	return pid, nil
}

// privateMounts asks for a mount namespace. Root may have one; others need a user
// namespace around it, in which they are themselves and may mount.
func privateMounts(uid, gid int) *syscall.SysProcAttr {
	if uid == 0 {
		return &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
	}
	return &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}},
		// Kept over the helper's exec; the helper gives it up before the command's.
		AmbientCaps: []uintptr{unix.CAP_SYS_ADMIN},
	}
}

// reap waits for pid, and takes away other children that have ended: orphans of the
// command that we have inherited.
func reap(pid int) (syscall.WaitStatus, error) {
	for {
		var ws syscall.WaitStatus
		ended, err := syscall.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, fmt.Errorf("wait for pid %d: %w", pid, err)
		case ended == pid:
			return ws, nil
		}
	}
}
