package fs

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"condafs/fault"
)

// options are what -o said.
type options struct {
	allowOther bool
	maxRead    int      // 0: not said
	kernel     []string // for mount(2) or fusermount3
	flags      uintptr  // of mount(2), beside nosuid and nodev
}

// Options that mount(8) and fstab know, and that mean nothing to the one who mounts.
var otherPeoples = []string{"defaults", "auto", "noauto", "nofail", "_netdev", "user", "nouser", "users", "rw", "async", "default_permissions"}

// Options that go to the kernel as they are: go-fuse makes flags of some for mount(2).
var forKernel = []string{"ro", "nosuid", "nodev", "suid", "dev", "exec", "noexec", "dirsync", "sync"}

var timeFlags = map[string]uintptr{
	"noatime":     unix.MS_NOATIME,
	"nodiratime":  unix.MS_NODIRATIME,
	"relatime":    unix.MS_RELATIME,
	"strictatime": unix.MS_STRICTATIME,
}

// parseOptions reads mount options, each of which may hold several with commas
// between, as mount helpers pass them.
func parseOptions(args []string) (options, error) {
	var o options
	for _, arg := range args {
		for opt := range strings.SplitSeq(arg, ",") {
			if err := o.add(opt); err != nil {
				return o, fault.New("mount option", opt, fault.Usage, err)
			}
		}
	}
	return o, nil
}

// CheckOption tells whether a mount option is known.
func CheckOption(opt string) error {
	_, err := parseOptions([]string{opt})
	return err
}

func (o *options) add(opt string) error {
	name, value, valued := strings.Cut(opt, "=")
	switch {
	case opt == "", slices.Contains(otherPeoples, opt), strings.HasPrefix(name, "x-"), name == "comment":
	case opt == "allow_other":
		o.allowOther = true
	case slices.Contains(forKernel, opt):
		o.kernel = append(o.kernel, opt)
	case timeFlags[opt] != 0:
		o.flags |= timeFlags[opt]
	case name == "max_read":
		n, err := strconv.Atoi(value)
		if err != nil || n < 4096 {
			return fmt.Errorf("needs a number of bytes, at least 4096")
		}
		o.maxRead = n
	case valued:
		return fmt.Errorf("unknown option; known are allow_other, max_read=BYTES and %s", strings.Join(forKernel, ", "))
	default:
		return fmt.Errorf("unknown option; known are allow_other, max_read=BYTES, %s, noatime, relatime, strictatime", strings.Join(forKernel, ", "))
	}
	return nil
}
