package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"condafs/fault"
	"condafs/fs"
	"condafs/systemd"
)

func TestMountHelperArguments(t *testing.T) {
	for args, want := range map[string]string{
		"/s /m":                             "mount --store /s -- /m",
		"condafs /m -o rw,allow_other":      "mount -o rw -o allow_other -- /m",
		"/s /m -t fuse.condafs -n -v -o ro": "mount --store /s -o ro -- /m",
		"/s /m -o trust=a,trust=b,user=me":  "mount --store /s -o trust=a -o trust=b -- /m",
		"/s /m -sn -o bogus,scrub=off,ro":   "mount --store /s -o scrub=off -o ro -- /m",
		"/s /m -f -o bogus":                 "",
	} {
		got, err := (&helper{}).mount(strings.Fields(args))
		if err != nil || !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("%s: %q %v", args, got, err)
		}
	}
	for args, kind := range map[string]fault.Kind{
		"": fault.Usage, "/m": fault.Usage, "/s /m x": fault.Usage, "/s /m --bogus": fault.Usage, "s/t /m": fault.Usage, "/s /m -o rw,remount": fault.Unsupported,
	} {
		if line, err := (&helper{}).mount(strings.Fields(args)); !fault.Is(err, kind) {
			t.Errorf("%s: %q %v", args, line, err)
		}
	}
}

// TestMountExamples: what they say is understood.
func TestMountExamples(t *testing.T) {
	var lines [][]string // store, mount point, options
	fstab, err := systemd.Units.ReadFile("examples/fstab")
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(fstab)) {
		if f := strings.Fields(l); len(f) > 0 && f[0] != "#" {
			lines = append(lines, []string{f[0], f[1], f[3]})
		}
	}
	unit, err := systemd.Units.ReadFile("examples/srv-conda.mount")
	if err != nil {
		t.Fatal(err)
	}
	set := map[string]string{}
	for l := range strings.Lines(string(unit)) {
		name, value, _ := strings.Cut(strings.TrimSpace(l), "=")
		set[name] = value
	}
	lines = append(lines, []string{set["What"], set["Where"], set["Options"]})
	for _, l := range lines {
		args, err := (&helper{}).mount([]string{l[0], l[1], "-o", l[2]})
		if err != nil {
			t.Fatal(err)
		}
		var o mountOptions
		cmd := &cobra.Command{}
		o.flags(cmd)
		err = cmd.ParseFlags(args[1:])
		if err == nil {
			o.mountPoint = l[1]
			err = (&app{getenv: os.Getenv}).resolveMount(&o)
		}
		for _, opt := range o.options {
			err = errors.Join(err, fs.CheckOption(opt))
		}
		if err != nil || len(lines) != 3 {
			t.Errorf("%q: %v", l, err)
		}
	}
}

func TestMountHelperStatus(t *testing.T) {
	for _, c := range []struct {
		args string
		want int
	}{{"x", mountUsage}, {"/s /nonexistent/m", mountFailed}, {"/s /m -f", 0}} {
		var msg bytes.Buffer
		a := &app{out: io.Discard, err: &msg, getenv: os.Getenv}
		if got := a.mountHelper(strings.Fields(c.args)); got != c.want || (got == 0) != (msg.Len() == 0) {
			t.Errorf("%s: %d %s", c.args, got, msg.String())
		}
	}
	if !isMountHelper("/sbin/mount.fuse.condafs") || false || isMountHelper("/usr/bin/condafs") {
		t.Error("not by these names")
	}
}

// TestMountCommand uses the system's mount and umount, in a mount namespace in which /sbin
// has the helper, and fstab a line.
func TestMountCommand(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make such a system")
	}
	h := newHost(t)
	sbin := h.mkdir("sbin")
	if err := os.Symlink(h.exe, filepath.Join(sbin, mountHelper)); err != nil {
		t.Fatal(err)
	}
	h.write("fstab", h.store+" "+h.mount+" fuse.condafs log="+h.log()+",allow_other,noatime,nofail,x-systemd.requires-mounts-for=/ 0 0\n")
	cmd := h.command()
	cmd.Path = "/bin/sh"
	cmd.Args = []string{"sh", "-ec", `
		mount --make-rprivate /
		mount -t tmpfs tmpfs /run/mount # mount(8) keeps notes there
		mount -t overlay -o "lowerdir=$1:/usr/sbin" overlay /usr/sbin
		mount -t fuse.condafs -o "log=$4,allow_other" "$2" "$3"
		grep -q " $3 .*allow_other" /proc/mounts
		sh -c 'echo x > "$0/pkgs/f"' "$3" # a session that ends
		umount "$3"
		! grep " $3 " /proc/mounts
		mount --fstab "$5" -a
		mount --fstab "$5" -a # it is there
		for i in $(seq 600); do [ ! -e "$3/.head/pkgs/f" ] || break; sleep 0.1; done # by this daemon or the last
		cat "$3/.head/pkgs/f"
		umount -l "$3"
		mount -t fuse.condafs -o bogus "$2" "$3" || echo "status $?"`,
		"sh", sbin, h.store, h.mount, h.log(), filepath.Join(h.dir, "fstab")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
	var msg bytes.Buffer
	cmd.Stderr = &msg
	out, err := cmd.Output()
	if err != nil || string(out) != "x\nstatus 1\n" || strings.Count(msg.String(), "\n") != 1 || !strings.Contains(msg.String(), `mount option bogus: unknown option`) {
		if _, serr := exec.LookPath("mount"); serr != nil {
			t.Skip(serr)
		}
		t.Errorf("%v %q %s", err, out, msg.String())
	}
}
