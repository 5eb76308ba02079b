package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"

	journald "github.com/coreos/go-systemd/v22/journal"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"condafs/control"
	"condafs/daemon"
	"condafs/fault"
	"condafs/fs"
	"condafs/service"
	"condafs/shelf"
)

// Mounted is what `condafs mount --json` prints.
type Mounted struct {
	MountPoint string `json:"mount_point"`
	Store      string `json:"store"`
	Socket     string `json:"socket"`
	Log        string `json:"log,omitempty"`
	PID        int    `json:"pid"`
	Version    string `json:"version"`
}

// mountOptions are the flags of mount, complete after resolve.
type mountOptions struct {
	mountPoint string
	store      string
	foreground bool
	allowOther bool
	options    []string // of -o
	shelf      string
	lanes      string
	policy     policy
	scrub      scrubbing
	metrics    observing
	space      spaceLimits
	logFile    string
	logFormat  string
	verbose    bool
	readyFD    int // where to tell the parent; 0: nowhere
}

func (a *app) mountCommand() *cobra.Command {
	var o mountOptions
	cmd := &cobra.Command{
		Use:   "mount [MOUNTPOINT]",
		Short: "Mount the cache and start its daemon",
		Long: `Mount the cache and return once it answers. The daemon goes to the background and
logs to a file, whose name is printed. A mount that a dead daemon has left behind
at the same place is taken away first.

Then point clients at it by ` + "`condafs env`" + ` or ` + "`condafs run`" + `, or by hand:
CONDA_PKGS_DIRS=MOUNTPOINT/pkgs for conda and mamba, RATTLER_CACHE_DIR=MOUNTPOINT/rattler
for pixi and Rattler.

Verified packages also lie on a shelf, a plain read-only directory in the store from
which conda and mamba link natively. Its files share their bytes with the store: by
reflinks where the file system can, else as hard links (--shelf=copy never shares).

Clients of the daemon's own user unpack packages natively, in lanes: until a package is
complete, its name on the mount is a link to a directory of the store (--lanes=off lets
all go through the mount, which takes longer).

With --allow-other, users get each other's packages only if they are verified and of
somebody who is trusted: root, who runs the daemon, and --trust. What a user other than
root and who runs the daemon may use up is bounded by --limit.

The daemon reads all of the store in the background, as the disk has it, and mends what
has been damaged as condafs repair does: every --scrub-every, at --scrub bytes a second,
and when the disk has nothing else to do. condafs status tells how far it has come.

--metrics serves figures for Prometheus and a page for browsers, to this machine only
unless the address says otherwise.

The store is $XDG_DATA_HOME/condafs (~/.local/share/condafs), for root
/var/lib/condafs, and is made if it is not there. It should be on the file system
of the environments. The mount point is ~/conda-cache, for root /var/cache/condafs,
unless it is named. All of this can be set in a file: see condafs config.`,
		Example: `  condafs mount ~/conda-cache
  condafs mount --store /srv/condafs --allow-other /condafs
  condafs mount --allow-other --trust ci,1007 --limit bytes=20GiB /condafs
  condafs mount --scrub 50MB --scrub-every 2d ~/conda-cache
  condafs mount --foreground -o noatime,max_read=131072 /condafs`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.settings(cmd.LocalNonPersistentFlags(), args)
			if err != nil {
				return err
			}
			o.mountPoint = s.point
			if err := a.resolveMount(&o); err != nil {
				return err
			}
			if len(args) == 0 {
				if err := makeMountPoint(o.mountPoint); err != nil {
					return err
				}
			}
			if o.foreground {
				return a.serve(o)
			}
			return a.background(cmd.Context(), o)
		},
	}
	o.flags(cmd)
	return cmd
}

