package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"condafs/control"
)

func (a *app) gcCommand() *cobra.Command {
	var t target
	var dry bool
	var space spaceLimits
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Free what neither the newest snapshot nor a session refers to",
		Long: `Free what neither the newest snapshot nor a session refers to. With a limit, packages that
were not used for longest leave the newest snapshot first, with their archives, as long
as it is needed; condafs mount has the same limits, for good.

Nobody loses what he has: a session goes on with what it sees, and its space is free
when it has ended. What an environment has hard links to stays. The use of a package is
when clients read its lists of files, to a day, as the file system notes it (atime).`,
		Example: `  condafs gc --dry-run
  condafs gc
  condafs gc --max-size 50GiB --max-age 90d --dry-run`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := space.resolve("gc")
			if err != nil {
				return err
			}
			return a.with(t, false, func(api control.API) error {
				b := a.newBar()
				r, err := api.GC(cmd.Context(), control.GCRequest{DryRun: dry, MaxSize: l.MaxSize, MinFree: l.MinFree, MaxAge: int64(l.MaxAge / time.Second)}, b.Report)
				b.Close()
				if err != nil {
					return err
				}
				return a.show(r, func(w io.Writer) error { return printGC(w, r, !l.None()) })
			})
		},
	}
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only say what would be freed")
	space.flags(cmd)
	t.mountFlag(cmd)
	t.storeFlag(cmd)
	return cmd
}

func printGC(w io.Writer, r *control.GCReport, limited bool) error {
	freed, removed := "freed", "removed"
	if r.DryRun {
		freed, removed = "would free", "would remove"
	}
	for _, p := range r.Removed {
		if _, err := fmt.Fprintf(w, "%s %s (%s), not used since %s\n", removed, printable(p.Path), size(p.Bytes), p.Used.Local().Format(time.DateOnly)); err != nil {
			return err
		}
	}
	if _, err := fmt.Fprintf(w, "%s %s in %s and %s; %s in %s stay\n", freed, size(r.Bytes), plural(r.Blobs, "blob"), plural(r.Trees, "tree"),
		size(r.KeptBytes), plural(r.KeptBlobs, "blob")); err != nil {
		return err
	}
	if !limited {
		return nil
	}
	if _, err := fmt.Fprintf(w, "%s %s (%s, before sharing of equal content); %s that environments have links to stay\n", removed,
		plural(len(r.Removed), "package"), size(r.RemovedBytes), plural(r.Linked, "package")); err != nil {
		return err
	}
	for _, note := range []struct {
		n    int64
		text string
	}{
		{r.AwaitedBytes, "%s of packages that were removed before are free when sessions end\n"},
		{r.Over, "%s are above the limits, and nothing more can go\n"},
	} {
		if note.n > 0 {
			if _, err := fmt.Fprintf(w, note.text, size(note.n)); err != nil {
				return err
			}
		}
	}
	if r.NoTimes {
		_, err := fmt.Fprintln(w, "the store's file system notes no use (noatime): the oldest packages go first")
		return err
	}
	return nil
}
