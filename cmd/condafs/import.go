package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"condafs/control"
	"condafs/fault"
)

func (a *app) importCommand() *cobra.Command {
	var t target
	var strict bool
	cmd := &cobra.Command{
		Use:   "import DIR",
		Short: "Take the packages of an existing package cache into the store",
		Long: `Take the packages of an existing package cache, such as ~/miniconda3/pkgs, into
the store. Each is checked by its own evidence: the archive's hash, the list of
files, the archive's content. What holds is imported, and what doesn't is named
with the reason. The directory itself is never changed.

It can be stopped at any time and run again; what is imported is then skipped.
Packages that are verified are for all users of the mount, others for the caller.`,
		Example: "  condafs import ~/miniconda3/pkgs\n  condafs import --store /var/lib/condafs /opt/conda/pkgs",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := absolute(args[0])
			if err != nil {
				return err
			}
			return a.with(t, true, func(api control.API) error {
				b := a.newBar()
				r, err := api.Import(cmd.Context(), control.ImportRequest{Dir: dir}, b.Report)
				b.Close()
				if fault.Is(err, fault.Canceled) {
					return fault.New("import", dir, fault.Canceled, errors.New("stopped")).WithHint("what is imported stays; run it again to go on")
				}
				if err != nil {
					return err
				}
				if err := a.show(r, func(w io.Writer) error { return printImport(w, r) }); err != nil {
					return err
				}
				if strict && len(r.Rejected) > 0 {
					return fault.New("import", dir, fault.Corrupt, fmt.Errorf("%s did not hold", plural(len(r.Rejected), "thing")))
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&strict, "strict", false, "exit with status 3 if anything did not hold")
	t.mountFlag(cmd)
	t.storeFlag(cmd)
	return cmd
}

func printImport(w io.Writer, r *control.ImportReport) error {
	var b strings.Builder
	for _, d := range r.Rejected {
		fmt.Fprintf(&b, "rejected: %s: %s\n", printable(d.Path), printable(d.Why))
	}
	trust := map[string]int{}
	for _, c := range r.Imported {
		trust[c.Trust]++
	}
	fmt.Fprintf(&b, "imported %s (%s): %d verified, %d consistent; %d there already, %d rejected, %d skipped\n",
		plural(len(r.Imported), "thing"), size(r.Bytes), trust["verified"], trust["consistent"], r.Present, len(r.Rejected), len(r.Skipped))
	_, err := io.WriteString(w, b.String())
	return err
}
