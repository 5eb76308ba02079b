package handover

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"condafs/fault"
)

// Program is an executable file that is kept open: what is run is what was looked at,
// whatever becomes of its name.
type Program struct {
	f    *os.File
	name string
}

// OpenProgram opens an executable file. What cannot be executed is fault.Usage.
func OpenProgram(name string) (*Program, error) {
	const op = "upgrade to"
	f, err := os.OpenFile(name, unix.O_PATH, 0) // who may run it need not be able to read it
	if err != nil {
		return nil, fault.New(op, name, fault.Usage, pathCause(err)).WithHint("name the new condafs with --binary")
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = errors.New("it is no file")
	}
	if err == nil {
		err = unix.Faccessat(int(f.Fd()), "", unix.X_OK, unix.AT_EMPTY_PATH|unix.AT_EACCESS)
		if err != nil {
			err = errors.New("it is not executable")
		}
	}
	if err != nil {
		return nil, fault.New(op, name, fault.Usage, errors.Join(err, f.Close())).WithHint("name the new condafs with --binary")
	}
	return &Program{f, name}, nil
}

// pathCause drops what the message says already.
func pathCause(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// Self opens the program that runs.
func Self() (*Program, error) {
	f, err := os.OpenFile("/proc/self/exe", unix.O_PATH, 0)
	if err != nil {
		return nil, fault.New("open the running program", "", fault.Other, err)
	}
	return &Program{f, "/proc/self/exe"}, nil
}

// Inherited is a program that another one has opened, under this number.
func Inherited(fd int) *Program { return &Program{os.NewFile(uintptr(fd), "program"), "program"} }

// FD is the number of the open file.
func (p *Program) FD() int { return int(p.f.Fd()) }

// Name is what it was opened by.
func (p *Program) Name() string { return p.name }

// Close closes the file.
func (p *Program) Close() error { return p.f.Close() }

// Replace makes this process run the program, with these arguments after its name. The
// files go along under their numbers; all others are closed. It returns only if it fails,
// and then nothing has changed.
func (p *Program) Replace(args []string, files []int) error {
	const op = "run"
	// A script's interpreter opens it again, so the program goes along, too.
	files = append([]int{p.FD()}, files...)
	for i, fd := range files {
		if err := keep(fd, true); err != nil {
			for _, fd := range files[:i] {
				err = errors.Join(err, keep(fd, false))
			}
			return fault.New(op, p.name, fault.Other, err)
		}
	}
	err := syscall.Exec("/proc/self/fd/"+strconv.Itoa(p.FD()), append([]string{"condafs"}, args...), os.Environ())
	for _, fd := range files {
		err = errors.Join(err, keep(fd, false))
	}
	return fault.New(op, p.name, fault.Other, err)
}

// keep says whether a file stays open over exec(2).
func keep(fd int, open bool) error {
	flags := unix.FD_CLOEXEC
	if open {
		flags = 0
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, flags); err != nil {
		return fmt.Errorf("descriptor %d: %w", fd, err)
	}
	return nil
}

// Own makes files that another program has handed over this one's: programs that it
// starts do not get them.
func Own(files []int) error {
	for _, fd := range files {
		if err := keep(fd, false); err != nil {
			return fault.New("take over", "", fault.Corrupt, err)
		}
	}
	return nil
}
