package main

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"condafs/conda/condatest"
	"condafs/internal/notifytest"
	"condafs/systemd"
)

// serviceManager listens as systemd does.
type serviceManager struct {
	t    *testing.T
	l    *net.UnixConn
	path string
}

func newServiceManager(t *testing.T) *serviceManager {
	t.Helper()
	m := &serviceManager{t: t}
	m.l, m.path = notifytest.Listen(t)
	return m
}

// hears waits until the daemon says all of these in one message, and returns what it has
// said in between.
func (m *serviceManager) hears(parts ...string) (before string) {
	m.t.Helper()
	if err := m.l.SetReadDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		m.t.Fatal(err)
	}
	for {
		b := make([]byte, 4096)
		n, err := m.l.Read(b)
		if err != nil {
			m.t.Fatalf("waiting for %q after %q: %v", parts, before, err)
		}
		all := true
		for _, p := range parts {
			all = all && strings.Contains(string(b[:n]), p)
		}
		if all {
			return before
		}
		before += string(b[:n]) + "\n"
	}
}

// TestServiceManager runs a daemon in the foreground as systemd does, through an upgrade
// and to its end.
func TestServiceManager(t *testing.T) {
	h, m := newHost(t), newServiceManager(t)
	cmd := h.command("mount", "--foreground", "--store", h.store, h.mount)
	var log bytes.Buffer
	cmd.Stderr = &log
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+m.path, "WATCHDOG_USEC=20000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if before := m.hears("READY=1", "STATUS=serving "+h.mount+" from "+h.store); before != "" {
		t.Errorf("before it was ready it said %q", before)
	}
	h.must("status") // it is
	m.hears("WATCHDOG=1")
	m.hears("WATCHDOG=1")
	h.must("upgrade", "--binary", h.exe)
	m.hears("RELOADING=1", "MONOTONIC_USEC=", "STATUS=handing over")
	m.hears("READY=1", "STATUS=serving")
	m.hears("WATCHDOG=1")
	h.must("umount", h.mount)
	m.hears("STOPPING=1")
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, log.String())
	}
}

func TestServiceManagerHearsWhy(t *testing.T) {
	h, m := newHost(t), newServiceManager(t)
	for _, store := range []string{h.mount, "/dev/null/none"} {
		cmd := h.command("mount", "--foreground", "--store", store, h.mount)
		cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+m.path)
		if out, err := cmd.CombinedOutput(); err == nil {
			t.Errorf("%s: it ended well: %s", store, out)
		}
		if before := m.hears("STATUS=", store); strings.Contains(before, "READY") {
			t.Errorf("%s: it said %q", store, before)
		}
	}
}

// TestWatchdogsSignalIsNoWrongUsage: the unit has a daemon started again that did not answer, and none that was called wrongly.
func TestWatchdogsSignalIsNoWrongUsage(t *testing.T) {
	h, m := newHost(t), newServiceManager(t)
	cmd := h.command("mount", "--foreground", "--store", h.store, h.mount)
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+m.path)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	m.hears("READY=1")
	if err := cmd.Process.Signal(unix.SIGABRT); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != unix.SIGABRT {
		t.Errorf("it ended with %v", err)
	}
	h.start() // takes the dead mount away
	h.must("umount", h.mount)
}

// TestBackgroundIsNobodysService: the manager of who mounts has not started the daemon.
func TestBackgroundIsNobodysService(t *testing.T) {
	h, m := newHost(t), newServiceManager(t)
	t.Setenv("NOTIFY_SOCKET", m.path)
	h.start()
	h.must("umount", h.mount)
	if err := m.l.SetReadDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	raw, err := m.l.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	if err := raw.Control(func(fd uintptr) {
		if n, _, err := unix.Recvfrom(int(fd), b, unix.MSG_DONTWAIT); err != unix.EAGAIN {
			t.Errorf("it said %q, %v", b[:max(n, 0)], err)
		}
	}); err != nil {
		t.Fatal(err)
	}
}

// TestCapabilitiesOfTheUnit runs the daemon with those that its unit leaves it, for another
// user too.
func TestCapabilitiesOfTheUnit(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root has any")
	}
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		t.Skip(err)
	}
	unit, err := systemd.Units.ReadFile("system/condafs.service")
	if err != nil {
		t.Fatal(err)
	}
	_, list, ok := strings.Cut(string(unit), "\nCapabilityBoundingSet=")
	list, _, _ = strings.Cut(list, "\n")
	bounding := "-all"
	for _, c := range strings.Fields(list) {
		bounding += ",+" + strings.ToLower(strings.TrimPrefix(c, "CAP_"))
	}
	if !ok || bounding == "-all" {
		t.Fatal("the unit leaves none")
	}
	h, m := newHost(t), newServiceManager(t)
	other := h.as(12345)
	cmd := h.command()
	cmd.Path, cmd.Args = setpriv, []string{"setpriv", "--bounding-set", bounding, "--no-new-privs", h.exe, "mount", "--foreground", "--allow-other", "--log-file", h.log(), "--store", h.store, h.mount}
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+m.path)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	m.hears("READY=1")
	p := condatest.Package{Name: "a", Version: "1", Build: "0", Files: []condatest.File{{Path: "bin/a", Body: "x", Exec: true}, {Path: "lib/b", Body: "y"}}}
	h.mkdir("pkgs")
	h.write("pkgs/"+p.Dist()+".conda", string(p.Conda()))
	h.must("import", filepath.Join(h.dir, "pkgs"))
	const changes = `set -e; cd "$CONDAFS_MOUNT"/pkgs; rm -f a-1-0.conda; echo x > new-file; chmod 0600 new-file; touch -d 2001-01-01 new-file; mkdir d; ln -s x d/l; ln new-file d/h
		rm d/l; mv d e; mkfifo e/p; test "$(stat -c %u%a new-file)" = "$(id -u)600"; echo y >> urls.txt; rm -r e`
	for _, user := range []*host{h, other} {
		user.must("run", "--ephemeral", "--", "sh", "-c", changes)
	}
	h.must("upgrade", "--binary", h.exe)
	other.must("run", "--", "sh", "-c", changes)
	h.must("gc")
	h.must("verify", "--full")
	h.must("umount", h.mount)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	log, err := os.ReadFile(h.log())
	if err != nil || strings.Contains(string(log), "not permitted") || strings.Contains(string(log), "level=ERROR") {
		t.Errorf("%v %s", err, log)
	}
}
