package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"condafs/control"
	"condafs/internal/longrun"
)

// patience bounds every wait for something that must come. It is long: machines that run tests are busy.
const patience = 90 * time.Second

// mount is a mounted store whose daemon is a child of the test.
type mount struct {
	t     *testing.T
	bin   string
	point string
	store string

	args   []string
	env    []string            // of the daemon, added to the test's own
	cred   *syscall.Credential // of the daemon and of who asks it; nil: the test's own
	cmd    *exec.Cmd
	log    *lockedBuffer
	exited chan error
	guard  func()
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newMount mounts a fresh store below the test's directory.
func newMount(t *testing.T, args ...string) *mount {
	t.Helper()
	dir := testDir(t)
	return mountStore(t, filepath.Join(dir, "store"), filepath.Join(dir, "mnt"), args...)
}

// testDir is like t.TempDir, and kept if the test fails and that is wanted.
func testDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "condafs-"+strings.NewReplacer("/", "-", " ", "-").Replace(t.Name())+"-")
	if err != nil {
		t.Fatal(err)
	}
	// Other users work below it in some tests.
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() && os.Getenv("CONDAFS_TEST_KEEP") != "" {
			t.Logf("kept %s", dir)
			return
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove the test's directory: %v", err)
		}
	})
	return dir
}

func mountStore(t *testing.T, store, point string, args ...string) *mount {
	t.Helper()
	return mountBinary(t, needBinary(t), store, point, args...)
}

func mountBinary(t *testing.T, bin, store, point string, args ...string) *mount {
	t.Helper()
	if err := os.MkdirAll(point, 0o755); err != nil {
		t.Fatal(err)
	}
	m := &mount{t: t, bin: bin, point: point, store: store, args: args}
	t.Cleanup(m.cleanup)
	m.start()
	return m
}

// start runs the daemon in the foreground, as a child, and returns once the mount answers.
func (m *mount) start() {
	m.t.Helper()
	if err := m.tryStart(); err != nil {
		m.t.Fatalf("condafs mount ended: %v\n%s", err, m.log)
	}
}

// tryStart is start for a daemon that may end before it answers: then it returns how, never nil.
func (m *mount) tryStart() (ended error) {
	m.t.Helper()
	args := append([]string{"mount", "-f", "--store", m.store}, m.args...)
	m.cmd = exec.Command(m.bin, append(args, m.point)...)
	m.cmd.Env = append(os.Environ(), m.env...)
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: m.cred}
	m.log = &lockedBuffer{}
	m.cmd.Stdout, m.cmd.Stderr = m.log, m.log
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.guard = guard(m.t, m.cmd.Process, m.point)
	m.exited = make(chan error, 1)
	go func(cmd *exec.Cmd, exited chan error) { exited <- cmd.Wait() }(m.cmd, m.exited)
	m.await("the mount to answer", func() bool {
		select {
		case ended = <-m.exited:
			m.gone()
			if ended == nil {
				ended = errors.New("exit status 0")
			}
			return true
		default:
		}
		_, err := os.Stat(filepath.Join(m.point, ".condafs"))
		return err == nil || m.cred != nil && errors.Is(err, os.ErrPermission) // it answers its user only
	})
	return ended
}

// await polls until a condition holds, and fails the test with the daemon's log if it never does.
func (m *mount) await(what string, holds func() bool) {
	m.t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			m.t.Fatalf("waited %v in vain for %s\nthe daemon's log:\n%s", patience, what, tail(m.log.String()))
		}
	}
}

func tail(s string) string {
	const most = 6000
	if len(s) > most {
		return "…" + s[len(s)-most:]
	}
	return s
}

// umount ends the mount as a user does and checks that the daemon ended well.
func (m *mount) umount() {
	m.t.Helper()
	m.condafs("umount", m.point)
	m.awaitExit()
}

// stop sends the daemon a signal and waits for its end.
func (m *mount) stop(sig syscall.Signal) {
	m.t.Helper()
	if err := m.cmd.Process.Signal(sig); err != nil {
		m.t.Fatal(err)
	}
	if sig != syscall.SIGKILL {
		m.awaitExit()
		return
	}
	<-m.exited
	m.gone()
	m.detach()
}

// gone notes that the daemon has ended and been waited for.
func (m *mount) gone() {
	m.cmd = nil
	m.guard()
}

// guard starts a process that outlives the tests if they are ended by a timeout, which runs no cleanup: it ends the
// daemon and takes the mount away. The function that it returns ends the guard instead.
func guard(t *testing.T, daemon *os.Process, point string) (dismiss func()) {
	t.Helper()
	cmd := exec.Command("sh", "-c", `read dismissed && exit; kill -KILL "$0"; fusermount3 -uz "$1"`, strconv.Itoa(daemon.Pid), point)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// A process that waits for a daemon that hangs cannot even be killed: not the tests either, when their time is up.
	life := 5 * time.Minute
	if longrun.Wanted() {
		life = time.Hour
	}
	hung := time.AfterFunc(life, func() {
		t.Errorf("the daemon has not ended after %s; it is told to print its stacks, and killed", life)
		for _, sig := range []syscall.Signal{syscall.SIGQUIT, syscall.SIGKILL} {
			if err := daemon.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
				t.Error(err)
			}
			time.Sleep(5 * time.Second)
		}
	})
	return sync.OnceFunc(func() {
		hung.Stop()
		if _, err := in.Write([]byte("dismissed\n")); err != nil {
			t.Errorf("dismiss the guard: %v", err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("the guard: %v", err)
		}
	})
}

