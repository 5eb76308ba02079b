package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"condafs/control"
	"condafs/fault"
)

func (a *app) upgradeCommand() *cobra.Command {
	var t target
	var binary string
	var dry bool
	cmd := &cobra.Command{
		Use:   "upgrade",
		Short: "Let another condafs take the daemon's place, without unmounting",
		Long: `Let a new condafs take the place of the one that serves the mount. Sessions, open
files, mappings and locks go on; clients see one slow request, of a fraction of a
second. The process stays, and so does its pid: service managers notice nothing.

The new program first reads, in a process of its own, all that it is to take over.
If it cannot, the daemon goes on as if nothing had been asked. If it fails later,
when it has to open the store, say, or hangs for half a minute, the old program takes
the mount back. The exit status is 1 in both cases.

Only the daemon's user and root may do this. It is refused while verify, repair, gc,
import or export are under way.`,
		Example: `  condafs upgrade
  condafs upgrade --binary /opt/condafs-1.5/condafs --mount /condafs
  condafs upgrade --dry-run --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r := control.UpgradeRequest{DryRun: dry}
			var err error
			if r.Binary, err = program(binary); err != nil {
				return err
			}
			p, err := a.locate(t)
			if err != nil {
				return err
			}
			c := control.NewClient(p.socket)
			defer c.Close()
			b := a.newBar()
			u, err := upgrade(cmd.Context(), c, r, b.Report)
			b.Close()
			if err != nil {
				return err
			}
			return a.show(u, func(w io.Writer) error { return printUpgrade(w, u) })
		},
	}
	cmd.Flags().StringVar(&binary, "binary", "", "the new `program` (default: the one that runs this command)")
	cmd.Flags().BoolVarP(&dry, "dry-run", "n", false, "only find out whether the new program could take over")
	t.mountFlag(cmd)
	if err := cmd.MarkFlagFilename("binary"); err != nil {
		panic(err) // the flag is defined above
	}
	return cmd
}

// program returns the absolute path of the new program.
func program(binary string) (string, error) {
	if binary != "" {
		return absolute(binary)
	}
	exe, err := os.Executable()
	if err != nil {
		return "", fault.New("find this program", "", fault.Other, err).WithHint("name it with --binary")
	}
	return exe, nil
}

// How long apart the daemon is asked what has come of an upgrade, and how long it may not
// answer at all.
const (
	askAgain  = 10 * time.Millisecond
	mayHangUp = 10 * time.Second
)

// upgrade asks for one and returns when it is over.
func upgrade(ctx context.Context, c *control.Client, r control.UpgradeRequest, f control.ProgressFunc) (*control.Upgrade, error) {
	u, err := c.Upgrade(ctx, r, f)
	if err != nil || u.State != control.UpgradeBegun {
		return u, err
	}
	f.Report(control.Progress{Phase: "handing over"})
	daemon, err := watch(u.PID)
	if err != nil {
		return nil, err
	}
	defer daemon.close()
	id, end := u.ID, time.Now().Add(mayHangUp)
	for {
		ended := daemon.ended()
		u, err := c.Upgraded(ctx, id)
		switch {
		case err == nil && u.State == control.UpgradeDone:
			return u, nil
		case err == nil && u.State == control.UpgradeFailed:
			return nil, fault.New("upgrade", u.MountPoint, fault.Other, errors.New(u.Why)).WithHint("the old version goes on: " + u.From)
		case err == nil:
			end = time.Now().Add(mayHangUp)
		case ended:
			return nil, fault.New("upgrade", "", fault.NotMounted, errors.New("the daemon has ended meanwhile")).
				WithHint("see its log file; `condafs mount` starts it again, and loses nothing")
		case !fault.Is(err, fault.NotMounted) || time.Now().After(end):
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, fault.New("upgrade", "", fault.Canceled, errors.New("not waited for; it goes on"))
		case <-time.After(askAgain):
		}
	}
}

func printUpgrade(w io.Writer, u *control.Upgrade) error {
	with := plural(u.Sessions, "session") + ", " + plural(u.Files, "open file")
	if u.State == control.UpgradeRehearsed {
		_, err := fmt.Fprintf(w, "%s could take over %s from %s (pid %d), with %s\n", u.To, u.MountPoint, u.From, u.PID, with)
		return err
	}
	_, err := fmt.Fprintf(w, "%s has taken over %s from %s (pid %d), with %s; the mount did not answer for %d ms\n",
		u.To, u.MountPoint, u.From, u.PID, with, u.PauseMS)
	return err
}
