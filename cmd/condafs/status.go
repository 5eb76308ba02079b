package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"condafs/control"
	"condafs/cow"
)

func (a *app) statusCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Describe the daemon, its store and what is in quarantine",
		Example: `  condafs status
  condafs status --json | jq .head`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(t, false, func(api control.API) error {
				s, err := api.Status(cmd.Context())
				if err != nil {
					return err
				}
				return a.show(s, func(w io.Writer) error { return printStatus(w, s) })
			})
		},
	}
	t.mountFlag(cmd)
	t.storeFlag(cmd)
	return cmd
}

func printStatus(w io.Writer, s *control.Status) error {
	rows := [][]string{}
	if s.PID != 0 {
		rows = append(rows,
			[]string{"mount", s.MountPoint},
			[]string{"daemon", fmt.Sprintf("pid %d, %s, since %s", s.PID, s.Version, when(s.Started))},
			[]string{"sessions", strconv.Itoa(s.Sessions)})
	}
	if s.Upgraded != nil {
		rows = append(rows, []string{"upgraded", upgradeLine(s.Upgraded)})
	}
	if sh := s.Shelf; sh != nil {
		rows = append(rows, []string{"shelf", fmt.Sprintf("%s in %s (%s)", plural(sh.Packages, "package"), sh.Path, sh.Sharing)})
	}
	rows = append(rows, userRows(s.Users)...)
	rows = append(rows,
		[]string{"store", s.Store + ", of " + who(s.Owner)},
		[]string{"snapshot", strconv.FormatUint(s.Head, 10)},
		[]string{"packages", fmt.Sprintf("%d extracted, %s", s.Packages, plural(s.Archives, "archive"))},
		[]string{"files", fmt.Sprintf("%s on disk in %s, for %s of content", size(s.StoredBytes), plural(s.Blobs, "blob"), size(s.LogicalBytes))},
		[]string{"scrub", scrubLine(s.Scrub)},
		[]string{"quarantine", quarantineLine(s)})
	if l := s.Scrub.Last; l != nil {
		rows = slices.Insert(rows, len(rows)-1, []string{"", lastScrubLine(l)})
	}
	if err := table(w, rows); err != nil {
		return err
	}
	for _, q := range s.Quarantine {
		if _, err := fmt.Fprintf(w, "  %s  %s  %s  %s: %s\n", q.ID, when(q.Time), size(q.Bytes), printable(q.Path), printable(q.Reason)); err != nil {
			return err
		}
	}
	return nil
}

// upgradeLine tells of the last time that another program took the daemon's place.
func upgradeLine(u *control.Upgrade) string {
	if u.State == control.UpgradeFailed {
		return fmt.Sprintf("not to %s, %s: %s", u.To, when(u.Time), u.Why)
	}
	return fmt.Sprintf("from %s, %s", u.From, when(u.Time))
}

// userRows tells what holds between users.
func userRows(u *control.Users) [][]string {
	if u == nil {
		return nil
	}
	shared := "verified packages of everybody"
	switch cow.Sharing(u.Sharing) {
	case cow.ShareNone:
		shared = "nothing"
	case cow.ShareTrusted:
		shared = "verified packages of root, the owner"
		for _, uid := range u.Trusted {
			shared += ", " + who(uid)
		}
	}
	rows := [][]string{{"shared", shared}, {"limits", "each other user: " + amountsLine(u.Limits, true)}}
	for _, x := range u.Usage {
		rows = append(rows, []string{"", who(x.UID) + ": " + amountsLine(x.Amounts, false)})
	}
	return rows
}

// amountsLine names amounts. A limit of 0 is none.
func amountsLine(a control.Amounts, limit bool) string {
	number := func(n int64, text string) string {
		if n == 0 && limit {
			return "any number"
		}
		return text
	}
	return fmt.Sprintf("%s, %s, %s in %s",
		number(a.Sessions, strconv.FormatInt(a.Sessions, 10))+" sessions", number(a.Open, strconv.FormatInt(a.Open, 10))+" open files",
		number(a.Bytes, size(a.Bytes)), number(a.Files, strconv.FormatInt(a.Files, 10))+" files")
}

func quarantineLine(s *control.Status) string {
	if len(s.Quarantine) == 0 {
		return "empty"
	}
	return fmt.Sprintf("%s, %s", plural(len(s.Quarantine), "thing"), size(s.QuarantinedBytes))
}
