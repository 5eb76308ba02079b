package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"condafs/control"
	"condafs/fault"
)

func (a *app) scrubCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use:   "scrub",
		Short: "Read all of the store as the disk has it, and mend what is damaged",
		Long: `Do now, and as fast as the disk can, what the daemon does in the background by itself
(see --scrub of condafs mount): read every byte of the store past the kernel's cache,
in which the disk's own damage does not show, and mend what is damaged as condafs repair
does. A reading that is under way already is brought to its end.

Stopped by ^C, it goes on at the daemon's own rate. condafs status tells how far it is.

The exit status is 3 if something was found that could not be mended: content that nobody
has, so that clients fetch it again, or a damaged database.`,
		Example: "  condafs scrub\n  condafs scrub --json | jq .found\n  condafs scrub --store /var/lib/condafs",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(t, false, func(api control.API) error {
				b := a.newBar()
				p, err := api.Scrub(cmd.Context(), control.ScrubRequest{}, b.Report)
				b.Close()
				if err != nil {
					return err
				}
				if err := a.show(p, func(w io.Writer) error { return printScrub(w, p) }); err != nil {
					return err
				}
				switch {
				case p.Left > 0:
					return fault.New("scrub", "", fault.Corrupt, fmt.Errorf("%s left", plural(p.Left, "problem"))).
						WithHint("`condafs verify` says what to do")
				case p.Lost > 0:
					return fault.New("scrub", "", fault.Corrupt, fmt.Errorf("the content of %s is lost; clients fetch it again", plural(p.Lost, "file")))
				}
				return nil
			})
		},
	}
	t.mountFlag(cmd)
	t.storeFlag(cmd)
	return cmd
}

func printScrub(w io.Writer, p *control.ScrubPass) error {
	var b strings.Builder
	writeProblems(&b, &control.VerifyReport{Problems: p.Problems})
	if more := p.Found - int64(len(p.Problems)); more > 0 {
		fmt.Fprintf(&b, "and %d more\n", more)
	}
	fmt.Fprintf(&b, "%s\n", passLine(p))
	_, err := io.WriteString(w, b.String())
	return err
}

// passLine tells what a pass has read and found.
func passLine(p *control.ScrubPass) string {
	return fmt.Sprintf("%s in %s, %s", size(p.Bytes), plural(p.Blobs, "blob"), foundLine(p))
}

func foundLine(p *control.ScrubPass) string {
	if p.Found == 0 {
		return "nothing found"
	}
	return fmt.Sprintf("%s found: %d mended, %d lost, %d left", plural(p.Found, "problem"), p.Mended, p.Lost, p.Left)
}

// scrubLine tells what the scrub does at the moment.
func scrubLine(s control.Scrub) string {
	line := "off"
	if s.Rate > 0 {
		line = fmt.Sprintf("%s a second, every %s", size(s.Rate), days(time.Duration(s.Every)*time.Second))
	}
	if p := s.Pass; p != nil {
		line += fmt.Sprintf("; since %s: %s of %s, %s", when(p.Started), size(p.Bytes), size(max(p.Total, p.Bytes)), foundLine(p))
	}
	switch {
	case s.Error != "":
		line += "; it has stopped: " + s.Error
	case s.Running || s.Next.IsZero():
	case s.Pass != nil:
		line += "; goes on " + when(s.Next)
	default:
		line += "; next " + when(s.Next)
	}
	return line
}

func lastScrubLine(p *control.ScrubPass) string {
	return fmt.Sprintf("last ended %s: %s", when(p.Finished), passLine(p))
}

// days prints a time in days, if it has some and no rest.
func days(d time.Duration) string {
	const day = 24 * time.Hour
	if d < day || d%day != 0 {
		return d.String()
	}
	return plural(int64(d/day), "day")
}
