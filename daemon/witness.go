package daemon

import (
	"errors"
	"io"
	"os"
	"strconv"
	"syscall"
	"time"

	"condafs/fault"
	"condafs/fs"
	"condafs/proc"
)

// WitnessCommand is the command that a program is started with as a daemon's witness: see [Witness].
const WitnessCommand = "witness"

// startWitness starts a process that ends the connection to the kernel if this one is killed and cannot end. The function that it returns
// has it end. Where it cannot be started, nothing is different as long as nobody is killed.
func (d *daemon) startWitness() (stop func()) {
	cmd := ourCommand(WitnessCommand, d.mount.ControlFile(), strconv.Itoa(os.Getpid()))
	// What is sent to our whole group is not for it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	end, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		d.config.Logger.Warn("if the daemon is killed, its clients may wait until somebody calls condafs umount --lazy", "err", err.Error())
		return func() {}
	}
	return func() {
		if err := errors.Join(end.Close(), cmd.Wait()); err != nil {
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
	c, err := fs.OpenControl(control) // now: later, the number may be another connection's
	if err != nil {
		return fault.New("watch over", control, fault.Other, err)
	}
	defer c.Close() //nolint:errcheck // what it is told is checked
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
		switch {
		case !proc.Zombie(pid):
			seen = 0
		case seen == 0:
			seen++
		default:
			if err := c.Abort(); err != nil {
				return fault.New("end the connection", control, fault.Other, err)
			}
			return nil
		}
	}
}