func (o *mountOptions) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.store, "store", "", "`directory` of the store")
	f.BoolVarP(&o.foreground, "foreground", "f", false, "stay in the foreground and log to standard error")
	f.BoolVar(&o.allowOther, "allow-other", false, "let other users of the host in")
	f.StringVar(&o.shelf, "shelf", string(shelf.Auto), "keep verified packages in a plain directory beside the mount, and `how`: auto, off, link, reflink or copy")
	f.StringVar(&o.lanes, "lanes", laneModes[0], "let clients of the daemon's own user unpack packages natively, past the mount, where that is safe: auto or off")
	o.policy.flags(cmd)
	o.scrub.flags(cmd)
	o.metrics.flags(cmd)
	o.space.flags(cmd)
	f.StringArrayVarP(&o.options, "options", "o", nil, "mount `options`, with commas between: allow_other, store=DIR, log=FILE, noatime, max_read=BYTES, …")
	f.StringVar(&o.logFile, "log-file", "", "log to this `file`")
	f.StringVar(&o.logFormat, "log-format", "text", "text or json")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "log details, too")
	f.IntVar(&o.readyFD, "ready-fd", 0, "")
	if err := f.MarkHidden("ready-fd"); err != nil {
		panic(err) // the flag is defined above
	}
	for flag, choice := range map[string][]string{"shelf": shelfModes(), "lanes": laneModes} {
		if err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(choice, cobra.ShellCompDirectiveNoFileComp)); err != nil {
			panic(err) // the flag is defined above
		}
	}
}

// resolveMount fills in defaults and makes paths absolute.
func (a *app) resolveMount(o *mountOptions) (err error) {
	if err := o.takeOptions(); err != nil {
		return err
	}
	if !slices.Contains([]string{"text", "json"}, o.logFormat) {
		return fault.New("mount", "", fault.Usage, fmt.Errorf("--log-format %q is neither text nor json", o.logFormat))
	}
	if err := checkChoice("mount", "shelf", o.shelf, shelfModes()); err != nil {
		return err
	}
	if err := checkChoice("mount", "lanes", o.lanes, laneModes); err != nil {
		return err
	}
	if _, _, _, err := o.policy.resolve(); err != nil {
		return err
	}
	if _, _, err := o.scrub.resolve(); err != nil {
		return err
	}
	if err := o.metrics.resolve(); err != nil {
		return err
	}
	if _, err := o.space.resolve("mount"); err != nil {
		return err
	}
	if o.mountPoint, err = absolute(o.mountPoint); err != nil {
		return err
	}
	if o.store == "" {
		if o.store, err = a.defaultStore(os.Geteuid()); err != nil {
			return err
		}
	}
	if o.store, err = absolute(o.store); err != nil {
		return err
	}
	if o.logFile == "" && !o.foreground {
		o.logFile, err = a.defaultLog(o.mountPoint, os.Geteuid())
	} else if o.logFile != "" {
		o.logFile, err = absolute(o.logFile)
	}
	return err
}

// laneModes are what --lanes may be; the first is the default.
var laneModes = []string{"auto", "off"}

func shelfModes() []string {
	var names []string
	for _, m := range shelf.Modes {
		names = append(names, string(m))
	}
	return names
}

// valuedOptions are those of -o that say what flags of mount say.
var valuedOptions = []string{"store", "log", "shelf", "lanes", "share", "trust", "limit", "scrub", "scrub_every", "metrics", "max_size", "min_free", "max_age"}

// takeOptions takes those of -o that are condafs's own; the rest is for the mount.
func (o *mountOptions) takeOptions() error {
	var rest []string
	for _, list := range o.options {
		for opt := range strings.SplitSeq(list, ",") {
			name, value, _ := strings.Cut(opt, "=")
			switch {
			case name == "":
			case name == "allow_other":
				o.allowOther = true
			case slices.Contains(valuedOptions, name):
				if value == "" {
					return fault.New("mount", "", fault.Usage, fmt.Errorf("-o %s needs a value", name))
				}
				switch name {
				case "store":
					o.store = value
				case "log":
					o.logFile = value
				case "shelf":
					o.shelf = value
				case "lanes":
					o.lanes = value
				case "scrub", "scrub_every":
					o.scrub.take(name, value)
				case "max_size", "min_free", "max_age":
					o.space.take(name, value)
				case "metrics":
					o.metrics.address = value
				default:
					o.policy.take(name, value)
				}
			default:
				rest = append(rest, opt)
			}
		}
	}
	o.options = rest
	return nil
}

