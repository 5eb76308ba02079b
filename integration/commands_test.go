package integration

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"condafs/control"
	"condafs/demo"
)

// TestDemo runs the demonstration as a user does.
func TestDemo(t *testing.T) {
	t.Parallel()
	dir := testDir(t)
	cmd := exec.Command(needBinary(t), "demo", "-n", "4", "--json")
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	out, err := cmd.Output()
	if err != nil {
		exit, _ := err.(*exec.ExitError)
		t.Fatalf("condafs demo: %v\n%s\n%s", err, out, exit.Stderr)
	}
	var r demo.Report
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	if !r.OK() || r.N != 4 || r.Condafs.Clients < 8 {
		t.Errorf("%+v", r)
	}
	var table strings.Builder
	if err := r.WriteTable(&table); err != nil {
		t.Error(err)
	}
	t.Log("\n" + table.String())
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("the demonstration left %v, %v", left, err)
	}
}

// TestBackgroundMount: `condafs mount` returns once the mount answers, and `condafs umount` once the daemon is gone.
func TestBackgroundMount(t *testing.T) {
	t.Parallel()
	dir := testDir(t)
	m := &mount{t: t, bin: needBinary(t), point: filepath.Join(dir, "mnt"), store: filepath.Join(dir, "store")}
	if err := os.Mkdir(m.point, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.detach)
	m.condafs("mount", "--log-file", filepath.Join(dir, "log"), "--store", m.store, m.point)
	status := m.status()
	if status.PID == 0 || status.MountPoint != m.point || status.Store != m.store {
		t.Errorf("%+v", status)
	}
	if !runs(status.PID) {
		t.Error("the daemon does not run")
	}
	m.condafs("umount", m.point)
	if isMounted(t, m.point) {
		t.Error("still mounted after umount")
	}
	if runs(status.PID) {
		t.Error("the daemon still runs after umount")
	}
	m.condafs("mount", "--log-file", filepath.Join(dir, "log"), "--store", m.store, m.point)
	m.condafs("umount", "--lazy", m.point)
}

// runs says whether a process is there and no zombie: in containers nobody may reap a daemon.
func runs(pid int) bool {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	return err == nil && !strings.Contains(string(b), ") Z ")
}

// TestRunIsTransparent: exit status, signals, standard streams and environment of the command are its own.
func TestRunIsTransparent(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	run := func(stdin string, args ...string) (string, int) {
		t.Helper()
		cmd := m.commandFor(append([]string{"run"}, args...)...)
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.Output()
		if cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return string(out), cmd.ProcessState.ExitCode()
	}
	if out, status := run("in", "--", "sh", "-c", "cat; exit 42"); out != "in" || status != 42 {
		t.Errorf("%q, %d", out, status)
	}
	if _, status := run("", "--", "sh", "-c", "kill -TERM $$"); status != 128+int(syscall.SIGTERM) {
		t.Errorf("status %d of a command that a signal ended", status)
	}
	if _, status := run("", "--", "no-such-command-at-all"); status != 127 {
		t.Errorf("status %d of a command that does not exist", status)
	}
	out, _ := run("", "--", "sh", "-c", "echo $CONDA_PKGS_DIRS; echo $RATTLER_CACHE_DIR; echo $CONDAFS_MOUNT")
	for i, want := range []string{m.pkgs() + "," + m.status().Shelf.Path, m.rattler(), m.point} {
		if lines := strings.Split(out, "\n"); lines[i] != want {
			t.Errorf("the environment is %q", out)
		}
	}
	if _, status := run("", "--ephemeral", "--", "sh", "-c", "mkdir -p $CONDAFS_MOUNT/pkgs && echo x > $CONDAFS_MOUNT/pkgs/ephemeral.txt"); status != 0 {
		t.Errorf("status %d", status)
	}
	if _, status := run("", "--on-failure", "discard", "--", "sh", "-c", "echo x > $CONDAFS_MOUNT/pkgs/discarded.txt; false"); status != 1 {
		t.Errorf("status %d", status)
	}
	if _, status := run("", "--", "sh", "-c", "echo x > $CONDAFS_MOUNT/pkgs/kept.txt"); status != 0 {
		t.Errorf("status %d", status)
	}
	m.settle()
	for name, want := range map[string]bool{"ephemeral.txt": false, "discarded.txt": false, "kept.txt": true} {
		if _, err := os.Lstat(filepath.Join(m.head(), name)); (err == nil) != want {
			t.Errorf("%s in the head: %v, want %v", name, err, want)
		}
	}
	m.mustBeIntact()
}

// TestLogAndList name what was committed, by whom and how far it is to be trusted.
func TestLogAndList(t *testing.T) {
	t.Parallel()
	s, env, m := serve(t), envs(t), newMount(t)
	c := conda(t, s, m.pkgs(), env("first", 0), "lib00,old00,pure07").under(m, "--label", "a label")
	atOnce(t, c)
	mustBeRight(t, c)
	m.settle()
	for path, p := range m.packages() {
		if p.Trust != "verified" || !p.Shared || p.SHA256 == "" {
			t.Errorf("%s came with its archive's hash and is not verified: %+v", path, p)
		}
	}
	labelled := false
	for _, entry := range query[[]control.Commit](m, "log") {
		labelled = labelled || entry.Label == "a label" && len(entry.What) > 0
	}
	if !labelled {
		t.Errorf("the log does not name the session's label: %s", m.condafs("log"))
	}
	m.remount()
	m.headMustHold("lib00,old00,pure07")
	m.mustBeIntact()
}
