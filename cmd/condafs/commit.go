package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"condafs/control"
	"condafs/fault"
)

func (a *app) commitCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use:   "commit [SESSION]",
		Short: "Publish what a session has completed",
		Long: `Publish what a session has completed, without waiting for its end. The session
goes on, and what could not be committed stays in it.

Without an id this is the session of the calling process: that of the
` + "`condafs run`" + ` around it, or else the one its shell has on the mount.`,
		Example: "  condafs commit\n  condafs commit k3v9q2",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := a.locate(t)
			if err != nil {
				return err
			}
			id, err := a.sessionID(p, args)
			if err != nil {
				return err
			}
			c := control.NewClient(p.socket)
			defer c.Close()
			r, err := c.Commit(cmd.Context(), id)
			if err != nil {
				return err
			}
			return a.show(r, func(w io.Writer) error { return printReport(w, r) })
		},
	}
	t.mountFlag(cmd)
	cmd.ValidArgsFunction = a.completeSession(&t)
	return cmd
}

// sessionID is the argument, or the caller's own session.
func (a *app) sessionID(p place, args []string) (string, error) {
	if len(args) > 0 {
		return args[0], nil
	}
	if id := a.getenv(envSession); id != "" {
		return id, nil
	}
	// The magic link leads each caller to its own session.
	to, err := os.Readlink(filepath.Join(p.mount, "pkgs"))
	if err != nil {
		return "", fault.New("find the session of this process", "", fault.Usage, err).WithHint("name one of those that `condafs sessions` lists")
	}
	id := linkedSession(p.mount, to)
	if id == "" {
		return "", fault.New("find the session of this process", to, fault.NotMounted, nil).WithHint("name one of those that `condafs sessions` lists")
	}
	return id, nil
}

// linkedSession returns the id in what MOUNT/pkgs links to, or "".
func linkedSession(mount, to string) string {
	if filepath.IsAbs(to) {
		rel, err := filepath.Rel(mount, to)
		if err != nil {
			return ""
		}
		to = rel
	}
	parts := strings.Split(filepath.Clean(to), "/")
	if len(parts) < 2 || parts[0] != ".sessions" {
		return ""
	}
	return parts[1]
}

// printReport tells what a commit did.
func printReport(w io.Writer, r *control.Report) error {
	var b strings.Builder
	for _, c := range r.Committed {
		sign := "+"
		if c.Deleted {
			sign = "-"
		}
		fmt.Fprintf(&b, "%s %s (%s, %s)\n", sign, printable(c.Path), c.Kind, c.Trust)
	}
	for _, l := range []struct {
		what string
		of   []control.Dropped
	}{{"not yet", r.Pending}, {"dropped", r.Dropped}, {"quarantined", r.Quarantined}} {
		for _, d := range l.of {
			fmt.Fprintf(&b, "%s: %s: %s\n", l.what, printable(d.Path), printable(d.Why))
		}
	}
	if b.Len() == 0 {
		b.WriteString("nothing to commit\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}
