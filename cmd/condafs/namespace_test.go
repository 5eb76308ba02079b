package main

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNamespaceNotAllowed is on a system where users may have no user namespaces:
// one made for the test, with a limit of none.
func TestNamespaceNotAllowed(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make such a system")
	}
	if _, err := exec.LookPath("setpriv"); err != nil {
		t.Skip(err)
	}
	h := mounted(t, "--allow-other")
	other := h.as(12345)
	run := func(namespace string) (string, string, int) {
		t.Helper()
		cmd := other.command("run")
		cmd.Path = "/bin/sh"
		cmd.Args = []string{"sh", "-c", `echo 0 > /proc/sys/user/max_user_namespaces || exit 99
			exec setpriv --reuid 12345 --regid 12345 --clear-groups "$CONDAFS" run --namespace "$0" -- sh -c 'id -u; ls -A "$CONDAFS_MOUNT" | wc -l; echo x > "$CONDAFS_MOUNT"/pkgs/f && cat "$CONDAFS_MOUNT"/pkgs/f'`, namespace}
		cmd.Env = append(cmd.Env, "CONDAFS="+other.exe)
		ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 20000}}
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: true}
		var out, msg strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &msg
		err := cmd.Run()
		if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() == 99 {
			t.Skipf("no user namespaces here: %v %s", err, msg.String())
		}
		return out.String(), msg.String(), cmd.ProcessState.ExitCode()
	}
	if out, msg, code := run(nsAuto); code != 0 || out != "12345\n6\nx\n" {
		t.Errorf("auto: %d %q %q", code, out, msg)
	}
	if out, msg, code := run(nsAlways); code != 1 || out != "" || strings.Count(msg, "\n") != 1 || !strings.Contains(msg, "--namespace=auto") {
		t.Errorf("always: %d %q %q", code, out, msg)
	}
}
