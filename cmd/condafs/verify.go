package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"condafs/control"
	"condafs/fault"
)

func (a *app) verifyCommand() *cobra.Command {
	var t target
	var full bool
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check the store for damage",
		Long: `Check that everything the newest snapshot and the sessions refer to is there:
by sizes and times, or with --full by reading and hashing every byte. Problems
are listed with the packages that they affect, and make the exit status 3. Nothing is
changed: condafs repair mends what this finds.`,
		Example: "  condafs verify\n  condafs verify --full\n  condafs verify --full --store /var/lib/condafs",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(t, false, func(api control.API) error {
				b := a.newBar()
				r, err := api.Verify(cmd.Context(), control.VerifyRequest{Full: full}, b.Report)
				b.Close()
				if err != nil {
					return err
				}
				if err := a.show(r, func(w io.Writer) error { return printVerify(w, r) }); err != nil {
					return err
				}
				if n := len(r.Problems); n > 0 {
					return fault.New("verify", "", fault.Corrupt, fmt.Errorf("%s found", plural(n, "problem"))).
						WithHint("`condafs repair` mends what can be mended")
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

func printVerify(w io.Writer, r *control.VerifyReport) error {
	var b strings.Builder
	writeProblems(&b, r)
	how := "by size and time"
	if r.Full {
		how = "by content"
	}
	if len(r.Problems) == 0 {
		fmt.Fprintf(&b, "%s (%s) checked %s: all is well\n", plural(r.Blobs, "blob"), size(r.Bytes), how)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// writeProblems lists what is wrong, and what became of it.
func writeProblems(b *strings.Builder, r *control.VerifyReport) {
	for _, p := range r.Problems {
		what := p.File
		if what == "" {
			what = p.Digest
		}
		fmt.Fprintf(b, "%s: %s", p.Kind, printable(what))
		if p.Detail != "" {
			fmt.Fprintf(b, ": %s", printable(p.Detail))
		}
		if p.Fixed != "" {
			fmt.Fprintf(b, ": %s", printable(p.Fixed))
		}
		b.WriteByte('\n')
		for _, path := range p.Paths {
			fmt.Fprintf(b, "    affects %s\n", printable(path))
		}
	}
}
