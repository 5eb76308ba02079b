package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"condafs/control"
	"condafs/fault"
)

func (a *app) topCommand() *cobra.Command {
	var t target
	var every time.Duration
	var once bool
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Watch the sessions, requests and commits",
		Long: `Watch what the daemon does: requests of the kernel, live sessions, recent commits. In a
terminal it is shown anew every --interval until q is pressed; with --once, --json, or
when the output is no terminal, once. Keys:

  q, ^C   quit                      s   sort sessions by time, or by what is not committed
  p       pause, go on              ↑ ↓ move in the list

Root and the store's owner see everybody's sessions, and the requests; others see theirs.`,
		Example: "  condafs top\n  condafs top --once --interval 5s\n  condafs top --json | jq .activity.waits",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if every < 100*time.Millisecond || every > time.Hour {
				return fault.New("top", "", fault.Usage, fmt.Errorf("--interval %v is not in 100ms…1h", every))
			}
			c, err := a.client(t)
			if err != nil {
				return err
			}
			defer c.Close()
			if a.json || once || !isTerminal(a.out) {
				return a.topOnce(cmd.Context(), c, every)
			}
			return watchTop(cmd.Context(), c, every)
		},
	}
	t.mountFlag(cmd)
	cmd.Flags().DurationVarP(&every, "interval", "n", 2*time.Second, "`time` between two looks")
	cmd.Flags().BoolVar(&once, "once", false, "print what is, and what has been done in one interval, and end")
	return cmd
}

// Top is what `condafs top --json` prints.
type Top struct {
	Time     time.Time         `json:"time"`
	Status   *control.Status   `json:"status"`
	Activity *control.Activity `json:"activity,omitempty"` // for the owner
	Sessions []control.Session `json:"sessions"`
	Commits  []control.Commit  `json:"commits"`
}

// topAPI is what top asks.
type topAPI interface {
	Status(ctx context.Context) (*control.Status, error)
	Activity(ctx context.Context) (*control.Activity, error)
	Sessions(ctx context.Context) ([]control.Session, error)
	Log(ctx context.Context, limit int) ([]control.Commit, error)
}

// topCommits are shown.
const topCommits = 20

// lookAt asks the daemon for all that top shows.
func lookAt(ctx context.Context, c topAPI) (*Top, error) {
	now := &Top{Time: time.Now()}
	var err error
	if now.Status, err = c.Status(ctx); err != nil {
		return nil, err
	}
	if now.Activity, err = c.Activity(ctx); err != nil && !fault.Is(err, fault.Permission) {
		return nil, err
	}
	if now.Sessions, err = c.Sessions(ctx); err != nil {
		return nil, err
	}
	if now.Commits, err = c.Log(ctx, topCommits); err != nil {
		return nil, err
	}
	return now, nil
}

// topOnce prints one look as JSON, or two as text: what was done between them.
func (a *app) topOnce(ctx context.Context, c topAPI, every time.Duration) error {
	before, err := lookAt(ctx, c)
	if err != nil {
		return err
	}
	now := before
	if !a.json && before.Activity != nil {
		select {
		case <-time.After(every):
		case <-ctx.Done():
			return fault.New("top", "", fault.Canceled, errors.New("stopped"))
		}
		if now, err = lookAt(ctx, c); err != nil {
			return err
		}
	}
	return a.show(now, func(w io.Writer) error {
		for _, line := range topSummary(before, now) {
			if _, err := fmt.Fprintln(w, line); err != nil {
				return err
			}
		}
		for _, rows := range [][][]string{topSessions(now, false), topLog(now)} {
			if _, err := fmt.Fprintln(w); err != nil {
				return err
			}
			if err := table(w, rows); err != nil {
				return err
			}
		}
		return nil
	})
}
