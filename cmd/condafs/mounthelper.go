package main

import (
	"errors"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"condafs/control"
	"condafs/fault"
	"condafs/fs"
)

// mountHelper is the name by which mount(8) starts this program, for file systems of the
// type fuse.condafs: a link to it in /sbin. There is none for umount(8), which would start
// it for relative paths only; the daemon ends in order when it is unmounted by others, too.
const mountHelper = "mount." + control.FSType

// Exit statuses of mount(8).
const (
	mountUsage  = 1
	mountFailed = 32
)

// isMountHelper tells whether the program was started by that name.
func isMountHelper(arg0 string) bool { return filepath.Base(arg0) == mountHelper }

// mountHelper says the same as `condafs mount`, and returns an exit status of mount(8)'s.
func (a *app) mountHelper(args []string) int {
	h := &helper{}
	line, err := h.mount(args)
	if err != nil {
		a.warn("%v", err)
		return helperStatus(exitStatus(err))
	}
	if line == nil {
		return 0
	}
	if !h.verbose {
		a.out = io.Discard
	}
	return helperStatus(a.main(line))
}

func helperStatus(code int) int {
	switch code {
	case 0:
		return 0
	case exitStatus(fault.New("", "", fault.Usage, nil)):
		return mountUsage
	}
	return mountFailed
}

// helper is a command line of mount(8)'s.
type helper struct {
	verbose bool
	sloppy  bool // leave out options that are unknown
	fake    bool // do nothing
	options []string
}

// parse reads the flags of mount helpers, and returns the store and the mount point.
func (h *helper) parse(args []string) (store, point string, err error) {
	f := pflag.NewFlagSet(mountHelper, pflag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.BoolVarP(&h.verbose, "verbose", "v", false, "")
	f.BoolVarP(&h.sloppy, "sloppy", "s", false, "")
	f.BoolVarP(&h.fake, "fake", "f", false, "")
	f.StringArrayVarP(&h.options, "options", "o", nil, "")
	// There is no mtab, one type, and the namespace is entered by mount(8) itself.
	f.BoolP("no-mtab", "n", false, "")
	f.StringP("types", "t", "", "")
	f.StringP("namespace", "N", "", "")
	err = f.Parse(args)
	if err == nil && f.NArg() != 2 {
		err = errors.New("it is started by mount(8), with STORE and MOUNTPOINT")
	}
	if err != nil {
		return "", "", fault.New(mountHelper, "", fault.Usage, err).WithHint("people use `condafs mount`")
	}
	return f.Arg(0), f.Arg(1), nil
}

// mount returns the command line that mounts; none if there is nothing to do.
func (h *helper) mount(args []string) ([]string, error) {
	store, point, err := h.parse(args)
	if err != nil {
		return nil, err
	}
	line := []string{"mount"}
	if filepath.IsAbs(store) {
		line = append(line, "--store", store)
	} else if strings.Contains(store, "/") {
		return nil, fault.New(mountHelper, store, fault.Usage, errors.New("the store needs an absolute path")).WithHint("condafs, without a slash, means the usual one")
	}
	for _, list := range h.options {
		for opt := range strings.SplitSeq(list, ",") {
			name, _, _ := strings.Cut(opt, "=")
			switch {
			case name == "remount":
				return nil, fault.New(mountHelper, point, fault.Unsupported, errors.New("a mount keeps its options")).
					WithHint("unmount it, and mount it anew")
			case name == "user", name == "helper", name == "uhelper": // mount(8)'s notes for itself
			case h.sloppy && fs.CheckOption(opt) != nil && (&mountOptions{options: []string{opt}}).takesNone():
			default:
				line = append(line, "-o", opt)
			}
		}
	}
	if h.fake {
		return nil, nil
	}
	// `mount -a` does not see that it is there already: the kernel's list has another source.
	if info, err := control.ReadInfo(point); err == nil && (!filepath.IsAbs(store) || same(info.Store, store)) {
		return nil, nil
	}
	return append(line, "--", point), nil
}

// takesNone tells whether none of the options is condafs's own.
func (o *mountOptions) takesNone() bool {
	n := len(o.options)
	return o.takeOptions() == nil && len(o.options) == n
}