// serve is the daemon itself.
func (a *app) serve(o mountOptions) error {
	log, closeLog, err := a.logger(o.logFile, o.logFormat, o.verbose)
	if err != nil {
		return err
	}
	ready := a.readiness(o)
	if err := heal(o.mountPoint); err != nil {
		return ready.failed(errors.Join(err, closeLog()))
	}
	sharing, trusted, quota, err := o.policy.resolve()
	if err != nil {
		return ready.failed(errors.Join(err, closeLog()))
	}
	rate, every, err := o.scrub.resolve()
	if err != nil {
		return ready.failed(errors.Join(err, closeLog()))
	}
	space, err := o.space.resolve("mount")
	if err != nil {
		return ready.failed(errors.Join(err, closeLog()))
	}
	// Modes come from clients, with their umask applied.
	unix.Umask(0)
	err = daemon.Run(a.signals.Context(), daemon.Config{
		Settings: daemon.Settings{
			MountPoint: o.mountPoint, Store: o.store, AllowOther: o.allowOther, Options: o.options, Shelf: shelf.Mode(o.shelf),
			Sharing: sharing, Trusted: trusted, Quota: quota, Lanes: o.lanes != "off", ScrubRate: rate, ScrubEvery: every, LogFile: o.logFile, LogFormat: o.logFormat, Verbose: o.verbose,
			Metrics: o.metrics.address, Space: space,
			Socket: control.SocketPath(o.mountPoint, os.Geteuid(), o.allowOther, a.getenv),
		},
		Version: version(), Logger: log, Signals: a.signals,
	}, ready.answers)
	return ready.failed(endDaemon(log, o.logFile, err, closeLog))
}

// endDaemon tells how a daemon has ended, and closes the log.
func endDaemon(log *slog.Logger, file string, err error, closeLog func() error) error {
	if err != nil {
		service.Started(log).Failed(err.Error())
	}
	// In the foreground without a file the log is standard error, where it is told anyway.
	if err != nil && file != "" {
		log.Error("failed", "err", err.Error())
	}
	return errors.Join(err, closeLog())
}

// logger logs to the file, or to standard error in the foreground.
func (a *app) logger(file, format string, verbose bool) (*slog.Logger, func() error, error) {
	w, done := io.Writer(a.err), func() error { return nil }
	if file != "" {
		f, err := openRotatedLog(file, maxLog)
		if err != nil {
			return nil, nil, err
		}
		w, done = f, f.Close
	}
	level := slog.LevelInfo
	if verbose {
		level = slog.LevelDebug
	}
	handler := func(w io.Writer, o *slog.HandlerOptions) slog.Handler {
		o.Level = level
		if format == "json" {
			return slog.NewJSONHandler(w, o)
		}
		return slog.NewTextHandler(w, o)
	}
	if toJournal, err := journald.StderrIsJournalStream(); file == "" && err == nil && toJournal {
		return slog.New(newJournal(w, handler)), done, nil
	}
	return slog.New(handler(w, &slog.HandlerOptions{})), done, nil
}

// heal takes away what a dead daemon of ours has left at the mount point.
func heal(mountPoint string) error {
	// Not by a stat of the mount point, which the kernel may answer by itself.
	if _, err := control.ReadInfo(mountPoint); !errors.Is(err, control.ErrDead) {
		return nil // healthy, or the mount's own checks say what is wrong
	}
	l, err := control.Mounts()
	if err != nil {
		return err
	}
	typ := ""
	for _, m := range l {
		if m.Point == mountPoint {
			typ = m.Type // the last one is on top
		}
	}
	if typ == "" {
		return nil // gone meanwhile: the guard of an upgrade takes it away, too
	}
	if typ != control.FSType {
		return fault.New("mount", mountPoint, fault.Busy, fmt.Errorf("a dead mount of type %s is there", typ)).
			WithHint("unmount it, or choose another directory")
	}
	err = fs.Unmount(mountPoint, true)
	if fault.Is(err, fault.NotMounted) {
		return nil
	}
	return err
}
