package main

import (
	"io"

	"github.com/spf13/cobra"

	"condafs/control"
)

func (a *app) lsCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use:   "ls [PACKAGE]",
		Short: "List the packages of the newest snapshot, or the files of one",
		Example: `  condafs ls
  condafs ls numpy-1.26.4-py312hc5e2394_0
  condafs ls --json | jq -r '.[] | select(.trust != "verified") | .name'`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(t, false, func(api control.API) error {
				if len(args) == 0 {
					l, err := api.Packages(cmd.Context())
					if err != nil {
						return err
					}
					return a.show(l, func(w io.Writer) error { return printPackages(w, l) })
				}
				p, err := api.Package(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return a.show(p, func(w io.Writer) error { return printFiles(w, p) })
			})
		},
	}
	t.mountFlag(cmd)
	t.storeFlag(cmd)
	cmd.ValidArgsFunction = a.completePackage(&t)
	return cmd
}

func printPackages(w io.Writer, l []control.Package) error {
	rows := [][]string{{"PACKAGE", "TRUST", "FOR", "EXTRACTED", "ARCHIVE", "SHA256"}}
	for _, p := range l {
		scope, extracted, archive := "everybody", "-", "-"
		if !p.Shared {
			scope = who(p.Owner)
		}
		if p.Extracted {
			extracted = size(p.Size)
		}
		if p.Archive != nil {
			archive = size(p.Archive.Size)
		}
		name := p.Name
		if p.Directory != "pkgs" {
			name = p.Directory + "/" + name
		}
		rows = append(rows, []string{name, p.Trust, scope, extracted, archive, orDash(p.SHA256)})
	}
	return table(w, rows)
}

func printFiles(w io.Writer, p *control.PackageFiles) error {
	rows := [][]string{}
	for _, f := range p.Entries {
		name, n := f.Path, size(f.Size)
		switch f.Type {
		case "symlink":
			name, n = name+" -> "+f.Target, "-"
		case "directory":
			name, n = name+"/", "-"
		}
		rows = append(rows, []string{f.Mode, n, name})
	}
	return table(w, rows)
}
