package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"condafs/control"
	"condafs/fault"
)

func (a *app) repairCommand() *cobra.Command {
	var t target
	var full bool
	cmd := &cobra.Command{
		Use:   "repair",
		Short: "Mend what is damaged in the store",
		Long: `Check the store as condafs verify does, and mend what is found, while clients go on.

What is damaged goes into quarantine, where no client reads it. Its content is taken
from the archive of its package, or from wherever else the same bytes lie: a session, the
shelf, quarantine. What cannot be had leaves the newest snapshot, so that clients
fetch it again: the package, or only the archive if that is damaged. A session that
has it in its view gets an input/output error for that file, and keeps the rest.

condafs verify shows beforehand what there is to mend. The exit status is 3 if
something cannot be mended here, as a damaged database: see condafs rebuild.`,
		Example: "  condafs repair\n  condafs repair --full\n  condafs repair --full --store /var/lib/condafs",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(t, false, func(api control.API) error {
				b := a.newBar()
				r, err := api.Repair(cmd.Context(), control.RepairRequest{Full: full}, b.Report)
				b.Close()
				if err != nil {
					return err
				}
				if err := a.show(r, func(w io.Writer) error { return printRepair(w, r) }); err != nil {
					return err
				}
				if r.Left > 0 {
					return fault.New("repair", "", fault.Corrupt, fmt.Errorf("%s left", plural(r.Left, "problem"))).
						WithHint("unmount, and run `condafs rebuild`")
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&full, "full", false, "read and hash every file")
	t.mountFlag(cmd)
	t.storeFlag(cmd)
	return cmd
}

func printRepair(w io.Writer, r *control.RepairReport) error {
	if len(r.Problems) == 0 {
		return printVerify(w, &r.VerifyReport)
	}
	var b strings.Builder
	writeProblems(&b, &r.VerifyReport)
	for _, p := range r.Removed {
		fmt.Fprintf(&b, "removed: %s\n", printable(p))
	}
	fmt.Fprintf(&b, "%s found, %d left; %s removed from the newest snapshot\n", plural(len(r.Problems), "problem"), r.Left, plural(len(r.Removed), "name"))
	_, err := io.WriteString(w, b.String())
	return err
}
