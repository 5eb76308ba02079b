package main

import (
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

func (a *app) sessionsCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use:   "sessions",
		Short: "List the live sessions",
		Long: `List the live sessions: the processes that share a view, and what they have not
committed. Root and the store's owner see everybody's.`,
		Example: "  condafs sessions\n  condafs sessions --json | jq -r '.[] | select(.dirty) | .id'",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client(t)
			if err != nil {
				return err
			}
			defer c.Close()
			l, err := c.Sessions(cmd.Context())
			if err != nil {
				return err
			}
			return a.show(l, func(w io.Writer) error {
				rows := [][]string{{"SESSION", "USER", "STATE", "SNAPSHOT", "UNCOMMITTED", "SINCE", "LABEL", "PIDS"}}
				for _, s := range l {
					changes := "-"
					if s.Dirty {
						changes = size(s.OverlayBytes)
					}
					var pids []string
					for _, p := range s.Members {
						pids = append(pids, strconv.Itoa(p))
					}
					rows = append(rows, []string{s.ID, who(s.UID), s.State, strconv.FormatUint(s.Base, 10), changes, when(s.Started), orDash(s.Label), strings.Join(pids, ",")})
				}
				return table(w, rows)
			})
		},
	}
	t.mountFlag(cmd)
	return cmd
}
