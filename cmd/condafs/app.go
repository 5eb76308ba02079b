package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"condafs/fault"
	"condafs/handover"
)

// app is what commands share.
type app struct {
	in       io.Reader
	out, err io.Writer
	getenv   func(string) string

	signals *handover.Signals // ^C and SIGTERM

	json       bool   // --json
	quiet      bool   // --quiet
	confirms   bool   // what the command prints only says that it is done
	configFile string // --config
	configSaid bool   // it was given
	// began is set when a command starts: errors before are those of usage.
	began bool
}

// main runs one command line and returns its exit status.
func (a *app) main(args []string) int {
	a.signals = handover.Catch(syscall.SIGINT, syscall.SIGTERM)
	defer a.signals.Hold() //nolint:errcheck // it is over, whatever has come
	root := a.root()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(a.signals.Context())
	return a.finish(cmd, err)
}

// root assembles the commands.
func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "condafs",
		Short: "A package cache that many conda clients share safely",
		Long: `condafs mounts a package cache that any number of conda, mamba, pixi and Rattler
processes use at once. Each of them works on a view of its own; packages that
they complete are verified and appear to the others whole, or not at all.`,
		Example: `  condafs mount ~/conda-cache
  condafs run -- conda create -y -n py312 python=3.12
  condafs status
  condafs umount ~/conda-cache`,
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRun: func(cmd *cobra.Command, _ []string) {
			a.began = true
			a.configSaid = cmd.Flags().Changed("config")
			dry := cmd.Flags().Lookup("dry-run")
			a.confirms = slices.Contains(confirming, cmd.Name()) && (dry == nil || !dry.Changed)
		},
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			if l := cmd.SuggestionsFor(args[0]); len(l) > 0 {
				return fmt.Errorf("unknown command %q; did you mean %s?", args[0], strings.Join(l, " or "))
			}
			return fmt.Errorf("unknown command %q", args[0])
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print JSON (see `condafs help json`)")
	root.PersistentFlags().Lookup("json").Usage = "print JSON; its shapes: condafs help json"
	root.PersistentFlags().BoolVarP(&a.quiet, "quiet", "q", false, "show no progress, and do not say that something is done")
	root.PersistentFlags().StringVar(&a.configFile, "config", "", "read this configuration `file` in place of the usual one; see condafs config")
	root.SuggestionsMinimumDistance = 2
	root.AddCommand(
		a.mountCommand(), a.umountCommand(), a.upgradeCommand(), a.takeoverCommand(), a.askCommand(), a.witnessCommand(), a.runCommand(), a.envCommand(), a.configCommand(), a.doctorCommand(), a.setupCommand(),
		a.sessionsCommand(), a.commitCommand(), a.discardCommand(),
		a.statusCommand(), a.topCommand(), a.lsCommand(), a.logCommand(),
		a.verifyCommand(), a.repairCommand(), a.scrubCommand(), a.rebuildCommand(), a.gcCommand(), a.importCommand(), a.exportCommand(),
		a.demoCommand(), a.demoClientCommand(), a.benchCommand(), a.benchWorkerCommand(),
		a.generateCommand(), a.versionCommand(), jsonTopic(),
	)
	return root
}

// confirming are the commands that only say that they have done what they were to do: with
// --quiet they don't. What they would do, or print as JSON, was asked for.
var confirming = []string{"mount", "umount", "upgrade", "discard", "gc", "setup"}

// status is an exit status that a command has chosen, without a message.
type status int

func (s status) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// finish tells what went wrong, in one line, and returns the exit status.
func (a *app) finish(cmd *cobra.Command, err error) int {
	var s status
	switch {
	case err == nil:
		return 0
	case errors.As(err, &s):
		return int(s)
	case !a.began:
		err = fault.New("", "", fault.Usage, err).WithHint("see `" + cmd.CommandPath() + " --help`")
	}
	fmt.Fprintln(a.err, "condafs: "+oneLine(err.Error()))
	return exitStatus(err)
}

func exitStatus(err error) int {
	switch fault.KindOf(err) {
	case fault.Usage:
		return 2
	case fault.Corrupt:
		return 3
	case fault.NotMounted:
		return 4
	}
	return 1
}

// oneLine keeps joined errors on one line.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}

// warn tells something beside a command's result.
func (a *app) warn(format string, args ...any) {
	fmt.Fprintln(a.err, "condafs: "+oneLine(fmt.Sprintf(format, args...)))
}
