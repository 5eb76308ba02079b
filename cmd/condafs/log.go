package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"condafs/control"
)

func (a *app) logCommand() *cobra.Command {
	var t target
	var limit int
	cmd := &cobra.Command{
		Use:     "log",
		Short:   "Show the commits, newest first: who, when, what",
		Example: "  condafs log\n  condafs log -n 0 --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(t, false, func(api control.API) error {
				l, err := api.Log(cmd.Context(), limit)
				if err != nil {
					return err
				}
				return a.show(l, func(w io.Writer) error { return printLog(w, l) })
			})
		},
	}
	cmd.Flags().IntVarP(&limit, "number", "n", 20, "show at most so many; 0 for all")
	t.mountFlag(cmd)
	t.storeFlag(cmd)
	return cmd
}

func printLog(w io.Writer, l []control.Commit) error {
	var b strings.Builder
	for _, c := range l {
		fmt.Fprintf(&b, "%d  %s  %s", c.Seq, when(c.Time), who(c.UID))
		for _, s := range []string{c.Label, c.Command} {
			if s != "" {
				fmt.Fprintf(&b, "  %s", printable(s))
			}
		}
		b.WriteByte('\n')
		for _, s := range c.What {
			fmt.Fprintf(&b, "    %s\n", printable(s))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