func (m *mount) awaitExit() {
	m.t.Helper()
	select {
	case err := <-m.exited:
		m.gone()
		if err != nil {
			m.t.Errorf("the daemon ended with %v\n%s", err, tail(m.log.String()))
		}
		m.checkLog()
	case <-time.After(patience):
		m.t.Fatalf("the daemon did not end within %v\n%s", patience, m.stacks())
	}
}

// stacks ends a daemon that hangs and returns its log with the stacks of its goroutines.
func (m *mount) stacks() string {
	m.t.Helper()
	if err := m.cmd.Process.Signal(syscall.SIGQUIT); err != nil {
		m.t.Error(err)
	}
	select {
	case <-m.exited:
		m.gone()
	case <-time.After(patience):
	}
	return m.log.String()
}

// checkLog fails the test for what a daemon must never say.
func (m *mount) checkLog() {
	m.t.Helper()
	log := m.log.String()
	for _, bad := range []string{"WARNING: DATA RACE", "panic"} {
		if at := strings.Index(log, bad); at >= 0 {
			m.t.Errorf("the daemon's log:\n%s", tail(log[at:min(len(log), at+5000)]))
		}
	}
}

// remount ends the mount in order and makes it anew: what is there afterwards is what the store keeps.
func (m *mount) remount() {
	m.t.Helper()
	m.umount()
	m.start()
}

// cleanup leaves neither mount nor daemon, whatever happened before.
func (m *mount) cleanup() {
	if m.cmd == nil {
		m.detach()
		return
	}
	if err := m.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		m.t.Error(err)
	}
	select {
	case err := <-m.exited:
		if err != nil {
			m.t.Errorf("the daemon ended with %v\n%s", err, tail(m.log.String()))
		}
	case <-time.After(patience):
		m.t.Errorf("the daemon did not end within %v of SIGTERM\n%s", patience, m.stacks())
		m.detach()
		return
	}
	m.checkLog()
	m.gone()
	m.detach()
	if m.t.Failed() && os.Getenv("CONDAFS_TEST_KEEP") != "" {
		if err := os.WriteFile(filepath.Join(filepath.Dir(m.store), "daemon.log"), []byte(m.log.String()), 0o644); err != nil {
			m.t.Error(err)
		}
	}
}

// detach takes away a mount whose daemon is dead.
func (m *mount) detach() {
	for isMounted(m.t, m.point) {
		if out, err := exec.Command("fusermount3", "-uz", m.point).CombinedOutput(); err != nil {
			if err := unix.Unmount(m.point, unix.MNT_DETACH); err != nil {
				m.t.Errorf("fusermount3: %s; umount: %v", out, err)
				return
			}
		}
	}
}

func isMounted(t *testing.T, point string) bool {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(strings.Split(string(b), "\n"), func(line string) bool {
		f := strings.Fields(line)
		return len(f) > 4 && f[4] == point
	})
}

// commandFor is condafs with arguments, told of this mount.
func (m *mount) commandFor(args ...string) *exec.Cmd {
	cmd := exec.Command(m.bin, args...)
	cmd.Env = append(os.Environ(), "CONDAFS_MOUNT="+m.point)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: m.cred}
	return cmd
}

// condafs runs a command that must succeed and returns its standard output.
func (m *mount) condafs(args ...string) []byte {
	m.t.Helper()
	cmd := m.commandFor(args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		log := ""
		if m.log != nil {
			log = tail(m.log.String())
		}
		m.t.Fatalf("condafs %s: %v\n%s%s\nthe daemon's log:\n%s", strings.Join(args, " "), err, stdout.String(), stderr.String(), log)
	}
	return stdout.Bytes()
}

// query runs a command with --json and decodes what it prints.
func query[T any](m *mount, args ...string) T {
	m.t.Helper()
	var v T
	out := m.condafs(append(args, "--json")...)
	if err := json.Unmarshal(out, &v); err != nil {
		m.t.Fatalf("condafs %s --json printed %q: %v", strings.Join(args, " "), out, err)
	}
	return v
}

// settle waits until all sessions have ended: then all that clients made has been committed or dropped.
// Tests look at the cache through .head only, so as not to have sessions themselves.
func (m *mount) settle() {
	m.t.Helper()
	var last []control.Session
	defer func() {
		if m.t.Failed() {
			m.t.Logf("sessions: %+v", last)
		}
	}()
	m.await("all sessions to end", func() bool {
		last = query[[]control.Session](m, "sessions")
		return len(last) == 0
	})
}

// verify re-hashes everything in the store and demands that it is right.
func (m *mount) verify() {
	m.t.Helper()
	r := query[control.VerifyReport](m, "verify", "--full")
	if len(r.Problems) > 0 || !r.Full || r.Hashed != r.Blobs {
		m.t.Errorf("verify --full: %+v", r)
	}
}

func (m *mount) status() control.Status { m.t.Helper(); return query[control.Status](m, "status") }

// head is the newest snapshot's package directory.
func (m *mount) head() string { return filepath.Join(m.point, ".head", "pkgs") }

// pkgs is what clients are given.
func (m *mount) pkgs() string { return filepath.Join(m.point, "pkgs") }

// rattler is what rattler's clients are given.
func (m *mount) rattler() string { return filepath.Join(m.point, "rattler") }

// packages names the packages in the newest snapshot with their trust, extracted or not.
func (m *mount) packages() map[string]control.Package {
	m.t.Helper()
	out := map[string]control.Package{}
	for _, p := range query[[]control.Package](m, "ls") {
		out[fmt.Sprintf("%s/%s", p.Directory, p.Name)] = p
	}
	return out
}
