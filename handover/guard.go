package handover

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"condafs/fault"
)

// Guard is a process that outlives the change of programs, and hears of it when the process
// that it watches ends in the midst of that: by a signal that the new program does not take
// yet. What is to be done then, it does. A process that neither ends nor goes on, it ends.
type Guard struct {
	w   *os.File
	pid int
}

// guardPatience is how long programs may take to change: the new one has [Patience], and so has the old one, if it has to take over again.
const guardPatience = 4 * Patience

// StartGuard starts a program with these arguments as the guard of this process. It calls
// Watch with its descriptor 3 and this process's id.
func (p *Program) StartGuard(args []string, log *os.File) (*Guard, error) {
	const op = "start the guard"
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fault.New(op, "", fault.Other, err)
	}
	cmd := exec.Command("/proc/self/fd/4", args...)
	cmd.Args[0] = "condafs"
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{r, p.f}
	// What is sent to our whole group, ^C or by a service manager, is not for the guard.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	err = cmd.Start()
	if err = errors.Join(err, r.Close()); err != nil {
		return nil, fault.New(op, "", fault.Other, errors.Join(err, w.Close()))
	}
	return &Guard{w: w, pid: cmd.Process.Pid}, cmd.Process.Release()
}

// InheritGuard takes over the guard that another program has started.
func InheritGuard(fd, pid int) *Guard { return &Guard{os.NewFile(uintptr(fd), "guard"), pid} }

// FD is the descriptor that must stay open for as long as there is something to guard.
func (g *Guard) FD() int { return int(g.w.Fd()) }

// PID is the guard's.
func (g *Guard) PID() int { return g.pid }

// Begin has the guard's patience begin: from now on, what fails can't be undone by going on.
func (g *Guard) Begin() error {
	_, err := g.w.Write([]byte{begun})
	return err
}

// Dismiss has the guard end, with nothing done, and waits for that.
func (g *Guard) Dismiss() error {
	_, err := g.w.Write([]byte{dismissed})
	err = errors.Join(err, g.w.Close())
	for {
		_, werr := syscall.Wait4(g.pid, nil, 0, nil)
		if werr != syscall.EINTR {
			return errors.Join(err, werr)
		}
	}
}

const (
	begun     = 'b'
	dismissed = 'd'
)

// Watch returns true when the process that has started this one has ended without
// dismissing it. pid is that process's.
func Watch(fd, pid int) (bool, error) { return watch(fd, pid, guardPatience) }

func watch(fd, pid int, patience time.Duration) (bool, error) {
	const op = "guard"
	process, err := unix.PidfdOpen(pid, 0)
	if err == nil {
		defer unix.Close(process) //nolint:errcheck // it has nothing to tell
	}
	if os.Getppid() != pid {
		process = -1 // it has ended, and the id may be another's: the pipe tells
	} else if err != nil {
		return false, fault.New(op, strconv.Itoa(pid), fault.Other, os.NewSyscallError("pidfd_open", err))
	}
	f := os.NewFile(uintptr(fd), "guard")
	b := make([]byte, 1)
	for {
		_, err := io.ReadFull(f, b)
		switch {
		case errors.Is(err, io.EOF):
			return true, nil
		case err != nil:
			return false, fault.New(op, "", fault.Other, err)
		case b[0] == dismissed:
			return false, nil
		case process >= 0:
			t := time.AfterFunc(patience, func() {
				err := unix.PidfdSendSignal(process, unix.SIGKILL, nil, 0)
				fmt.Fprintf(os.Stderr, "condafs: process %d did not go on within %v after an upgrade, and is killed: %v\n", pid, patience, err)
			})
			defer t.Stop()
		}
	}
}
