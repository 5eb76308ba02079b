package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"condafs/control"
	"condafs/doctor"
	"condafs/fs"
)

// Diagnosis is what `condafs doctor --json` prints.
type Diagnosis struct {
	Findings []doctor.Finding `json:"findings"`
	Fixed    []string         `json:"fixed"` // dead mounts that were taken away
}

func (a *app) doctorCommand() *cobra.Command {
	var fix bool
	var mount string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Find what keeps condafs from working well, and say what mends it",
		Long: `Look at the machine, the mounts, the stores and where clients keep their packages,
and say what is wrong with the command that mends it. Nothing is changed, but that with
--fix mounts are taken away whose daemon has died ("Transport endpoint is not connected").

The exit status is 1 if something is wrong. Warnings are about what works, but could
work better.`,
		Example: "  condafs doctor\n  condafs doctor --fix\n  condafs doctor --json | jq '.findings[] | select(.state != \"ok\")'",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			d, err := a.diagnose(mount, fix)
			if err != nil {
				return err
			}
			if err := a.show(d, func(w io.Writer) error { return d.print(w, coloured(a.out, a.getenv)) }); err != nil {
				return err
			}
			if doctor.Worst(d.Findings) == doctor.Wrong {
				return status(1)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&mount, "mount", "", "look at the mount at this `point` only")
	cmd.Flags().BoolVar(&fix, "fix", false, "take away mounts whose daemon has died")
	return cmd
}

func (a *app) diagnose(mount string, fix bool) (*Diagnosis, error) {
	// What is wrong with the configuration is said by itself, as any command does.
	o, err := a.configuredOptions()
	if err != nil {
		return nil, err
	}
	mounts := control.Mounts
	if mount != "" {
		if o.mountPoint, err = absolute(mount); err != nil {
			return nil, err
		}
		mounts = func() ([]control.Mount, error) {
			l, err := control.Mounts()
			return slices.DeleteFunc(l, func(m control.Mount) bool { return m.Point != o.mountPoint }), err
		}
	}
	p := &doctor.Patient{
		UID: os.Geteuid(), Getenv: a.getenv, MountPoint: o.mountPoint, Store: o.store, AllowOther: o.allowOther, Version: version(), Root: "/",
		Mounts: mounts, Info: control.ReadInfo, System: fs.CheckSystem, Place: fs.CheckMountPoint,
	}
	d := &Diagnosis{Findings: p.Examine(), Fixed: []string{}}
	if !fix {
		return d, nil
	}
	for _, f := range d.Findings {
		if f.Stale == "" {
			continue
		}
		if err := heal(f.Stale); err != nil {
			return nil, err
		}
		d.Fixed = append(d.Fixed, f.Stale)
	}
	if len(d.Fixed) > 0 {
		d.Findings = p.Examine()
	}
	return d, nil
}

// colours of the states on a terminal.
var colours = map[doctor.State]string{doctor.Fine: "\x1b[32m", doctor.Warning: "\x1b[33m", doctor.Wrong: "\x1b[31m"}

func (d *Diagnosis) print(w io.Writer, colour bool) error {
	var b strings.Builder
	for _, p := range d.Fixed {
		fmt.Fprintf(&b, "taken away: the dead mount at %s\n", printable(p))
	}
	for _, f := range d.Findings {
		state := fmt.Sprintf("%-7s", f.State)
		if colour {
			state = colours[f.State] + state + "\x1b[0m"
		}
		fmt.Fprintf(&b, "%s  %s: %s\n", state, printable(f.Check), printable(f.What))
		if f.Mend != "" {
			fmt.Fprintf(&b, "         → %s\n", printable(f.Mend))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// coloured tells whether to write colours: to a terminal that has some, unless its user
// wants none.
func coloured(w io.Writer, getenv func(string) string) bool {
	return isTerminal(w) && getenv("NO_COLOR") == "" && getenv("TERM") != "dumb"
}
