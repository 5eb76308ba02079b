package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// Discarded is what `condafs discard --json` prints.
type Discarded struct {
	Session string `json:"session"`
}

func (a *app) discardCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use:     "discard SESSION",
		Short:   "End a session and throw away what it has not committed",
		Example: "  condafs discard k3v9q2",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client(t)
			if err != nil {
				return err
			}
			defer c.Close()
			if err := c.Discard(cmd.Context(), args[0]); err != nil {
				return err
			}
			return a.show(Discarded{args[0]}, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "session %s is discarded\n", args[0])
				return err
			})
		},
	}
	t.mountFlag(cmd)
	cmd.ValidArgsFunction = a.completeSession(&t)
	return cmd
}
