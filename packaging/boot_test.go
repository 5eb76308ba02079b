package packaging

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// bootRoot names the root directory of a Debian or Ubuntu system with systemd, dpkg and fuse3, which stays as it is: `/` is one where
// systemd is installed.
const bootRoot = "CONDAFS_TEST_ROOT"

// machine is a container whose process 1 is systemd.
type machine struct {
	t    *testing.T
	init string // its pid, out here
}

// boot boots a copy-on-write copy of root.
func boot(t *testing.T, root string) *machine {
	t.Helper()
	dir := t.TempDir()
	mem, merged := filepath.Join(dir, "mem"), filepath.Join(dir, "root")
	mount := func(target string, args ...string) {
		run(t, dir, "mount", append(args, target)...)
		t.Cleanup(func() {
			if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
	}
	for _, d := range []string{mem, merged} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mount(mem, "-t", "tmpfs", "tmpfs")
	for _, d := range []string{"upper", "work"} {
		if err := os.Mkdir(filepath.Join(mem, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mount(merged, "-t", "overlay", "-o", "lowerdir="+root+",upperdir="+mem+"/upper,workdir="+mem+"/work", "overlay")
	// Without the FUSE mounts of out here: a copy of one keeps it alive when it is taken away.
	const script = `for m in $(awk '$3 ~ "^fuse[.]" { print $2 }' /proc/mounts); do umount --lazy "$m"; done; exec "$@"`
	cmd := exec.Command("unshare", "--mount", "sh", "-c", script, "sh", "systemd-nspawn", "--directory="+merged, "--boot", "--register=no", "--keep-unit",
		"--private-network", "--bind=/dev/fuse", "--capability=CAP_LINUX_IMMUTABLE", "--machine=condafs-test", "--console=pipe", "systemd.unit=basic.target")
	cmd.Env = append(os.Environ(), "UNIFIED_CGROUP_HIERARCHY="+hierarchy())
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t}
	t.Cleanup(func() {
		if m.init != "" {
			if t.Failed() {
				state, _ := m.try("systemctl status condafs --no-pager -l; ps axfo pid,stat,wchan:30,args; journalctl -u condafs --no-pager -o short | grep -v '0x' | tail -30")
				t.Log(state)
			}
			m.try("systemctl poweroff --force --force")
		}
		time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait() // however it ends
		if t.Failed() {
			t.Log(out.String())
		}
	})
	until(t, "its first process is there", func() bool {
		children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", cmd.Process.Pid))
		for _, pid := range strings.Fields(string(children)) {
			if comm, _ := os.ReadFile("/proc/" + pid + "/comm"); err == nil && string(comm) == "systemd\n" {
				m.init = pid
			}
		}
		return m.init != ""
	})
	until(t, "systemd answers", func() bool {
		state, _ := m.try("systemctl is-system-running")
		return state == "running" || state == "degraded"
	})
	return m
}

// hierarchy says which kind of cgroups the machine has, for systemd-nspawn, which guesses.
func hierarchy() string {
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		return "yes"
	}
	return "no"
}

func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	for range 600 {
		if f() {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("a minute long it was not so that %s", what)
}

// try runs a line of sh in the machine.
func (m *machine) try(script string) (string, error) {
	cmd := exec.Command("nsenter", "-t", m.init, "-m", "-u", "-i", "-n", "-p", "sh", "-c", script)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"}
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// does runs a line that must succeed.
func (m *machine) does(script string) string {
	m.t.Helper()
	out, err := m.try(script)
	if err != nil {
		m.t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return out
}

// serves waits until the service runs and its mount answers.
func (m *machine) serves(pid string) (now string) {
	m.t.Helper()
	until(m.t, "another daemon serves than "+pid, func() bool {
		now = m.does("systemctl show -p MainPID --value condafs")
		_, err := m.try("systemctl is-active condafs && test -e /var/cache/condafs/pkgs/notes")
		return err == nil && now != pid
	})
	return now
}

// TestUnderSystemd installs the package on a machine that systemd runs, and has it do what operators do.
func TestUnderSystemd(t *testing.T) {
	root := os.Getenv(bootRoot)
	if root == "" {
		t.Skip("it boots the system at $" + bootRoot + ", for which root and systemd-nspawn are needed")
	}
	packages := build(t)
	m := boot(t, root)
	deb, err := os.ReadFile(only(t, filepath.Join(packages, "*.deb")))
	if err != nil {
		t.Fatal(err)
	}
	in := exec.Command("nsenter", "-t", m.init, "-m", "sh", "-c", "cat > /root/condafs.deb")
	in.Stdin = bytes.NewReader(deb)
	if out, err := in.CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	m.does("dpkg --install /root/condafs.deb")
	if out, err := m.try("systemctl is-active condafs"); err == nil {
		t.Error("installing has started it:", out)
	}
	m.does("condafs setup --yes --no-import")
	m.does("systemctl is-active condafs")
	m.does("echo 1 > /var/cache/condafs/pkgs/notes")
	pid := m.serves("")

	t.Log("reload: another program in the same process")
	m.does("systemctl reload condafs")
	if now := m.serves(""); now != pid {
		t.Errorf("it was %s and is %s", pid, now)
	}
	t.Log("killed")
	m.does("kill -9 " + pid)
	pid = m.serves(pid)
	t.Log("hung")
	m.does("mkdir -p /run/systemd/system/condafs.service.d && printf '[Service]\nWatchdogSec=2s\n' > /run/systemd/system/condafs.service.d/dog.conf && systemctl daemon-reload && systemctl restart condafs")
	pid = m.serves(pid)
	m.does("kill -STOP " + pid)
	pid = m.serves(pid)
	if result := m.does("journalctl -u condafs --no-pager -o cat"); !strings.Contains(result, "Failed with result 'watchdog'") {
		t.Error("it was not the watchdog that has ended it:", result)
	}
	t.Log("stopped, while root's clients go on")
	m.does("systemctl stop condafs")
	if out, err := m.try("mkdir /var/cache/condafs/pkgs"); err == nil {
		t.Error("root could write to the mount point:", out)
	}
	m.does("systemctl start condafs condafs-gc")
	m.serves(pid)
	m.does("condafs verify --full")
	t.Log("undone and removed")
	m.does("condafs setup --undo --yes")
	if out, err := m.try("systemctl is-enabled condafs || grep -r condafs /etc/conda /etc/environment.d /etc/profile.d"); err == nil {
		t.Error("something is left:", out)
	}
	m.does("dpkg --purge condafs")
	if out := m.does("ls -d /var/cache/condafs /var/lib/condafs/CONDAFS* /etc/condafs /usr/bin/condafs 2>/dev/null || true"); strings.Contains(out, "/var/cache") || strings.Contains(out, "/etc") || strings.Contains(out, "/usr") {
		t.Error("something is left:", out)
	}
	var exit *exec.ExitError
	if _, err := m.try("test -d /var/lib/condafs/objects"); errors.As(err, &exit) {
		t.Error("the store is gone")
	}
}
