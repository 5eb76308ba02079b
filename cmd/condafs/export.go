package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"condafs/control"
	"condafs/fault"
)

func (a *app) exportCommand() *cobra.Command {
	var t target
	var names []string
	cmd := &cobra.Command{
		Use:   "export DIR",
		Short: "Write the newest snapshot's packages as a plain package cache",
		Long: `Write the newest snapshot's packages to a plain directory, which conda uses as a
package cache without condafs. What the directory has already is left as it is.`,
		Example: `  condafs export /backup/pkgs
  condafs export --package numpy-1.26.4-py312hc5e2394_0 ./pkgs`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := absolute(args[0])
			if err != nil {
				return err
			}
			return a.with(t, false, func(api control.API) error {
				b := a.newBar()
				r, err := api.Export(cmd.Context(), control.ExportRequest{Dir: dir, Names: names}, b.Report)
				b.Close()
				if err != nil {
					return err
				}
				if err := a.show(r, func(w io.Writer) error { return printExport(w, r) }); err != nil {
					return err
				}
				if len(r.Rejected) > 0 {
					return fault.New("export to", dir, fault.Other, fmt.Errorf("%s could not be written", plural(len(r.Rejected), "thing")))
				}
				return nil
			})
		},
	}
	cmd.Flags().StringSliceVar(&names, "package", nil, "only this `NAME-VERSION-BUILD`; may be repeated")
	t.mountFlag(cmd)
	t.storeFlag(cmd)
	return cmd
}

func printExport(w io.Writer, r *control.ExportReport) error {
	var b strings.Builder
	for _, d := range r.Rejected {
		fmt.Fprintf(&b, "not written: %s: %s\n", printable(d.Path), printable(d.Why))
	}
	fmt.Fprintf(&b, "exported %s (%s); %d there already\n", plural(len(r.Exported), "thing"), size(r.Bytes), r.Present)
	_, err := io.WriteString(w, b.String())
	return err
}
