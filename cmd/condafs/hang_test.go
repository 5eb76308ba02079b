package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"condafs/control"
)

// A daemon that hangs hangs its clients, but nobody who gives its mount up. When it goes on, it ends in order.
func TestHangingDaemonIsGivenUp(t *testing.T) {
	t.Parallel() // nearly all of the time is spent waiting for an answer
	h := mounted(t)
	info, err := control.ReadInfo(h.mount)
	if err != nil {
		t.Fatal(err)
	}
	daemon, err := watch(info.PID)
	if err != nil {
		t.Fatal(err)
	}
	defer daemon.close()
	if err := os.WriteFile(filepath.Join(h.mount, "pkgs", "kept"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	stop := func(sig unix.Signal) {
		t.Helper()
		if err := unix.PidfdSendSignal(daemon.fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			t.Error(err)
		}
	}
	stop(unix.SIGSTOP)
	defer stop(unix.SIGCONT)
	client := exec.Command("ls", filepath.Join(h.mount, ".head", "pkgs"))
	var text strings.Builder
	client.Stderr = &text
	if err := client.Start(); err != nil {
		t.Fatal(err)
	}
	code, out, msg := h.try("umount", "--lazy", h.mount)
	if code != 0 || !strings.Contains(out, "unmounted "+h.mount) || !strings.Contains(msg, "given up") {
		t.Errorf("umount: %d %s%s", code, out, msg)
	}
	if err := client.Wait(); err == nil {
		t.Error("a client of a daemon that hangs gets an answer")
	}
	mounts, err := control.Mounts()
	if err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(mounts, func(m control.Mount) bool { return m.Point == h.mount }) {
		t.Error("it is still mounted")
	}
	stop(unix.SIGCONT)
	eventually(t, "the daemon ends", daemon.ended)
	h.start()
	if b, err := os.ReadFile(filepath.Join(h.mount, "pkgs", "kept")); err != nil || string(b) != "x" {
		t.Errorf("what was written before: %q, %v", b, err)
	}
}
