package main

import (
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"condafs/daemon"
	"condafs/handover"
)

// takeoverCommand is what a daemon starts another program with that is to take its place.
func (a *app) takeoverCommand() *cobra.Command {
	var handed string
	var rehearse bool
	var guard int
	cmd := &cobra.Command{
		Use:    daemon.TakeoverCommand + " [MOUNTPOINT]",
		Short:  "Go on with another program's daemon (condafs upgrade uses it)",
		Hidden: true,
		Args:   cobra.MaximumNArgs(2), // the mount point is for people who look at the list of processes
		RunE: func(_ *cobra.Command, args []string) error {
			if guard > 0 {
				return guardMount(guard, args)
			}
			t, err := daemon.NewTakeover(handed)
			if err != nil {
				return err
			}
			if !rehearse {
				return a.takeOver(t, strings.Join(args, ""))
			}
			if err := t.Read(); err != nil {
				return err
			}
			return t.Rehearse(a.out, version())
		},
	}
	f := cmd.Flags()
	// More goes into handed, and not into flags of its own: programs of other versions must
	// understand each other.
	f.StringVar(&handed, "handed", "", "what the other program hands over, as JSON")
	f.BoolVar(&rehearse, "rehearse", false, "only say whether this program could")
	f.IntVar(&guard, "guard", 0, "take the mount away if the daemon, of this `pid`, ends meanwhile")
	return cmd
}

// guardMount is the process that does what a daemon would do that is told to stop, if it
// ends while programs change: its sessions and its store are safe by then.
func guardMount(pid int, args []string) error {
	ended, err := handover.Watch(daemon.GuardFD, pid)
	if err != nil || !ended || len(args) != 2 {
		return err
	}
	return daemon.CleanUp(args[0], args[1])
}

// takesOver tells whether a command line is that of a program that is now the daemon.
func takesOver(args []string) bool {
	return len(args) > 0 && args[0] == daemon.TakeoverCommand && !slices.Contains(args, "--rehearse") && !slices.Contains(args, "--guard")
}

// takeOver is the daemon, from where the other program has stopped.
func (a *app) takeOver(t *daemon.Takeover, mountPoint string) error {
	t.Hurry(mountPoint, a.signals)
	// The kernel has named the process after the descriptor that it was started by. Only
	// people look at that.
	_ = os.WriteFile("/proc/self/comm", []byte("condafs"), 0)
	err := t.Read()
	if err != nil {
		return t.GiveBack(err, a.signals)
	}
	s := t.Settings()
	log, closeLog, err := a.logger(s.LogFile, s.LogFormat, s.Verbose)
	if err != nil {
		return t.GiveBack(err, a.signals)
	}
	err = t.Run(daemon.Config{Version: version(), Logger: log, Signals: a.signals})
	if daemon.NotTaken(err) {
		log.Error("cannot take over", "version", version(), "err", err.Error())
		err = t.GiveBack(err, a.signals)
	}
	return endDaemon(log, s.LogFile, err, closeLog)
}
