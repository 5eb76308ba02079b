package integration

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"condafs/control"
	"condafs/hashing"
	"condafs/internal/longrun"
)

var naming sync.Mutex

// next returns another name of a program, so that one can see which of them runs. All tests share it.
func next(t *testing.T, bin string) string {
	t.Helper()
	naming.Lock()
	defer naming.Unlock()
	path := filepath.Join(filepath.Dir(bin), "next-"+filepath.Base(bin))
	this, err := os.Stat(bin)
	if err != nil {
		t.Fatal(err)
	}
	if other, err := os.Stat(path); err == nil && os.SameFile(this, other) {
		return path
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) { // of an earlier program
		t.Fatal(err)
	}
	if err := os.Link(bin, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// upgradeTo lets another program serve, and checks that it does.
func (m *mount) upgradeTo(bin string) control.Upgrade {
	m.t.Helper()
	pid := m.cmd.Process.Pid
	u := query[control.Upgrade](m, "upgrade", "--binary", bin)
	exe := m.runs()
	if exe != bin || u.State != control.UpgradeDone || u.PID != pid {
		m.t.Errorf("%s runs, want %s: %+v", exe, bin, u)
	}
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil || len(fds) == 0 {
		m.t.Errorf("%v: %v", fds, err)
	}
	for _, fd := range fds {
		to, err := os.Readlink(fd)
		if err == nil && (strings.HasSuffix(to, filepath.Base(bin)) || strings.Contains(to, "condafs-image")) {
			m.t.Errorf("%s is left open", to)
		}
	}
	return u
}

// runs returns the daemon's program, by the name that tests know it by.
func (m *mount) runs() string {
	m.t.Helper()
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", m.cmd.Process.Pid))
	if err != nil {
		m.t.Fatal(err)
	}
	return filepath.Join(filepath.Dir(m.bin), filepath.Base(exe))
}

// upgradeFails asks for an upgrade that must fail, and returns the line that says why.
func (m *mount) upgradeFails(bin string) string {
	m.t.Helper()
	cmd := m.commandFor("upgrade", "--binary", bin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err == nil {
		m.t.Errorf("%s has taken over", bin)
	}
	if s := stderr.String(); strings.Count(s, "\n") != 1 || !strings.HasPrefix(s, "condafs: ") {
		m.t.Errorf("not one clear line: %q", s)
	}
	return stderr.String()
}

// holder is a Python program that holds files, locks and more on the mount, and checks all of them when it is told to.
type holder struct {
	t   *testing.T
	c   *client
	in  io.WriteCloser
	out *bufio.Scanner
}

const heldNote = "held-note.txt"

// hold starts one, by itself or under `condafs run`.
func (m *mount) hold(run bool) *holder {
	m.t.Helper()
	// Where other users can read it, by an interpreter that they can reach.
	script, python := filepath.Join(filepath.Dir(m.store), "holder.py"), "python3"
	if m.cred != nil {
		python = "/usr/bin/python3"
	}
	text, err := os.ReadFile("../fs/testdata/holder.py")
	if err == nil {
		err = os.WriteFile(script, text, 0o644)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	c := &client{name: "holder", cmd: exec.Command(python, script, m.pkgs(), heldNote)}
	c.cmd.Stderr = &c.stderr
	if run {
		c = c.under(m)
	}
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: m.cred}
	h := &holder{t: m.t, c: c}
	c.cmd.Stdout = nil
	if h.in, err = c.cmd.StdinPipe(); err != nil {
		m.t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	h.out = bufio.NewScanner(out)
	c.start(m.t)
	h.hear("ready")
	return h
}

func (h *holder) hear(want string) {
	h.t.Helper()
	if !h.out.Scan() || h.out.Text() != want {
		h.t.Fatalf("the holder says %q, want %q\n%s", h.out.Text(), want, h.c.stderr.String())
	}
}

func (h *holder) check() {
	h.t.Helper()
	if _, err := fmt.Fprintln(h.in, "check"); err != nil {
		h.t.Fatal(err)
	}
	h.hear("ok")
}

func (h *holder) end() {
	h.t.Helper()
	h.check()
	if _, err := fmt.Fprintln(h.in, "end"); err != nil {
		h.t.Fatal(err)
	}
	h.hear("ended")
	h.c.wait(h.t)
	if h.c.err != nil {
		h.t.Errorf("the holder: %v\n%s", h.c.err, h.c.stderr.String())
	}
}

// note commits a file that is as good as a package's.
func (m *mount) note(name, text string) {
	m.t.Helper()
	m.condafs("run", "--", "sh", "-c", `printf %s "$1" > "$0"`, filepath.Join(m.pkgs(), name), text)
}

// asking makes requests that only the daemon can answer, one after the other, until the function that it returns is
// called: that returns the longest time that one took.
func (m *mount) asking() (end func() time.Duration) {
	m.t.Helper()
	var stop atomic.Bool
	ended := make(chan time.Duration, 1)
	go func() {
		longest := time.Duration(0)
		for !stop.Load() {
			begun := time.Now()
			if err := unix.Statfs(m.point, &unix.Statfs_t{}); err != nil {
				m.t.Errorf("a client has got %v", err)
				break
			}
			longest = max(longest, time.Since(begun))
			time.Sleep(200 * time.Microsecond)
		}
		ended <- longest
	}()
	return func() time.Duration {
		stop.Store(true)
		return <-ended
	}
}

// TestUpgrade has three programs take over, one after the other, from a daemon under clients that hold everything that
// can be held.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"root", "user", "for all"} {
		t.Run(kind, func(t *testing.T) {
			bin := needBinary(t)
			dir := testDir(t)
			m := &mount{t: t, bin: bin, store: filepath.Join(dir, "store"), point: filepath.Join(dir, "mnt")}
			if err := os.Mkdir(m.point, 0o755); err != nil {
				t.Fatal(err)
			}
			if os.Getuid() != 0 && kind != "user" {
				t.Skip("needs root")
			}
			if kind == "for all" {
				m.args = []string{"--allow-other"}
			}
			if kind == "user" && os.Getuid() == 0 {
				if d := closedTo(t, bin); d != "" {
					t.Skipf("%s is closed to other users", d)
				}
				if st, err := os.Stat("/dev/fuse"); err != nil || st.Mode()&0o006 != 0o006 {
					t.Skip("/dev/fuse is closed to other users")
				}
				const nobody = 65534 // fusermount3 serves users with a name only
				m.cred = &syscall.Credential{Uid: nobody, Gid: nobody}
				m.env = []string{"HOME=" + dir}
				for _, p := range []string{dir, m.point} {
					if err := os.Chown(p, nobody, nobody); err != nil {
						t.Fatal(err)
					}
				}
			}
			t.Cleanup(m.cleanup)
			m.start()
			m.note(heldNote, "held")
			holders := []*holder{m.hold(false), m.hold(true)}
			before := query[[]control.Session](m, "sessions")
			if m.cred == nil {
				end := m.asking()
				defer func() { t.Logf("the longest request took %v", end()) }()
			}
			for i := range 3 {
				to := []string{next(t, bin), bin}[i%2]
				u := m.upgradeTo(to)
				if u.Sessions < len(before) || u.Files == 0 {
					t.Errorf("%d sessions and %d files went over, there were %d sessions", u.Sessions, u.Files, len(before))
				}
				for _, h := range holders {
					h.check()
				}
			}
			after := query[[]control.Session](m, "sessions")
			if len(after) != len(before) {
				t.Errorf("sessions before: %+v\nafter: %+v", before, after)
			}
			for _, h := range holders {
				h.end()
			}
			m.settle()
			if got := m.status(); got.Upgraded == nil || got.Upgraded.State != control.UpgradeDone || got.PID != m.cmd.Process.Pid {
				t.Errorf("the status says %+v", got)
			}
			m.verify()
			m.umount()
			if !strings.Contains(m.log.String(), "took over") {
				t.Errorf("the log does not say who took over:\n%s", m.log)
			}
		})
	}
}

// TestUpgradeUnderClients has programs take over while clients install, download and link.
func TestUpgradeUnderClients(t *testing.T) {
	t.Parallel()
	s, env, m := serve(t), envs(t), newMount(t)
	clients := []*client{
		conda(t, s, m.pkgs(), env("bare", 0), app),
		conda(t, s, m.pkgs(), env("run", 0), app).under(m),
		rattler(t, s, m.rattler(), env("rattler", 0), app).under(m),
	}
	// Sessions begin and end all the time: a process may exit at any moment of an upgrade.
	stop := filepath.Join(filepath.Dir(m.store), "stop")
	brief := &client{name: "brief clients", cmd: exec.Command("sh", "-c", `while [ ! -e "$1" ]; do ls "$0" > /dev/null || exit 1; sleep 0.02; done`, m.pkgs(), stop)}
	brief.cmd.Stderr = &brief.stderr
	brief.start(t)
	end := m.asking()
	done := make(chan struct{})
	go func() {
		defer close(done)
		atOnce(t, clients...)
	}()
	times := 0
	for over := false; !over; {
		select {
		case <-done:
			over = true
		case <-time.After(500 * time.Millisecond):
			m.upgradeTo([]string{next(t, m.bin), m.bin}[times%2])
			times++
		}
	}
	if err := os.WriteFile(stop, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	brief.wait(t)
	if brief.err != nil {
		t.Errorf("%v: %s", brief.err, brief.stderr.String())
	}
	t.Logf("%d upgrades; the longest request took %v", times, end())
	if times == 0 {
		t.Error("nothing was tested")
	}
	mustBeRight(t, clients...)
	m.settle()
	m.headMustHold(app)
	// The next client takes all of it from the shelf, of which the new programs know.
	warm := conda(t, s, m.pkgs(), env("warm", 0), app).under(m)
	m.upgradeTo(m.bin)
	before := s.stats().ArchiveRequests
	atOnce(t, warm)
	mustBeRight(t, warm)
	if n := s.stats().ArchiveRequests - before; n > 0 {
		t.Errorf("%d archives were downloaded again", n)
	}
	m.settle()
	m.mustBeIntact()
}

// recordName is what a package has that clients may take.
const recordName = "info/repodata_record.json"

// looker is a shell in a session beside the shelf, which lists its packages when it is told to.
type looker struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func (m *mount) looker() *looker {
	m.t.Helper()
	l := &looker{t: m.t, cmd: exec.Command(m.bin, "run", "--mount", m.point, "--", "sh", "-c", `echo; while read line; do echo $(ls "$0"); done`, m.pkgs())}
	var err error
	if l.in, err = l.cmd.StdinPipe(); err != nil {
		m.t.Fatal(err)
	}
	out, err := l.cmd.StdoutPipe()
	if err == nil {
		err = l.cmd.Start()
	}
	if err != nil {
		m.t.Fatal(err)
	}
	l.out = bufio.NewScanner(out)
	l.out.Scan()
	return l
}

func (l *looker) sees() string {
	l.t.Helper()
	if _, err := fmt.Fprintln(l.in); err != nil || !l.out.Scan() {
		l.t.Fatalf("the shell has ended: %v", err)
	}
	return l.out.Text()
}

func (l *looker) end() {
	l.t.Helper()
	if err := errors.Join(l.in.Close(), l.cmd.Wait()); err != nil {
		l.t.Error(err)
	}
}

// TestUpgradeKeepsTheShelf has a program take over from sessions beside the shelf: what that hides from each, and what it may rely on,
// are the same afterwards. The kernel knows what a session has looked at, so after each upgrade one looks that has not looked before.
func TestUpgradeKeepsTheShelf(t *testing.T) {
	t.Parallel()
	s, env, m := serve(t), envs(t), newMount(t, "--scrub=off")
	one := conda(t, s, m.pkgs(), env("one", 0), "lib00")
	atOnce(t, one)
	mustBeRight(t, one)
	m.settle()
	found, err := filepath.Glob(filepath.Join(m.awaitShelf(), "lib00-*"))
	if err != nil || len(found) != 1 {
		t.Fatalf("%v, %v", found, err)
	}
	shelved, name := found[0], filepath.Base(found[0])
	const upgrades = 2
	lookers := func() (list []*looker) {
		for range 1 + upgrades {
			list = append(list, m.looker())
		}
		return list
	}
	hidden := lookers() // from these, by the shelf
	m.renew(shelved)
	shown := lookers() // to these, since it leaves the shelf as soon as those have ended
	bins := []string{next(t, m.bin), m.bin}
	for i := range hidden {
		if i > 0 {
			m.upgradeTo(bins[i-1])
		}
		for _, l := range hidden[:i+1] {
			if got := l.sees(); strings.Contains(got, name) {
				t.Errorf("after %d upgrades, who has it from the shelf sees %s", i, got)
			}
		}
		for _, l := range shown[:i+1] {
			if got := l.sees(); !strings.Contains(got, name) {
				t.Errorf("after %d upgrades, who came later sees only %q", i, got)
			}
		}
		if _, err := os.Stat(filepath.Join(shelved, "info", "index.json")); err != nil {
			t.Errorf("after %d upgrades, what somebody relies on has left: %v", i, err)
		}
	}
	for _, l := range append(hidden, shown...) {
		l.end()
	}
	m.settle()
	m.await("it to come back to the shelf", func() bool {
		_, err := os.Stat(filepath.Join(shelved, recordName))
		return err == nil
	})
	m.mustBeIntact()
}

// renew has a package leave the shelf and come back, by damage to its content in the store, and its repair.
func (m *mount) renew(shelved string) {
	m.t.Helper()
	content, err := os.ReadFile(filepath.Join(shelved, "info", "index.json"))
	if err != nil {
		m.t.Fatal(err)
	}
	hex := hashing.Sum(content).String()
	blob := filepath.Join(m.store, "objects", hex[:2], hex[2:])
	fi, err := os.Stat(blob)
	if err == nil {
		err = errors.Join(os.Chmod(blob, 0o600), os.WriteFile(blob, bytes.ToUpper(content), 0), os.Chmod(blob, fi.Mode()), os.Chtimes(blob, fi.ModTime(), fi.ModTime()))
	}
	if err != nil {
		m.t.Fatal(err)
	}
	if r := query[control.RepairReport](m, "repair", "--full"); len(r.Problems) != 1 || r.Left > 0 || len(r.Removed) > 0 {
		m.t.Fatalf("%+v", r)
	}
	if _, err := os.Stat(filepath.Join(shelved, recordName)); !errors.Is(err, os.ErrNotExist) {
		m.t.Fatalf("new clients take it still: %v", err)
	}
}

// TestUpgradeRefused asks for what cannot be: the daemon goes on, untouched.
func TestUpgradeRefused(t *testing.T) {
	m := newMount(t)
	m.note(heldNote, "held")
	h := m.hold(false)
	script := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(filepath.Dir(m.store), name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct{ bin, says string }{
		{"/bin/true", "it is not condafs"},
		{"/bin/false", "exit status 1"},
		{script("plain", "#!/bin/sh\n", 0o644), "it is not executable"},
		{script("killed", "#!/bin/sh\nkill -KILL $$\n", 0o755), "signal: killed"},
		{filepath.Join(filepath.Dir(m.store), "none"), "no such file"},
		{filepath.Join(m.pkgs(), "bin", "condafs"), "it belongs to condafs itself"},
	} {
		if got := m.upgradeFails(c.bin); !strings.Contains(got, c.says) || !strings.Contains(got, c.bin) {
			t.Errorf("%s: %s", c.bin, got)
		}
		h.check()
	}
	if exe := m.runs(); exe != m.bin {
		t.Errorf("%s runs, want %s", exe, m.bin)
	}
	u := query[control.Upgrade](m, "upgrade", "--dry-run")
	if u.State != control.UpgradeRehearsed || u.Sessions == 0 || m.status().Upgraded != nil {
		t.Errorf("only rehearsed: %+v", u)
	}
	h.end()
	m.settle() // and no session of the daemon's own is left
	m.umount()
}

// faulty mounts with a binary that fails as it is told, and has somebody hold files.
func faulty(t *testing.T, spec string) (*mount, *holder) {
	t.Helper()
	dir := testDir(t)
	m := &mount{t: t, bin: built(t, faultyBinary), store: filepath.Join(dir, "store"), point: filepath.Join(dir, "mnt")}
	if err := os.Mkdir(m.point, 0o755); err != nil {
		t.Fatal(err)
	}
	m.env = []string{"CONDAFS_FAILPOINTS=" + spec, "CONDAFS_FAILPOINTS_LOG=" + pointsOf(m)}
	t.Cleanup(m.cleanup)
	m.start()
	m.note(heldNote, "held")
	return m, m.hold(true)
}

// pointsOf is where the points are noted that its daemons pass.
func pointsOf(m *mount) string { return filepath.Join(filepath.Dir(m.store), "points") }

// TestUpgradeGoesBack has the new program fail, or hang: before the old one has given anything up, and after that, when the old
// program takes the daemon back.
func TestUpgradeGoesBack(t *testing.T) {
	t.Parallel()
	const failed, hung = "input/output error", "it did not go on within 30s"
	for _, c := range []struct {
		spec, says, log string
		long            bool
	}{
		{"upgrade.drawn=EIO@1", failed, "not upgraded, the daemon goes on", false},
		{"upgrade.opened=EIO@1+", failed, "not upgraded, the old program goes on", true},
		{"upgrade.resumed=EIO@1+", failed, "not upgraded, the old program goes on", false},
		{"upgrade.opened=delay:1h@1", hung, "not upgraded, the old program goes on", true},
		{"upgrade.resumed=delay:1h@1", hung, "not upgraded, the old program goes on", true},
	} {
		t.Run(c.spec, func(t *testing.T) {
			if c.long && !longrun.Wanted() {
				t.Skip("long")
			}
			m, h := faulty(t, c.spec)
			if got := m.upgradeFails(next(t, m.bin)); !strings.Contains(got, c.says) || !strings.Contains(got, "the old version goes on") {
				t.Errorf("it says %s", got)
			}
			h.check()
			if exe := m.runs(); exe != m.bin {
				t.Errorf("%s runs, want %s", exe, m.bin)
			}
			if u := m.status().Upgraded; u == nil || u.State != control.UpgradeFailed || !strings.Contains(u.Why, c.says) {
				t.Errorf("the status says %+v", u)
			}
			if !strings.Contains(m.log.String(), c.log) {
				t.Errorf("the log:\n%s", m.log)
			}
			h.end()
			m.settle()
			m.verify()
			m.umount()
		})
	}
}

// TestSignalInUpgrade has SIGTERM come at each moment of an upgrade: the daemon ends, and leaves neither mount nor socket
// behind.
func TestSignalInUpgrade(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		at          string
		clean, long bool // clean: it can end by itself
	}{
		{"upgrade.paused", true, true},
		{"upgrade.closed", true, false},
		{"upgrade.started", false, false}, // Go lets no program hold its signals so early: the guard cleans up
		{"upgrade.begun", true, false},
		{"upgrade.resumed", true, true},
	} {
		t.Run(c.at, func(t *testing.T) {
			if c.long && !longrun.Wanted() {
				t.Skip("long")
			}
			m, h := faulty(t, c.at+"=delay:1s@1")
			info, err := control.ReadInfo(m.point)
			if err != nil {
				t.Fatal(err)
			}
			asked := m.commandFor("upgrade", "--binary", next(t, m.bin))
			if err := asked.Start(); err != nil {
				t.Fatal(err)
			}
			m.await("the moment", func() bool {
				b, err := os.ReadFile(pointsOf(m))
				if err != nil {
					t.Fatal(err)
				}
				return strings.Contains(string(b), c.at+"\n")
			})
			if err := m.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-m.exited:
				m.gone()
				var exit *exec.ExitError
				switch {
				case err == nil:
				case c.clean:
					t.Errorf("the daemon ended with %v\n%s", err, tail(m.log.String()))
				case !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM:
					t.Errorf("the daemon ended with %v\n%s", err, tail(m.log.String()))
				}
			case <-time.After(patience):
				t.Fatalf("SIGTERM was lost\n%s", tail(m.log.String()))
			}
			_ = asked.Wait() // whatever it says
			m.await("the mount to go", func() bool { return !isMounted(t, m.point) })
			m.await("the socket to go", func() bool {
				_, err := net.DialTimeout("unix", info.Socket, time.Second)
				return errors.Is(err, os.ErrNotExist)
			})
			h.c.kill(t, syscall.SIGKILL)
			h.c.wait(t)
			m.env = nil
			m.start()
			m.settle()
			if b, err := os.ReadFile(filepath.Join(m.head(), heldNote)); err != nil || string(b) != "held" {
				t.Errorf("%q, %v", b, err)
			}
			m.verify()
			m.umount()
		})
	}
}

// TestSignalInRehearsal has SIGTERM come while a program is looked at that says nothing: the daemon does not wait for it.
func TestSignalInRehearsal(t *testing.T) {
	m := newMount(t)
	started, program := filepath.Join(filepath.Dir(m.store), "started"), filepath.Join(filepath.Dir(m.store), "program")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n: > "+started+"\nexec sleep 25\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	asked := m.commandFor("upgrade", "--binary", program)
	if err := asked.Start(); err != nil {
		t.Fatal(err)
	}
	m.await("the rehearsal", func() bool {
		_, err := os.Stat(started)
		return err == nil
	})
	m.stop(syscall.SIGTERM)
	if err := asked.Wait(); err == nil {
		t.Error("the upgrade has succeeded")
	}
	if !strings.Contains(m.log.String(), "context canceled") {
		t.Errorf("it was not given up:\n%s", m.log)
	}
}

// TestKilledInUpgrade kills the daemon at each point of an upgrade, or has the guard kill it. The next one goes on as after any other
// death.
func TestKilledInUpgrade(t *testing.T) {
	t.Parallel()
	const hangs = "both programs hang"
	points := []string{"upgrade.closed", "upgrade.opened"}
	if longrun.Wanted() {
		points = append(points, "upgrade.paused", "upgrade.drawn", "upgrade.started", "upgrade.begun", "upgrade.resumed", "upgrade.back", hangs)
	}
	for _, point := range points {
		t.Run(point, func(t *testing.T) {
			spec := point + "=kill@1"
			switch point {
			case "upgrade.back":
				spec += " upgrade.opened=EIO@1"
			case hangs:
				spec = "upgrade.begun=delay:1h@1"
			}
			m, h := faulty(t, spec)
			m.note("second.txt", "second")
			m.upgradeFails(next(t, m.bin))
			select {
			case err := <-m.exited:
				m.gone()
				var exit *exec.ExitError
				if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
					t.Fatalf("the daemon was not killed: %v\n%s", err, tail(m.log.String()))
				}
			case <-time.After(2 * patience):
				t.Fatalf("it was not killed\n%s", tail(m.log.String()))
			}
			h.c.kill(t, syscall.SIGKILL)
			h.c.wait(t)
			m.await("the guard to take the mount away", func() bool { return !isMounted(t, m.point) })
			m.env = nil
			m.start()
			m.settle()
			for name, want := range map[string]string{heldNote: "held", "second.txt": "second"} {
				if b, err := os.ReadFile(filepath.Join(m.head(), name)); err != nil || string(b) != want {
					t.Errorf("%s: %q, %v", name, b, err)
				}
			}
			m.verify()
			m.umount()
		})
	}
}
