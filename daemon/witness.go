package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"condafs/fault"
	mountfs "condafs/fs"
)

// WitnessCommand is the command that a program is started with as a daemon's witness: see [Witness].
const WitnessCommand = "witness"

// startWitness starts a process that ends the connection to the kernel if this one is killed and cannot end. The function that it returns
// has it end. Where it cannot be started, nothing is different as long as nobody is killed.
func (d *daemon) startWitness() (stop func()) {
	fail := func(err error) func() {
		d.config.Logger.Warn("if the daemon is killed, its clients may wait until somebody calls condafs umount --lazy", "err", err.Error())
		return func() {}
	}
	r, w, err := os.Pipe()
	if err != nil {
		return fail(err)
	}
	cmd := exec.Command("/proc/self/exe", WitnessCommand, d.mount.Control(), strconv.Itoa(os.Getpid()))
	cmd.Args[0] = "condafs"
	cmd.Dir = "/"
	cmd.Stdin = r
	// What is sent to our whole group is not for it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err = errors.Join(cmd.Start(), r.Close()); err != nil {
		return fail(errors.Join(err, w.Close()))
	}
	return func() {
		if err := errors.Join(w.Close(), cmd.Wait()); err != nil {
			d.config.Logger.Debug("the witness", "err", err.Error())
		}
	}
}

// witnessTick is how often a witness looks. A process that has been killed is seen twice before it counts as one that cannot end.
const witnessTick = time.Second

// Witness waits for the end of a daemon, when end is at its end, or for another program in its place, and then does nothing. A daemon that
// was killed while the kernel was about to take note of something that it had told it (FUSE_NOTIFY_INVAL_ENTRY) may not come to its end: the
// kernel waits for a lock, a client that has it for an answer, and the answer for nobody. Then the witness ends the connection by its
// control file.
func Witness(control string, pid int, end io.Reader) error {
	f, err := mountfs.OpenControl(control) // now: later, the number may be another connection's
	if err != nil {
		return fault.New("watch over", control, fault.Other, err)
	}
	defer f.Close() //nolint:errcheck // written to at most once, and that is checked
	over := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, end) // however it ends
		close(over)
	}()
	tick := time.NewTicker(witnessTick)
	defer tick.Stop()
	seen := 0
	for {
		select {
		case <-over:
			return nil
		case <-tick.C:
		}
		dead, err := killed(pid)
		switch {
		case err != nil || !dead:
			seen = 0
		case seen == 0:
			seen++
		default:
			if _, err := f.WriteString("1"); err != nil {
				return fault.New("end the connection", control, fault.Other, err)
			}
			return nil
		}
	}
}

// killed reports whether a process has been killed, though some of it may be left: its first thread is a zombie.
func killed(pid int) (bool, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // all of it is gone
	}
	if err != nil {
		return false, err
	}
	i := bytes.LastIndexByte(b, ')') // the name before may hold anything
	return i >= 0 && i+2 < len(b) && b[i+2] == 'Z', nil
}
