package control

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"condafs/fault"
)

// FSType is the type of condafs mounts in the kernel's list.
const FSType = "fuse.condafs"

// Mount is a line of the kernel's list of mounts.
type Mount struct {
	Point  string // where
	Root   string // what part of the file system; "/" unless it is a bind mount
	Type   string
	Device string // major:minor
}

// Mounts lists the mounts of the calling process's namespace, in the order in which
// they were made.
func Mounts() ([]Mount, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fault.New("list mounts", "", fault.Other, err)
	}
	l, err := ParseMounts(f)
	if cerr := f.Close(); err == nil && cerr != nil {
		err = fault.New("list mounts", "", fault.Other, cerr)
	}
	return l, err
}

// ParseMounts reads the format of /proc/PID/mountinfo.
func ParseMounts(r io.Reader) ([]Mount, error) {
	var l []Mount
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		// id parent major:minor root mountpoint options [optional…] - type source super
		left, right, ok := strings.Cut(sc.Text(), " - ")
		f := strings.Fields(left)
		t := strings.Fields(right)
		if !ok || len(f) < 6 || len(t) < 1 {
			continue
		}
		l = append(l, Mount{Device: f[2], Root: unescape(f[3]), Point: unescape(f[4]), Type: t[0]})
	}
	if err := sc.Err(); err != nil {
		return nil, fault.New("list mounts", "", fault.Other, err)
	}
	return l, nil
}

// unescape undoes the kernel's \040 and the like.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// Info is what a daemon tells about itself in the file .condafs of its mount.
type Info struct {
	Socket  string `json:"socket"`
	Store   string `json:"store"`
	Shelf   string `json:"shelf,omitempty"` // a directory to take packages from natively
	PID     int    `json:"pid"`
	Version string `json:"version"`
}

// InfoName is the name of that file.
const InfoName = ".condafs"

// ErrDead is the cause when a mount is there and its daemon isn't.
var ErrDead = errors.New("it has died and left its mount behind")

// ErrHangs is the cause when a daemon seems to be there and gives no answer.
var ErrHangs = errors.New("the mount has not answered")

// answerTimeout is how long a mount may take to answer. A healthy one needs less
// than a millisecond.
const answerTimeout = 20 * time.Second

// ReadInfo asks the mount at point who serves it.
func ReadInfo(point string) (Info, error) {
	const op = "find the daemon of"
	type result struct {
		b   []byte
		err error
	}
	// A daemon that hangs must not hang the caller: the read is left behind, and the
	// process that asked will not live long.
	done := make(chan result, 1)
	go func() {
		b, err := readSmall(filepath.Join(point, InfoName))
		done <- result{b, err}
	}()
	t := time.NewTimer(answerTimeout)
	defer t.Stop()
	select {
	case <-t.C:
		return Info{}, fault.New(op, point, fault.NotMounted, fmt.Errorf("%w for %v", ErrHangs, answerTimeout)).
			WithHint("`condafs umount --lazy " + point + "` gives it up")
	case r := <-done:
		switch {
		case errors.Is(r.err, syscall.ENOTCONN):
			return Info{}, fault.New(op, point, fault.NotMounted, ErrDead).
				WithHint("`condafs mount " + point + "` mends that")
		case errors.Is(r.err, os.ErrNotExist), errors.Is(r.err, syscall.ENOTDIR):
			return Info{}, fault.New(op, point, fault.NotMounted, errors.New("no condafs is mounted there")).
				WithHint("`condafs mount " + point + "` starts one")
		case errors.Is(r.err, os.ErrPermission):
			return Info{}, fault.New(op, point, fault.Permission, errors.New("permission denied")).
				WithHint("the mount is another user's and was made without --allow-other")
		case r.err != nil:
			return Info{}, fault.New(op, point, fault.NotMounted, r.err)
		}
		var i Info
		if err := json.NewDecoder(bytes.NewReader(r.b)).Decode(&i); err != nil || i.Socket == "" {
			return Info{}, fault.New(op, point, fault.NotMounted, fmt.Errorf("its %s names no socket", InfoName))
		}
		return i, nil
	}
}

func readSmall(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, 1<<16))
	return b, errors.Join(err, f.Close())
}

// OnlyMount returns the mount point of the single condafs mount in l.
func OnlyMount(l []Mount) (string, error) {
	var points []string
	for _, m := range l {
		// Binds of one session, as `condafs run` makes them, are not mounts of their own.
		if m.Type == FSType && m.Root == "/" && !slices.Contains(points, m.Point) {
			points = append(points, m.Point)
		}
	}
	switch len(points) {
	case 0:
		return "", fault.New("find the mount", "", fault.NotMounted, errors.New("no condafs is mounted")).
			WithHint("`condafs mount MOUNTPOINT` starts one")
	case 1:
		return points[0], nil
	}
	return "", fault.New("find the mount", "", fault.Usage, fmt.Errorf("several are there: %s", strings.Join(points, ", "))).
		WithHint("choose with --mount or $CONDAFS_MOUNT")
}
