package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"condafs/control"
)

func (a *app) gcCommand() *cobra.Command {
	var t target
	var dry bool
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Free what neither the newest snapshot nor a session refers to",
		Example: `  condafs gc --dry-run
  condafs gc`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(t, false, func(api control.API) error {
				b := a.newBar()
				r, err := api.GC(cmd.Context(), control.GCRequest{DryRun: dry}, b.Report)
				b.Close()
				if err != nil {
					return err
				}
				return a.show(r, func(w io.Writer) error {
					verb := "freed"
					if r.DryRun {
						verb = "would free"
					}
					_, err := fmt.Fprintf(w, "%s %s in %s and %s; %s in %s stay\n", verb, size(r.Bytes), plural(r.Blobs, "blob"), plural(r.Trees, "tree"), size(r.KeptBytes), plural(r.KeptBlobs, "blob"))
					return err
				})
			})
		},
	}
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only say what would be freed")
	t.mountFlag(cmd)
	t.storeFlag(cmd)
	return cmd
}
