package handover

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"syscall"

	"condafs/fault"
)

// Guard is a process that outlives the change of programs, and hears of it when the process
// that it watches ends in the midst of that: by a signal that the new program does not take
// yet. What is to be done then, it does.
type Guard struct {
	w   *os.File
	pid int
}

// StartGuard starts a program with these arguments as the guard of this process. It calls
// Watch with its descriptor 3.
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

const dismissed = 'd'

// Watch returns true when the process that has started this one has ended without
// dismissing it.
func Watch(fd int) (bool, error) {
	b := make([]byte, 1)
	_, err := io.ReadFull(os.NewFile(uintptr(fd), "guard"), b)
	if errors.Is(err, io.EOF) {
		return true, nil
	}
	if err != nil {
		return false, fault.New("guard", "", fault.Other, err)
	}
	return false, nil
}
