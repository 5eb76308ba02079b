package main

import (
	"strconv"

	"github.com/spf13/cobra"

	"condafs/daemon"
	"condafs/fault"
)

// witnessCommand is what the daemon starts to watch over its end.
func (a *app) witnessCommand() *cobra.Command {
	return &cobra.Command{
		Use:    daemon.WitnessCommand + " CONTROL PID",
		Hidden: true,
		Args:   cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			pid, err := strconv.Atoi(args[1])
			if err != nil {
				return fault.New("watch over", args[1], fault.Usage, err)
			}
			return daemon.Witness(args[0], pid, a.in)
		},
	}
}
