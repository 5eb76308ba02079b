package main

import (
	"github.com/spf13/cobra"

	"condafs/daemon"
	"condafs/fs"
)

// askCommand is what the daemon starts to see whether its mount answers.
func (a *app) askCommand() *cobra.Command {
	return &cobra.Command{
		Use:    daemon.AskCommand + " MOUNTPOINT",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE:   func(_ *cobra.Command, args []string) error { return fs.Ask(args[0]) },
	}
}
