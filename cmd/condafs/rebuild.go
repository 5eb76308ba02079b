package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"condafs/control"
	"condafs/daemon"
	"condafs/fault"
)

func (a *app) rebuildCommand() *cobra.Command {
	var store string
	cmd := &cobra.Command{
		Use:   "rebuild",
		Short: "Make a store's lost or damaged database anew",
		Long: `Make the database of a store anew from the journal that lies beside it, and then
read and hash all of the store's content, and mend it as condafs repair does. It is for a store that does not open any
more, because its database in db/ is lost or damaged; such a store must not be
mounted.

The old database is put aside, under a name that is printed, and nothing is deleted:
what is damaged or not known goes into quarantine. What was deleted stays so. Sessions that were under way go on over the new head.

It can be stopped at any time and run again. The exit status is 3 if something could
not be brought back.`,
		Example: "  condafs rebuild\n  condafs rebuild --store /var/lib/condafs",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if store == "" {
				if store, err = a.defaultStore(os.Geteuid()); err != nil {
					return err
				}
			}
			dir, err := absolute(store)
			if err != nil {
				return err
			}
			if daemonOf(dir) != nil {
				return fault.New("rebuild", dir, fault.Busy, errors.New("a daemon has it open")).WithHint("unmount it first")
			}
			b := a.newBar()
			r, err := daemon.Rebuild(cmd.Context(), dir, version(), slog.New(slog.DiscardHandler), b.Report)
			b.Close()
			if err != nil {
				return err
			}
			if err := a.show(r, func(w io.Writer) error { return printRebuild(w, r) }); err != nil {
				return err
			}
			if n := len(r.LostTrees) + len(r.Damage) + len(r.Repair.Problems); n > 0 || !r.Exact {
				return fault.New("rebuild", dir, fault.Corrupt, errors.New("the store opens again, and some of it is lost"))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&store, "store", "", "`directory` of the store (default: that of `condafs mount`)")
	return cmd
}

func printRebuild(w io.Writer, r *control.RebuildReport) error {
	var b strings.Builder
	for _, d := range r.Damage {
		fmt.Fprintf(&b, "journal: %s\n", printable(d))
	}
	for _, p := range r.LostTrees {
		fmt.Fprintf(&b, "lost: the list of files of %s\n", printable(p))
	}
	fmt.Fprintf(&b, "made a database of %s and %s, from %s in the journal", plural(r.Entries, "name"), plural(r.Trees, "package"), plural(r.Commits, "commit"))
	if r.Aside != "" {
		fmt.Fprintf(&b, "; the old one is %s now", printable(r.Aside))
	}
	b.WriteByte('\n')
	if !r.Exact {
		b.WriteString("the journal does not have all that the last commit had: some changes are missing\n")
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return err
	}
	return printRepair(w, r.Repair)
}
