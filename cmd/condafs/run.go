package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"condafs/control"
	"condafs/fault"
)

// runOptions are the flags of run.
type runOptions struct {
	target
	label     string
	ephemeral bool
	onFailure string
	namespace string
	fresh     bool
	noShelf   bool
	verbose   bool
}

// Values of --namespace.
const (
	nsAuto   = "auto"
	nsAlways = "always"
	nsNever  = "never"
)

func (a *app) runCommand() *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use:   "run [flags] -- COMMAND [ARG...]",
		Short: "Run a command in a session of its own",
		Long: `Run a command in a session of its own: it and all processes that it starts share
one view of the cache and one overlay, and CONDA_PKGS_DIRS and RATTLER_CACHE_DIR
point there. At the end what is complete is committed.

If the command fails, --on-failure decides:
  keep-units  commit complete, verified packages and drop the rest (the default)
  discard     commit nothing
  keep        leave the session as it is, for ` + "`condafs commit` or `condafs discard`" + `

Where it is allowed, the command gets a private mount namespace in which
MOUNTPOINT/pkgs is the session's own directory; that is faster, and no client ever
sees another path. Users who are not root need user namespaces for it, in which
sudo does not work and other users' files show as nobody's. --namespace=never does
without, --namespace=always fails where it is not allowed.

Within ` + "`condafs run`" + ` another ` + "`condafs run`" + ` joins the session around it; --new starts
one of its own (from within a private namespace only root can).

Signals and the terminal reach the command. The exit status is the command's own;
128 and the number if a signal killed it, 127 if it was not found, 126 if it could
not be executed, 1 if the session could not be committed, 4 without a mount.`,
		Example: `  condafs run -- conda create -y -n py312 python=3.12
  condafs run --label nightly --on-failure discard -- ./build.sh
  condafs run --ephemeral -- mamba install -y untrusted-package`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(); err != nil {
				return err
			}
			code, err := a.run(cmd, o, args)
			if err == nil && code != 0 {
				err = status(code)
			}
			return err
		},
	}
	f := cmd.Flags()
	f.SetInterspersed(false) // the command's own flags are not ours
	o.mountFlag(cmd)
	f.StringVar(&o.label, "label", "", "`name` of the session in lists and logs")
	f.BoolVar(&o.ephemeral, "ephemeral", false, "commit nothing, ever")
	f.StringVar(&o.onFailure, "on-failure", control.OnFailures[0], strings.Join(control.OnFailures, ", "))
	f.StringVar(&o.namespace, "namespace", nsAuto, "private mount namespace: auto, always or never")
	for name, values := range map[string][]string{"on-failure": control.OnFailures, "namespace": {nsAuto, nsAlways, nsNever}} {
		if err := cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)); err != nil {
			panic(err) // the flag is defined above
		}
	}
	f.BoolVar(&o.fresh, "new", false, "start a session even within one")
	f.BoolVar(&o.noShelf, "no-shelf", false, "show all packages on the mount, for clients that know one package directory only")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "tell what was committed")
	return cmd
}

func (o *runOptions) check() error {
	if err := control.CheckOnFailure(o.onFailure); err != nil {
		return fault.New("run", "", fault.Usage, fmt.Errorf("--on-failure: %w", err))
	}
	if !slices.Contains([]string{nsAuto, nsAlways, nsNever}, o.namespace) {
		return fault.New("run", "", fault.Usage, fmt.Errorf("--namespace %q is none of auto, always, never", o.namespace))
	}
	return nil
}

// run runs the command and returns its exit status.
func (a *app) run(cmd *cobra.Command, o runOptions, args []string) (int, error) {
	p, err := a.locate(o.target)
	if err != nil {
		return 0, err
	}
	if outer := a.getenv(envSession); outer != "" && !o.fresh && same(p.mount, a.getenv(envMount)) {
		for _, name := range []string{"label", "ephemeral", "on-failure", "namespace", "no-shelf"} {
			if cmd.Flags().Changed(name) {
				return 0, fault.New("run", "", fault.Usage, fmt.Errorf("--%s is for a new session, and this one joins %s", name, outer)).
					WithHint("add --new")
			}
		}
		return replace(args, os.Environ())
	}
	c := control.NewClient(p.socket)
	defer c.Close()
	s, err := c.Start(cmd.Context(), control.StartRequest{
		Label: o.label, Command: commandLine(args), Ephemeral: o.ephemeral, OnFailure: o.onFailure, BesideShelf: !o.noShelf && shelfAt(p.mount),
	})
	if err != nil {
		return 0, err
	}
	env := sessionEnv(os.Environ(), p, s)
	code, runErr := runChild(p.mount, s.ID, o.namespace, args, env)
	end := code
	if runErr != nil {
		end = 1
	}
	// The session ends whatever the signals that ended the command say to us.
	r, err := c.End(context.WithoutCancel(cmd.Context()), s.ID, control.EndRequest{ExitCode: end})
	if runErr != nil {
		return 0, runErr
	}
	if err != nil {
		a.warn("%v", err)
		if code == 0 {
			code = 1
		}
		return code, nil
	}
	a.tell(o, s.ID, code, r)
	return code, nil
}

// shelfAt tells whether the mount has a shelf that this user can read.
func shelfAt(mount string) bool {
	info, err := control.ReadInfo(mount)
	return err == nil && readable(info.Shelf)
}

// sessionEnv points clients at the mount.
func sessionEnv(env []string, p place, s *control.Started) []string {
	set := []string{
		"CONDA_PKGS_DIRS=" + pkgsDirs(p.mount+"/pkgs", s.Shelf),
		"RATTLER_CACHE_DIR=" + p.mount + "/rattler",
		envMount + "=" + p.mount,
		envSession + "=" + s.ID,
		envSocket + "=" + p.socket,
	}
	out := slices.DeleteFunc(slices.Clone(env), func(s string) bool {
		return slices.ContainsFunc(set, func(v string) bool { return strings.HasPrefix(s, v[:strings.IndexByte(v, '=')+1]) })
	})
	return append(out, set...)
}

// commandLine is for the log: cut to what the daemon takes, without characters
// that it refuses.
func commandLine(args []string) string {
	s := strings.ToValidUTF8(strings.Join(args, " "), "?")
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	const most = 500
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// tell says what became of the session, if asked to or if something was lost.
func (a *app) tell(o runOptions, id string, code int, r *control.Report) {
	const most = 20
	for _, l := range []struct {
		what string
		of   []control.Dropped
	}{{"dropped", r.Dropped}, {"quarantined", r.Quarantined}} {
		for i, d := range l.of {
			if i == most && !o.verbose {
				a.warn("%s: and %d more", l.what, len(l.of)-i)
				break
			}
			a.warn("%s %s: %s", l.what, printable(d.Path), printable(d.Why))
		}
	}
	if code != 0 && o.onFailure == control.KeepAll && !o.ephemeral {
		a.warn("session %s is kept; `condafs commit %s` or `condafs discard %s`", id, id, id)
	}
	if o.verbose {
		for _, u := range r.Committed {
			sign := "committed"
			if u.Deleted {
				sign = "deleted"
			}
			a.warn("%s %s (%s)", sign, printable(u.Path), u.Trust)
		}
		a.warn("session %s ended at snapshot %d: %d committed", id, r.Head, len(r.Committed))
	}
}
