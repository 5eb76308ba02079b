package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"condafs/conda"
	"condafs/conda/condatest"
	"condafs/control"
	"condafs/internal/racetest"
)

// asCommand makes the test binary condafs itself, so that real processes and real
// mounts are tested with the race detector in them.
const asCommand = "CONDAFS_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
	}
	if err := racetest.Children(); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// host is one mount with its store, and an environment of its own.
type host struct {
	t     *testing.T
	dir   string
	mount string
	store string
	exe   string
	cred  *syscall.Credential
}

// newHost has nothing mounted yet. At the test's end nothing will be.
func newHost(t *testing.T) *host {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, dir: dir, mount: filepath.Join(dir, "m"), store: filepath.Join(dir, "s"), exe: exe}
	if err := os.Mkdir(h.mount, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		code, _, msg := h.try("umount", "--lazy", h.mount)
		if code != 0 && code != 4 {
			t.Errorf("umount at the end: %d %s", code, msg)
		}
		if t.Failed() {
			log, err := os.ReadFile(h.log())
			t.Logf("the daemon's log (%v):\n%s", err, log)
		}
	})
	return h
}

func (h *host) log() string { return filepath.Join(h.dir, "log") }

// mounted is a host with a daemon.
func mounted(t *testing.T, flags ...string) *host {
	t.Helper()
	h := newHost(t)
	h.start(flags...)
	return h
}

func (h *host) start(flags ...string) {
	h.t.Helper()
	h.must(append([]string{"mount", "--store", h.store, "--log-file", h.log(), h.mount}, flags...)...)
}

func (h *host) command(args ...string) *exec.Cmd {
	cmd := exec.Command(h.exe, args...)
	cmd.Env = append(os.Environ(), asCommand+"=1", envMount+"="+h.mount, "CONDAFS="+h.exe)
	cmd.Dir = h.dir
	if h.cred != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: h.cred}
	}
	return cmd
}

// try runs condafs and returns its exit status and output.
func (h *host) try(args ...string) (code int, out, msg string) {
	h.t.Helper()
	cmd := h.command(args...)
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		h.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), o.String(), e.String()
}

// must runs condafs, which must succeed, and returns its output.
func (h *host) must(args ...string) string {
	h.t.Helper()
	code, out, msg := h.try(args...)
	if code != 0 {
		h.t.Fatalf("condafs %s: exit status %d: %s%s", strings.Join(args, " "), code, out, msg)
	}
	return out
}

// fails runs condafs, which must fail with this status and one line of that content.
func (h *host) fails(code int, part string, args ...string) {
	h.t.Helper()
	got, _, msg := h.try(args...)
	if got != code || !strings.Contains(msg, part) || strings.Count(msg, "\n") != 1 || !strings.HasPrefix(msg, "condafs: ") {
		h.t.Errorf("condafs %s: exit status %d, %q; want %d and one line with %q", strings.Join(args, " "), got, msg, code, part)
	}
}

func (h *host) json(v any, args ...string) {
	h.t.Helper()
	if err := json.Unmarshal([]byte(h.must(append(args, "--json")...)), v); err != nil {
		h.t.Fatal(err)
	}
}

// eventually waits for what another process is about to do.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Errorf("not in two minutes: %s", what)
}

// gone reports whether a process has exited, whether or not its parent has noticed.
func gone(t *testing.T, pid int) bool {
	t.Helper()
	p, err := watch(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	if p.fd < 0 {
		return true
	}
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}, 0)
	return err == nil && n == 1
}

