package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"condafs/control"
	"condafs/fault"
	"condafs/fs"
)

// word is what a daemon tells the command that has started it, once.
type word struct {
	PID   int    `json:"pid"`
	Error string `json:"error,omitempty"` // the one line that explains the failure
	Exit  int    `json:"exit,omitempty"`
}

// readiness is the daemon's end.
type readiness struct {
	f *os.File // nil: nobody waits
	a *app
}

func (a *app) readiness(o mountOptions) *readiness {
	r := &readiness{a: a}
	if o.readyFD > 0 {
		unix.CloseOnExec(o.readyFD)
		r.f = os.NewFile(uintptr(o.readyFD), "ready")
	}
	return r
}

// answers says that the mount answers. Without a parent it is said on the terminal's
// behalf by the log.
func (r *readiness) answers() { r.say(word{PID: os.Getpid()}) }

// failed passes err on. A parent that still waits tells it; then the daemon has
// nothing more to say on its own standard error, which is the log.
func (r *readiness) failed(err error) error {
	if err == nil || r.f == nil {
		return err
	}
	r.say(word{PID: os.Getpid(), Error: oneLine(err.Error()), Exit: exitStatus(err)})
	return status(exitStatus(err))
}

func (r *readiness) say(w word) {
	if r.f == nil {
		return
	}
	// If the parent has gone there is nobody to tell; the log has it as well.
	_ = json.NewEncoder(r.f).Encode(w)
	_ = r.f.Close()
	r.f = nil
}

// background starts the daemon in a session of its own, and waits for its word.
func (a *app) background(ctx context.Context, o mountOptions) error {
	if err := heal(o.mountPoint); err != nil {
		return err
	}
	// Most mistakes are told here, before anything has been started.
	if err := fs.CheckMountPoint(o.mountPoint, o.allowOther); err != nil {
		return err
	}
	pid, err := a.spawn(ctx, o)
	if err != nil {
		return err
	}
	info, err := control.ReadInfo(o.mountPoint)
	if err != nil {
		return err
	}
	if info.PID != pid {
		return fault.New("mount", o.mountPoint, fault.Busy, fmt.Errorf("the daemon of pid %d has mounted there at the same time", info.PID))
	}
	m := Mounted{MountPoint: o.mountPoint, Store: info.Store, Socket: info.Socket, Log: o.logFile, PID: info.PID, Version: info.Version}
	return a.show(m, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "mounted %s (store %s, pid %d); log: %s\n", m.MountPoint, m.Store, m.PID, m.Log)
		return err
	})
}

func (o mountOptions) daemonArgs() []string {
	// All that can be configured is said, also where it is nothing: so it need not be found out again.
	args := []string{"mount", "--config", "", "--foreground", "--ready-fd", "3", "--store", o.store, "--log-file", o.logFile, "--log-format", o.logFormat,
		"--allow-other=" + strconv.FormatBool(o.allowOther), "--verbose=" + strconv.FormatBool(o.verbose), "--lanes", o.lanes, "--shelf", o.shelf, "-o", ""}
	args = append(args, o.policy.args()...)
	args = append(args, o.scrub.args()...)
	args = append(args, o.metrics.args()...)
	args = append(args, o.space.args()...)
	for _, opt := range o.options {
		args = append(args, "-o", opt)
	}
	return append(args, "--", o.mountPoint)
}

// spawn returns the pid of a daemon whose mount answers.
func (a *app) spawn(ctx context.Context, o mountOptions) (int, error) {
	const op = "start the daemon"
	log, err := openLog(o.logFile)
	if err != nil {
		return 0, err
	}
	defer log.Close() //nolint:errcheck // the daemon's own; nothing was written here
	r, w, err := os.Pipe()
	if err != nil {
		return 0, fault.New(op, "", fault.Other, err)
	}
	defer r.Close() //nolint:errcheck // read only
	cmd := exec.Command("/proc/self/exe", o.daemonArgs()...)
	cmd.Args[0] = "condafs"
	cmd.Dir = "/"
	// A service manager that listens to us would not know of it.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "NOTIFY_SOCKET=") || strings.HasPrefix(v, "WATCHDOG_USEC=")
	})
	// A panic, which no logger sees, goes to the log as well.
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	if cerr := w.Close(); err == nil && cerr != nil {
		err = cerr
	}
	if err != nil {
		return 0, fault.New(op, "", fault.Other, err)
	}
	pid := cmd.Process.Pid
	stop := context.AfterFunc(ctx, func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it ends in good order
	})
	defer stop()
	var heard word
	if err := json.NewDecoder(r).Decode(&heard); err != nil {
		// It died without a word, or of a signal: its exit says more.
		state, werr := cmd.Process.Wait()
		if werr != nil {
			return 0, fault.New(op, "", fault.Other, errors.Join(err, werr))
		}
		if ctx.Err() != nil {
			return 0, fault.New(op, "", fault.Canceled, context.Cause(ctx))
		}
		return 0, fault.New(op, "", fault.Other, errors.New("it died: "+state.String())).WithHint("see " + o.logFile)
	}
	if heard.Error != "" {
		if _, err := cmd.Process.Wait(); err != nil {
			return 0, fault.New(op, "pid "+strconv.Itoa(pid), fault.Other, err)
		}
		a.warn("%s", heard.Error)
		return 0, status(heard.Exit)
	}
	if err := cmd.Process.Release(); err != nil {
		return 0, fault.New(op, "pid "+strconv.Itoa(pid), fault.Other, err)
	}
	return pid, nil
}
