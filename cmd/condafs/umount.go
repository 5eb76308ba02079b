package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"condafs/control"
	"condafs/fault"
	"condafs/fs"
)

func (a *app) umountCommand() *cobra.Command {
	var lazy bool
	cmd := &cobra.Command{
		Use:     "umount [MOUNTPOINT]",
		Aliases: []string{"unmount"},
		Short:   "End the sessions, unmount, and stop the daemon",
		Long: `End all sessions as if their processes had exited (what is complete is committed,
the rest is dropped), unmount, and wait until the daemon has gone.

A mount that is in use stays, and its users are named. With --lazy it goes all the
same; who still has files open there three seconds later gets errors from then on.
A mount whose daemon hangs goes with --lazy, too; who waits for it gets errors at once.
What a dead daemon has left behind is taken away in either case. Without MOUNTPOINT
it is the one that condafs mount would use: see condafs config.`,
		Example: "  condafs umount ~/conda-cache\n  condafs umount --lazy /conda-cache",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				point, err := a.configuredMount()
				if err != nil {
					return err
				}
				args = []string{point}
			}
			mount, err := absolute(args[0])
			if err != nil {
				return err
			}
			s, err := a.stop(cmd.Context(), mount, lazy)
			if err != nil {
				return err
			}
			return a.show(s, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "unmounted %s\n", mount)
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&lazy, "lazy", false, "do not wait for those who use it")
	return cmd
}

func (a *app) stop(ctx context.Context, mount string, lazy bool) (*control.Stopped, error) {
	info, err := control.ReadInfo(mount)
	if errors.Is(err, control.ErrDead) {
		// And so is every file that was open there.
		return &control.Stopped{MountPoint: mount}, heal(mount)
	}
	if lazy && errors.Is(err, control.ErrHangs) {
		a.warn("the daemon of %s does not answer, and is given up: who waits for it gets errors; it ends by itself once it goes on", mount)
		return &control.Stopped{MountPoint: mount}, fs.GiveUp(mount)
	}
	if err != nil {
		return nil, err
	}
	gone, err := watch(info.PID)
	if err != nil {
		return nil, err
	}
	defer gone.close()
	c := control.NewClient(info.Socket)
	defer c.Close()
	b := a.newBar()
	s, err := c.Stop(ctx, control.StopRequest{Lazy: lazy}, b.Report)
	b.Close()
	switch {
	case err == nil:
	case lazy && (fault.Is(err, fault.NotMounted) || fault.Is(err, fault.IO)):
		a.warn("%v", err)
		return &control.Stopped{MountPoint: mount}, fs.Unmount(mount, true)
	default:
		return nil, err
	}
	return s, gone.wait(ctx, info.PID)
}

// process is one that is watched until it has exited.
type process struct{ fd int }

// watch takes hold of a process by its pid. One in another pid namespace is not to
// be had, and not waited for.
func watch(pid int) (process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	switch {
	case err == nil:
		return process{fd}, nil
	case errors.Is(err, unix.ESRCH), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		return process{-1}, nil
	}
	return process{-1}, fault.New("watch the daemon", fmt.Sprint("pid ", pid), fault.Other, err)
}

func (p process) close() {
	if p.fd >= 0 {
		_ = unix.Close(p.fd) // a pidfd has nothing to lose
	}
}

func (p process) poll(ms int) (int, error) {
	return unix.Poll([]unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}, ms)
}

// ended reports whether it has exited, if that can be known.
func (p process) ended() bool {
	if p.fd < 0 {
		return false
	}
	n, err := p.poll(0)
	return err == nil && n > 0
}

// exitTimeout is how long a daemon that has said goodbye may take to exit.
const exitTimeout = 60 * time.Second

func (p process) wait(ctx context.Context, pid int) error {
	if p.fd < 0 {
		return nil
	}
	end := time.Now().Add(exitTimeout)
	for ctx.Err() == nil && time.Now().Before(end) {
		n, err := p.poll(200)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fault.New("wait for the daemon", "", fault.Other, err)
		}
		if n > 0 {
			return nil
		}
	}
	return fault.New("wait for the daemon", fmt.Sprint("pid ", pid), fault.Busy, errors.New("it has unmounted but still runs")).
		WithHint("see its log file")
}
