package main

import (
	"errors"
	"io"

	"github.com/spf13/cobra"

	"condafs/demo"
	"condafs/fault"
)

func (a *app) demoCommand() *cobra.Command {
	var n int
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show what concurrent clients do to a plain directory, and that condafs cures it",
		Long: `demo runs the same client processes at once on a plain directory and on a mount
of its own, cold and warm, and judges every byte of what they leave. The clients
do what conda does, in conda's order; they are built in, and so is the channel:
no network is used, and nothing is left behind.`,
		Example: `  condafs demo
  condafs demo -n 32 --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if n < 1 {
				return fault.New("demo", "", fault.Usage, errors.New("-n must be at least 1"))
			}
			r, err := demo.Run(cmd.Context(), demo.Options{N: n, Progress: func(line string) { a.note(line) }})
			if err != nil {
				return err
			}
			if err := a.show(r, r.WriteTable); err != nil {
				return err
			}
			if !r.OK() {
				return fault.New("demo", "", fault.Corrupt, errors.New("condafs did not keep its promise here")).
					WithHint("please report this with the output of --json")
			}
			return nil
		},
	}
	cmd.Flags().IntVarP(&n, "clients", "n", 8, "client processes at once")
	return cmd
}

// demoClientCommand is what the demonstration starts as its clients.
func (a *app) demoClientCommand() *cobra.Command {
	return &cobra.Command{
		Use:                demo.ClientCommand,
		Hidden:             true,
		DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			if s := demo.ClientMain(args, a.out, a.err); s != 0 {
				return status(s)
			}
			return nil
		},
	}
}

// note tells what happens next, to a person who waits for it.
func (a *app) note(line string) {
	if isTerminal(a.err) {
		_, _ = io.WriteString(a.err, line+"\n")
	}
}
