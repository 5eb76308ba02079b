//go:build condafs_faults

package failpoint

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// rule is one word of the environment: POINT=ACTION[@N] does it at the Nth time (the
// first if N is missing), POINT=ACTION@N+ from then on. An action is kill,
// delay:DURATION, fsync:PATH, or the name of an errno.
type rule struct {
	point  Point
	action string // kill, delay, fsync, or "" for errno
	delay  time.Duration
	path   string
	errno  unix.Errno
	from   int
	sticky bool
	passed int
}

// errnos are those that a disk or the system can give.
var errnos = []unix.Errno{unix.ENOSPC, unix.EDQUOT, unix.EIO, unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.EROFS}

func parse(spec string) ([]*rule, error) {
	var rules []*rule
	for _, word := range strings.Fields(spec) {
		r, err := parseRule(word)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", word, err)
		}
		rules = append(rules, r)
	}
	return rules, nil
}

func parseRule(word string) (*rule, error) {
	point, rest, ok := strings.Cut(word, "=")
	if !ok {
		return nil, fmt.Errorf("no action")
	}
	r := &rule{point: Point(point), from: 1}
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		count := rest[at+1:]
		count, r.sticky = strings.CutSuffix(count, "+")
		var err error
		if r.from, err = strconv.Atoi(count); err != nil || r.from < 1 {
			return nil, fmt.Errorf("count %q", count)
		}
		rest = rest[:at]
	}
	action, arg, _ := strings.Cut(rest, ":")
	switch action {
	case "kill":
		r.action = action
	case "delay":
		d, err := time.ParseDuration(arg)
		if err != nil {
			return nil, err
		}
		r.action, r.delay = action, d
	case "fsync":
		r.action, r.path = action, arg
	default:
		i := slices.IndexFunc(errnos, func(e unix.Errno) bool { return unix.ErrnoName(e) == action })
		if i < 0 {
			return nil, fmt.Errorf("action %q", action)
		}
		r.errno = errnos[i]
	}
	return r, nil
}

// due counts a pass and tells whether the rule acts on it.
func (r *rule) due() bool {
	r.passed++
	return r.passed == r.from || r.sticky && r.passed > r.from
}

func (r *rule) act() error {
	switch r.action {
	case "kill":
		die(r.point)
	case "delay":
		time.Sleep(r.delay)
	case "fsync":
		return fsync(r.path)
	default:
		return r.errno
	}
	return nil
}

// fsync syncs a directory, which tells a file system of the tests that has no other
// way to hear of syncfs.
func fsync(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	err = unix.Fsync(fd)
	if cerr := unix.Close(fd); err == nil {
		err = cerr
	}
	return err
}
