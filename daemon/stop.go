package daemon

import (
	"context"
	"fmt"
	"os"
	"strings"

	"condafs/control"
	"condafs/fault"
)

// Stop takes the mount away and waits until the sessions have ended. Unless lazy,
// it is refused while somebody uses the mount: the unmount comes first, since the
// kernel is the one who knows.
func (a *api) Stop(ctx context.Context, r control.StopRequest, progress control.ProgressFunc) (*control.Stopped, error) {
	d := a.daemon
	if d == nil {
		return nil, a.noDaemon("umount")
	}
	if err := d.detach(r.Lazy); err != nil {
		return nil, err
	}
	progress.Report(control.Progress{Phase: "ending sessions"})
	<-d.ended
	if d.endErr != nil {
		return nil, fault.New("umount", d.config.MountPoint, fault.Other, d.endErr)
	}
	return &control.Stopped{PID: os.Getpid(), MountPoint: d.config.MountPoint}, nil
}

func (d *daemon) detach(lazy bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !lazy {
		// A command of `condafs run` has the mount in a namespace of its own, where
		// no unmount of ours reaches.
		if u := d.explicitUsers(); len(u) > 0 {
			return d.busy(u)
		}
	}
	if err := d.mount.Unmount(lazy); err != nil {
		if fault.Is(err, fault.Busy) {
			return d.busy(holders("/proc", d.config.MountPoint))
		}
		return err
	}
	d.endAll = true
	d.stopOnce.Do(func() { close(d.stop) })
	return nil
}

// maxNamed is how many users of a busy mount an error names.
const maxNamed = 8

func (d *daemon) busy(users []user) error {
	var names []string
	for i, u := range users {
		if i == maxNamed {
			names = append(names, fmt.Sprintf("and %d more", len(users)-i))
			break
		}
		names = append(names, u.String())
	}
	cause := "it is in use"
	if len(names) > 0 {
		cause += " by " + strings.Join(names, ", ")
	}
	return fault.New("umount", d.config.MountPoint, fault.Busy, fmt.Errorf("%s", cause)).
		WithHint("end them first, or use --lazy")
}

// explicitUsers are the commands that `condafs run` watches over.
func (d *daemon) explicitUsers() []user {
	var l []user
	for _, s := range d.engine.Sessions() {
		if !s.Explicit {
			continue
		}
		for _, pid := range s.Members {
			l = append(l, user{pid: pid, name: processName("/proc", pid), session: s.ID})
		}
	}
	return l
}