func TestMountAndUmount(t *testing.T) {
	h := newHost(t)
	h.fails(4, "no condafs is mounted there", "status")
	var m Mounted
	h.json(&m, "mount", "--store", h.store, "--log-file", h.log(), h.mount)
	if m.MountPoint != h.mount || m.Store != h.store || m.Log != h.log() || m.PID == 0 {
		t.Errorf("%+v", m)
	}
	info, err := control.ReadInfo(h.mount)
	if err != nil || info.PID != m.PID || info.Socket != m.Socket {
		t.Errorf("%+v %v", info, err)
	}
	if fi, err := os.Stat(filepath.Join(h.mount, "pkgs")); err != nil || !fi.IsDir() {
		t.Errorf("%v %v", fi, err)
	}
	var st control.Status
	h.json(&st, "status")
	if st.PID != m.PID || st.MountPoint != h.mount || st.Store != h.store {
		t.Errorf("%+v", st)
	}
	h.fails(1, "already", "mount", "--store", h.store, h.mount)
	h.fails(1, "holds it", "mount", "--store", h.store, "--log-file", h.log(), h.mkdir("m2"))
	if out := h.must("umount", h.mount); !strings.Contains(out, "unmounted "+h.mount) {
		t.Errorf("umount says %q", out)
	}
	if !gone(t, m.PID) {
		t.Error("the daemon is still there after umount")
	}
	if l, err := os.ReadDir(h.mount); err != nil || len(l) != 0 {
		t.Errorf("the mount point holds %v %v", l, err)
	}
	h.fails(4, "no condafs is mounted there", "umount", h.mount)
	// Without a daemon the store itself answers.
	h.json(&st, "status", "--store", h.store)
	if st.PID != 0 || st.Store != h.store {
		t.Errorf("%+v", st)
	}
}

func (h *host) mkdir(name string) string {
	h.t.Helper()
	dir := filepath.Join(h.dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		h.t.Fatal(err)
	}
	return dir
}

func TestMountFailures(t *testing.T) {
	h := newHost(t)
	full := h.mkdir("full")
	h.mkdir("full/x")
	file := filepath.Join(h.dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	mount := func(args ...string) []string { return append([]string{"mount", "--log-file", h.log()}, args...) }
	h.fails(1, "mkdir -p", mount("--store", h.store, filepath.Join(h.dir, "none"))...)
	h.fails(1, "not empty", mount("--store", h.store, full)...)
	h.fails(2, "not a directory", mount("--store", h.store, file)...)
	h.fails(2, "not a condafs store", mount("--store", full, h.mount)...)
	h.fails(2, "apart", mount("--store", h.mount+"/below", h.mount)...)
	h.fails(2, "bogus", mount("--store", h.store, "-o", "bogus", h.mount)...)
	h.fails(1, "--log-file", "mount", "--store", h.store, "--log-file", file+"/log", h.mount)
	if err := os.WriteFile(filepath.Join(h.mkdir("other"), "condafs-store.json"), []byte(`{"format":9999,"uuid":"x"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	h.fails(1, "format 9999", mount("--store", filepath.Join(h.dir, "other"), h.mount)...)
	// None of them is in the way of one that is right.
	h.start()
}

func TestDeadDaemonIsHealed(t *testing.T) {
	h := mounted(t)
	kill := func() {
		t.Helper()
		info, err := control.ReadInfo(h.mount)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Kill(info.PID, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the daemon dies", func() bool { _, err := control.ReadInfo(h.mount); return errors.Is(err, control.ErrDead) })
	}
	kill()
	h.fails(4, "has died", "status")
	h.start()
	h.must("status")
	kill()
	h.must("umount", h.mount)
	if l, err := os.ReadDir(h.mount); err != nil || len(l) != 0 {
		t.Errorf("the mount point holds %v %v", l, err)
	}
}

func TestSigtermEndsTheDaemon(t *testing.T) {
	h := mounted(t)
	info, err := control.ReadInfo(h.mount)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(info.PID, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the daemon goes", func() bool { return gone(t, info.PID) })
	if l, err := os.ReadDir(h.mount); err != nil || len(l) != 0 {
		t.Errorf("the mount point holds %v %v", l, err)
	}
	if _, err := os.Lstat(info.Socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket: %v", err)
	}
}

func TestForegroundEndsWithZero(t *testing.T) {
	h := newHost(t)
	cmd := h.command("mount", "-f", "--store", h.store, "--log-format", "json", h.mount)
	pipe, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(pipe)
	for lines.Scan() && !strings.Contains(lines.Text(), `"msg":"mounted"`) {
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, pipe); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("ended with %v", err)
	}
}

func TestRunExitStatus(t *testing.T) {
	h := mounted(t)
	for _, ns := range []string{nsAuto, nsNever} {
		for _, c := range []struct {
			code int
			args []string
		}{
			{0, []string{"true"}}, {7, []string{"sh", "-c", "exit 7"}}, {137, []string{"sh", "-c", "kill -9 $$"}}, {143, []string{"sh", "-c", "kill $$"}},
			{127, []string{"condafs-no-such-command"}}, {127, []string{"./none"}}, {126, []string{"/etc/passwd"}}, {126, []string{"/"}},
		} {
			code, out, msg := h.try(append([]string{"run", "--namespace", ns, "--"}, c.args...)...)
			if code != c.code || out != "" {
				t.Errorf("%s %q: exit status %d, want %d: %s%s", ns, c.args, code, c.code, out, msg)
			}
		}
	}
}

func TestRunShowsTheSession(t *testing.T) {
	h := mounted(t)
	const show = `echo $CONDA_PKGS_DIRS $RATTLER_CACHE_DIR; pwd; echo x > $CONDAFS_MOUNT/pkgs/x; cat $CONDAFS_MOUNT/pkgs/x; ls -A $CONDAFS_MOUNT | sort | tr '\n' ' '`
	for ns, root := range map[string]string{nsNever: ".condafs .head .sessions pkgs rattler unshelved ", nsAuto: "pkgs rattler "} {
		if ns == nsAuto && os.Geteuid() != 0 {
			continue // whether it may have one is up to the system
		}
		want := h.mount + "/pkgs," + h.store + "/shelf/pkgs " + h.mount + "/rattler\n" + h.dir + "\nx\n" + root
		if out := h.must("run", "--namespace", ns, "--", "sh", "-c", show); out != want {
			t.Errorf("%s: %q, want %q", ns, out, want)
		}
	}
}

func TestRunWithinRun(t *testing.T) {
	h := mounted(t)
	out := h.must("run", "--namespace", "never", "--label", "outer", "--", "sh", "-c",
		`echo $CONDAFS_SESSION; "$CONDAFS" run -- sh -c 'echo $CONDAFS_SESSION'; "$CONDAFS" run --new -- sh -c 'echo $CONDAFS_SESSION'`)
	ids := strings.Fields(out)
	if len(ids) != 3 || ids[0] != ids[1] || ids[1] == ids[2] {
		t.Errorf("sessions %q", ids)
	}
}

func TestRunPassesOnDescriptors(t *testing.T) {
	h := mounted(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := h.command("run", "--", "sh", "-c", "echo through >&3")
	cmd.ExtraFiles = []*os.File{w}
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(r); err != nil || string(b) != "through\n" {
		t.Errorf("%q %v", b, err)
	}
}

func TestOnFailure(t *testing.T) {
	h := mounted(t)
	head := func() string {
		t.Helper()
		l, err := os.ReadDir(filepath.Join(h.mount, ".head", "pkgs"))
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range l {
			if strings.HasPrefix(e.Name(), "f-") {
				names = append(names, e.Name())
			}
		}
		return strings.Join(names, " ")
	}
	touch := func(name string, exit int) []string {
		return []string{"sh", "-c", "echo x > $CONDAFS_MOUNT/pkgs/f-" + name + "; exit " + strconv.Itoa(exit)}
	}
	run := func(code int, part string, args ...string) {
		t.Helper()
		got, out, msg := h.try(append([]string{"run"}, args...)...)
		if got != code || out != "" || !strings.Contains(msg, part) || (part == "") != (msg == "") {
			t.Errorf("%q: %d %q %q", args, got, out, msg)
		}
	}
	run(0, "", append([]string{"--"}, touch("done", 0)...)...)
	if got := head(); got != "f-done" {
		t.Errorf("after success the head has %q", got)
	}
	run(5, "dropped pkgs/f-failed", append([]string{"--"}, touch("failed", 5)...)...)
	run(5, "", append([]string{"--on-failure", "discard", "--"}, touch("discard", 5)...)...)
	run(0, "", append([]string{"--ephemeral", "--"}, touch("ephemeral", 0)...)...)
	if got := head(); got != "f-done" {
		t.Errorf("after failures the head has %q", got)
	}
	run(5, "is kept", append([]string{"--on-failure", "keep", "--label", "look", "--"}, touch("keep", 5)...)...)
	var l []control.Session
	h.json(&l, "sessions")
	i := slices.IndexFunc(l, func(s control.Session) bool { return s.Label == "look" })
	if i < 0 || l[i].State != "kept" {
		t.Fatalf("no kept session in %+v", l)
	}
	h.must("commit", l[i].ID)
	if got := head(); got != "f-done f-keep" {
		t.Errorf("after the commit by hand the head has %q", got)
	}
	// It had nothing left to be kept for.
	h.fails(1, "not found", "discard", l[i].ID)

	run(5, "is kept", append([]string{"--on-failure", "keep", "--label", "again", "--"}, touch("lost", 5)...)...)
	h.json(&l, "sessions")
	i = slices.IndexFunc(l, func(s control.Session) bool { return s.Label == "again" })
	if i < 0 {
		t.Fatalf("no kept session in %+v", l)
	}
	h.must("discard", l[i].ID)
	if got := head(); got != "f-done f-keep" {
		t.Errorf("after a discard by hand the head has %q", got)
	}
}

// TestSignalsReachTheCommand waits for the command's own word that it is ready.
func TestSignalsReachTheCommand(t *testing.T) {
	h := mounted(t)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGINT} {
		cmd := h.command("run", "--", "sh", "-c", `trap 'echo got; exit 9' TERM HUP USR1 INT; echo ready; while :; do sleep 0.05; done`)
		// Without a terminal, so that SIGINT is nobody's ^C.
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		pipe, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(pipe)
		if s, err := r.ReadString('\n'); err != nil || s != "ready\n" {
			t.Fatalf("%q %v", s, err)
		}
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		rest, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		err = cmd.Wait()
		if string(rest) != "got\n" || cmd.ProcessState.ExitCode() != 9 {
			t.Errorf("%v: %q %v", sig, rest, err)
		}
	}
}

// TestTerminal types ^C and ^Z at a real terminal: the command gets each once, and
// stops and goes on together with us.
func TestTerminal(t *testing.T) {
	h := mounted(t)
	master, slave := pty(t)
	cmd := h.command("run", "--", "sh", "-c", `n=0; trap 'n=$((n+1)); echo INT $n' INT; trap 'echo END $n; exit 4' QUIT; echo ready; while :; do sleep 0.05; done`)
	startOn(t, cmd, slave)
	lines := bufio.NewScanner(master)
	expect := func(want string) {
		t.Helper()
		for lines.Scan() {
			// What was typed is echoed before it.
			if s := strings.TrimSpace(lines.Text()); strings.HasSuffix(s, want) {
				return
			} else if strings.Contains(s, "INT") {
				t.Errorf("got %q while waiting for %q", s, want)
			}
		}
		t.Fatalf("the terminal ended before %q: %v", want, lines.Err())
	}
	typed := func(c byte) {
		t.Helper()
		if _, err := master.Write([]byte{c}); err != nil {
			t.Fatal(err)
		}
	}
	expect("ready")
	typed(3) // ^C
	expect("INT 1")
	typed(28) // ^\
	expect("END 1")
	err := cmd.Wait()
	if cmd.ProcessState.ExitCode() != 4 {
		t.Errorf("ended with %v", err)
	}
}

// pty opens a pseudo-terminal.
func pty(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { _ = master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return master, slave
}

// startOn starts a command whose terminal is slave, and which has that to itself.
func startOn(t *testing.T, cmd *exec.Cmd, slave *os.File) {
	t.Helper()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := slave.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestKilledRunner kills the runner: its command goes on, and the session ends with it.
func TestKilledRunner(t *testing.T) {
	h := mounted(t)
	cmd := h.command("run", "--label", "orphan", "--", "sh", "-c", `echo $$; echo x > $CONDAFS_MOUNT/pkgs/kept-open; read line; echo went on`)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(pipe)
	if _, err := r.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := cmd.Process.Wait(); err != nil {
		t.Fatal(err)
	}
	h.fails(1, "in use by pid", "umount", h.mount)
	if _, err := io.WriteString(in, "\n"); err != nil {
		t.Fatal(err)
	}
	if s, err := r.ReadString('\n'); err != nil || s != "went on\n" {
		t.Errorf("%q %v", s, err)
	}
	eventually(t, "the session ends", func() bool {
		var l []control.Session
		h.json(&l, "sessions")
		return !slices.ContainsFunc(l, func(s control.Session) bool { return s.Label == "orphan" })
	})
	h.must("umount", h.mount)
}

// TestLeftRunning has a command exit before its child, which then writes to the session.
func TestLeftRunning(t *testing.T) {
	h := mounted(t)
	for _, ns := range []string{nsAuto, nsNever} {
		fifo := filepath.Join(h.dir, ns)
		if err := unix.Mkfifo(fifo, 0o600); err != nil {
			t.Fatal(err)
		}
		out := filepath.Join(h.dir, ns+".out")
		h.must("run", "--namespace", ns, "--label", ns, "--", "sh", "-c",
			`(read line < "$0"; echo x > "$CONDAFS_MOUNT/pkgs/late-$2" && cat "$CONDAFS_MOUNT/pkgs/late-$2" > "$1") > /dev/null 2>&1 &`, fifo, out, ns)
		var l []control.Session
		h.json(&l, "sessions")
		if !slices.ContainsFunc(l, func(s control.Session) bool { return s.Label == ns && len(s.Members) > 0 }) {
			t.Errorf("%s: the session ended before its last process: %+v", ns, l)
		}
		if err := os.WriteFile(fifo, []byte("go\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the session ends", func() bool {
			h.json(&l, "sessions")
			return !slices.ContainsFunc(l, func(s control.Session) bool { return s.Label == ns })
		})
		if b, err := os.ReadFile(out); err != nil || string(b) != "x\n" {
			t.Errorf("%s: %q %v", ns, b, err)
		}
		if _, err := os.Stat(filepath.Join(h.mount, ".head", "pkgs", "late-"+ns)); err != nil {
			t.Errorf("%s: what was written late: %v", ns, err)
		}
	}
}

func TestBusyUmount(t *testing.T) {
	h := mounted(t)
	f, err := os.Open(filepath.Join(h.mount, ".head"))
	if err != nil {
		t.Fatal(err)
	}
	h.fails(1, "pid "+strconv.Itoa(os.Getpid()), "umount", h.mount)
	h.fails(1, "--lazy", "umount", h.mount)
	h.must("status")
	h.must("umount", "--lazy", h.mount)
	if _, err := f.Readdirnames(-1); err == nil {
		t.Error("a directory of a mount that has gone still answers")
	}
	if err := f.Close(); err != nil && !errors.Is(err, unix.ENOTCONN) {
		t.Error(err)
	}
}

func TestImportExportVerify(t *testing.T) {
	h := mounted(t, "--scrub=off")
	src := h.mkdir("pkgs")
	for _, name := range []string{"a", "b"} {
		p := condatest.Package{Name: name, Version: "1", Build: "0", Files: []condatest.File{{Path: "bin/" + name, Body: "#!/bin/sh\necho " + name + "\n", Exec: true}}}
		fn, archive := p.Dist()+".conda", p.Conda()
		h.write("pkgs/"+fn, string(archive))
		for _, f := range p.All() {
			h.write("pkgs/"+p.Dist()+"/"+f.Path, f.Body)
		}
		if err := os.Chmod(filepath.Join(src, p.Dist(), "bin", name), 0o755); err != nil {
			t.Fatal(err)
		}
		h.write("pkgs/"+p.Dist()+"/"+conda.CompletionMarker, p.Record(fn, archive))
	}
	h.write("pkgs/broken-1-0/info/index.json", "{}")
	var r control.ImportReport
	h.json(&r, "import", src)
	if len(r.Imported) != 4 || len(r.Rejected) != 1 || r.Rejected[0].Path != "broken-1-0" {
		t.Errorf("%+v", r)
	}
	h.fails(2, "condafs itself", "import", filepath.Join(h.mount, "pkgs"))
	h.fails(2, "condafs itself", "export", filepath.Join(h.store, "x"))

	var l []control.Package
	h.json(&l, "ls")
	if len(l) != 2 || l[0].Name != "a-1-0" || l[0].Trust != "verified" || !l[0].Shared || !l[0].Extracted || l[0].Archive == nil {
		t.Errorf("%+v", l)
	}
	var p control.PackageFiles
	h.json(&p, "ls", "a-1-0")
	if !slices.ContainsFunc(p.Entries, func(f control.File) bool { return f.Path == "bin/a" && f.Mode == "0755" }) {
		t.Errorf("%+v", p)
	}
	h.fails(1, "a-1-0", "ls", "a-2-0")

	out := h.mkdir("out")
	h.must("export", "--package", "a-1-0", out)
	if b, err := os.ReadFile(filepath.Join(out, "a-1-0", "bin", "a")); err != nil || string(b) != "#!/bin/sh\necho a\n" {
		t.Errorf("%q %v", b, err)
	}
	// A session sees what was imported: on the mount, or on the shelf beside it.
	if s := h.must("run", "--no-shelf", "--", "sh", "-c", "$CONDAFS_MOUNT/pkgs/b-1-0/bin/b"); s != "b\n" {
		t.Errorf("the session shows %q", s)
	}
	h.must("verify", "--full")
	h.must("gc")
	h.must("verify", "--full")
	if s := h.must("log"); !strings.Contains(s, "+ pkgs/a-1-0 (verified)") {
		t.Errorf("the log is\n%s", s)
	}

	// A flipped bit is found, through the daemon and without one.
	h.flip("#!/bin/sh\necho a\n")
	for _, args := range [][]string{{"verify", "--full"}, {"verify", "--full", "--store", h.store}} {
		code, text, msg := h.try(args...)
		if code != 3 || !strings.Contains(text, "a-1-0") || strings.Contains(text, "b-1-0") {
			t.Errorf("%q: %d %q %q", args, code, text, msg)
		}
		if args[len(args)-1] != h.store {
			h.must("umount", h.mount)
		}
	}
}

func (h *host) write(name, body string) {
	h.t.Helper()
	name = filepath.Join(h.dir, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(body), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// flip changes one byte of the blob with that content.
func (h *host) flip(content string) {
	h.t.Helper()
	found := false
	err := filepath.WalkDir(filepath.Join(h.store, "objects"), func(p string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(p)
		if err != nil || string(b) != content {
			return err
		}
		found = true
		b[2]++
		return errors.Join(os.Chmod(p, 0o600), os.WriteFile(p, b, 0o600))
	})
	if err != nil || !found {
		h.t.Fatalf("no blob of %q: %v", content, err)
	}
}

// TestOtherUsers lets another user in, who may use the mount and not govern it.
func TestOtherUsers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	h := mounted(t, "--allow-other")
	other := h.as(12345)
	if s := other.must("run", "--", "sh", "-c", `echo mine > $CONDAFS_MOUNT/pkgs/f; id -u; cat $CONDAFS_MOUNT/pkgs/f`); s != "12345\nmine\n" {
		t.Errorf("the other user sees %q", s)
	}
	for _, args := range [][]string{{"gc"}, {"verify"}, {"umount", h.mount}, {"import", h.dir}, {"export", h.dir}} {
		other.fails(1, "not allowed for uid 12345", args...)
	}
	// What is not verified is the other's alone.
	if s := h.must("run", "--", "sh", "-c", `ls $CONDAFS_MOUNT/pkgs`); strings.Contains(s, "f\n") {
		t.Errorf("root sees %q", s)
	}
	if s := other.must("run", "--", "sh", "-c", `ls $CONDAFS_MOUNT/pkgs`); !strings.Contains(s, "f\n") {
		t.Errorf("the other user sees %q", s)
	}
	// Nobody else's session is there as far as they can tell.
	cmd := h.command("run", "--label", "roots", "--", "sh", "-c", `echo $CONDAFS_SESSION; read line`)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	id, err := bufio.NewReader(pipe).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	other.fails(1, "not found", "discard", strings.TrimSpace(id))
	other.fails(1, "not found", "commit", strings.TrimSpace(id))
	if s := other.must("sessions"); strings.Contains(s, "roots") {
		t.Errorf("the other user sees %q", s)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		// read fails at the end of its input
		t.Logf("the command ended with %v", err)
	}
}

// as returns the same host for another user, who needs a program to reach.
func (h *host) as(uid uint32) *host {
	h.t.Helper()
	// t.TempDir is below a directory that is its user's alone.
	for d := h.dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			h.t.Fatal(err)
		}
	}
	b, err := os.ReadFile(h.exe)
	if err != nil {
		h.t.Fatal(err)
	}
	o := *h
	o.exe = filepath.Join(h.dir, "condafs")
	if err := os.WriteFile(o.exe, b, 0o755); err != nil {
		h.t.Fatal(err)
	}
	o.cred = &syscall.Credential{Uid: uid, Gid: uid}
	return &o
}
