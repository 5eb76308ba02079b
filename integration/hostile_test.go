package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"condafs/control"
)

const thirdUID = 54322

// hostile runs hostile.py as a user, and returns what it was told.
func (m *mount) hostile(uid int, try []string, more map[string]any) map[string]string {
	m.t.Helper()
	return m.hostileBy(nil, uid, try, more)
}

// hostileBy does the same with a command in front.
func (m *mount) hostileBy(by []string, uid int, try []string, more map[string]any) map[string]string {
	m.t.Helper()
	said := map[string]any{"mount": m.point, "store": m.store, "try": try}
	for k, v := range more {
		said[k] = v
	}
	b, err := json.Marshal(said)
	if err != nil {
		m.t.Fatal(err)
	}
	// The system's own interpreter, and a copy of the program: all users can reach those.
	program, err := os.ReadFile(filepath.Join(needTools(m.t).clients, "hostile.py"))
	if err != nil {
		m.t.Fatal(err)
	}
	at := filepath.Join(testDir(m.t), "hostile.py")
	if err := os.WriteFile(at, program, 0o644); err != nil {
		m.t.Fatal(err)
	}
	const python = "/usr/bin/python3"
	args := append(slices.Clone(by), python, at, string(b))
	path, err := exec.LookPath(args[0])
	if err != nil {
		m.t.Fatal(err)
	}
	c := plainClient(strings.Join(try, " "), uid, path, args)
	atOnce(m.t, c)
	var got map[string]string
	decodeLast(m.t, c, &got)
	if len(got) == 0 {
		m.t.Errorf("%v tried nothing", try)
	}
	return got
}

// plainClient is a program run by a user.
func plainClient(name string, uid int, path string, args []string) *client {
	c := &client{name: fmt.Sprintf("%s (uid %d)", name, uid), cmd: &exec.Cmd{Path: path, Args: args, Dir: "/"}}
	c.cmd.Env = append(os.Environ(), "HOME=/nonexistent", "PYTHONDONTWRITEBYTECODE=1")
	c.cmd.Stdout, c.cmd.Stderr = &c.stdout, &c.stderr
	if uid != 0 {
		c.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	}
	return c
}

// mustBeRefused fails the test for each thing that worked but these.
func mustBeRefused(t *testing.T, got map[string]string, allowed map[string]string) {
	t.Helper()
	for what, is := range got {
		switch want, ok := allowed[what]; {
		case ok && is != want:
			t.Errorf("%s: %s, want %s", what, is, want)
		case !ok && (is == "ok" || !strings.HasPrefix(is, "E") && is != "no" && is != "403" && is != "404"):
			t.Errorf("%s: %s", what, is)
		}
	}
	for what := range allowed {
		if _, ok := got[what]; !ok {
			t.Errorf("%s was not tried", what)
		}
	}
}

// prey is a process with a session that it has written in and stands in.
type prey struct {
	pid, fd int
	session string
	end     func()
}

func startVictim(t *testing.T, m *mount, uid int) prey {
	t.Helper()
	before := query[[]control.Session](m, "sessions")
	c := plainClient("a victim", uid, "/bin/sh", []string{"sh", "-c", `cd "$0" && echo secret > secret.txt && exec 9< secret.txt; read line; rm secret.txt`, m.pkgs()})
	in, err := c.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.start(t)
	v := prey{pid: c.cmd.Process.Pid, fd: 9}
	m.await("the victim to have written", func() bool {
		for _, s := range query[[]control.Session](m, "sessions") {
			if s.Dirty && int(s.UID) == uid && !slices.ContainsFunc(before, func(b control.Session) bool { return b.ID == s.ID }) {
				v.session = s.ID
			}
		}
		_, err := os.Stat(fmt.Sprintf("/proc/%d/fd/%d", v.pid, v.fd))
		return v.session != "" && err == nil
	})
	v.end = func() {
		t.Helper()
		// Nobody has touched it.
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/fd/%d", v.pid, v.fd)); err != nil || string(b) != "secret\n" {
			t.Errorf("the victim's file holds %q: %v", b, err)
		}
		if l, err := os.ReadDir(fmt.Sprintf("/proc/%d/cwd/..", v.pid)); err != nil || len(l) != 2 {
			t.Errorf("the victim's session holds %v: %v", l, err)
		}
		if err := in.Close(); err != nil {
			t.Error(err)
		}
		c.wait(t)
		if c.err != nil {
			t.Errorf("the victim: %v: %s", c.err, c.stderr.String())
		}
	}
	return v
}

// TestAnotherUsersSession: neither by its path, nor by its process, by guessed handles
// or by commands does a user get at another's session, or at what is the owner's.
func TestAnotherUsersSession(t *testing.T) {
	t.Parallel()
	needRoot(t)
	s, m := serve(t), newMount(t, "--allow-other")
	secrets := testDir(t)
	first := conda(t, s, m.pkgs(), filepath.Join(testDir(t), "env"), "app00")
	atOnce(t, first)
	mustBeRight(t, first)
	m.settle()
	socket := struct{ Socket string }{}
	b, err := os.ReadFile(filepath.Join(m.point, ".condafs"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &socket); err != nil {
		t.Fatal(err)
	}
	for name, uid := range map[string]int{"root's": 0, "a user's": thirdUID} {
		t.Run(name, func(t *testing.T) {
			m := *m
			m.t = t
			v := startVictim(t, &m, uid)
			more := map[string]any{"id": v.session, "pid": v.pid, "fd": v.fd, "socket_path": socket.Socket, "secret_dir": secrets}
			mustBeRefused(t, m.hostile(otherUID, []string{"another_session", "fixed_names", "store", "commands"}, more), map[string]string{
				"find it listed": "no", "see it": "no", "see it in the log": "no",
				"commit it": "404", "discard it": "404", "end it": "404",
				"stop": "403", "gc": "403", "verify": "403", "import": "403", "export": "403",
			})
			got := m.hostile(otherUID, []string{"handles"}, nil)
			if got["reach others by handle"] != "no" && got["name a handle"] == "" {
				t.Errorf("by handle: %v", got)
			}
			// In a user namespace of its own a user may open handles of what is its own.
			by := []string{"unshare", "--user", "--map-root-user", "--mount", "--"}
			if out, err := unshared(by, otherUID); err != nil {
				t.Logf("no user namespaces here: %v: %s", err, out)
			} else if got := m.hostileBy(by, otherUID, []string{"handles"}, nil); got["reach others by handle"] != "no" && got["name a handle"] == "" {
				t.Errorf("by handle, in a user namespace: %v", got)
			}
			v.end()
		})
	}
	m.settle()
	m.headMustHold("app00")
	m.mustBeIntact()
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, to be several users")
	}
}

// unshared tells whether a user can have namespaces.
func unshared(by []string, uid int) ([]byte, error) {
	args := append([]string{"--reuid", strconv.Itoa(uid), "--regid", strconv.Itoa(uid), "--clear-groups", "--"}, by...)
	return exec.Command("setpriv", append(args, "true")...).CombinedOutput()
}

// TestBitsAndDevices: no user gets a set-id bit, a device, or an attribute that means
// something to the kernel or to condafs into a session.
func TestBitsAndDevices(t *testing.T) {
	t.Parallel()
	needRoot(t)
	m := newMount(t, "--allow-other")
	for _, uid := range []int{0, otherUID} {
		got := m.hostile(uid, []string{"special"}, nil)
		allowed := map[string]string{"chmod 4755": "755", "chmod 2755": "755", "chmod 6777": "777", "create with bits": "1755", "mkdir with bits": "755"}
		if uid == 0 {
			allowed["give it away"] = "ok" // to itself
		}
		mustBeRefused(t, got, allowed)
	}
	m.settle()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, " "+m.point+" ") && (!strings.Contains(line, "nosuid") || !strings.Contains(line, "nodev")) {
			t.Errorf("mounted as %s", line)
		}
	}
	m.storeHasNoBits()
}

// storeHasNoBits looks for set-id bits and devices in the whole store.
func (m *mount) storeHasNoBits() {
	m.t.Helper()
	if err := filepath.WalkDir(m.store, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err == nil && fi.Mode()&(fs.ModeSetuid|fs.ModeSetgid|fs.ModeDevice) != 0 {
			m.t.Errorf("the store has %s %v", p, fi.Mode())
		}
		return err
	}); err != nil {
		m.t.Error(err)
	}
}

// TestSymlinkFarm: a user puts links to what only root may read wherever the daemon, who
// is root, looks at the end of a session, and FIFOs where it would wait. None of it is
// read, and nothing waits.
func TestSymlinkFarm(t *testing.T) {
	t.Parallel()
	needRoot(t)
	m := newMount(t, "--allow-other")
	secrets := testDir(t)
	const secret = "only root may know this"
	record := fmt.Sprintf(`{"name":"record","version":"1.0","build":"0","note":%q}`, secret)
	for _, name := range []string{"secret.json", "index.json", "paths.json", "repodata_record.json"} {
		if err := os.WriteFile(filepath.Join(secrets, name), []byte(record), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(secrets, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, uid := range []int{otherUID, 0} {
		m.hostile(uid, []string{"farm"}, map[string]any{"secrets": secrets})
		m.settle()
	}
	m.verify()
	m.umount()
	if err := filepath.WalkDir(m.store, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(p)
		if bytes.Contains(b, []byte(secret)) {
			t.Errorf("the secret is in %s", p)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"secret.json", "index.json"} {
		if fi, err := os.Stat(filepath.Join(secrets, name)); err != nil || fi.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", name, fi, err)
		}
	}
}

// TestGreedyUser: a user who takes what can be had meets the limits, and nobody else
// notices.
func TestGreedyUser(t *testing.T) {
	t.Parallel()
	needRoot(t)
	limits := map[string]any{"sessions": 5, "open": 30, "bytes": 8 << 20, "files": 60}
	s, m := serve(t), newMount(t, "--allow-other", "--limit", "sessions=5,open=30,bytes=8MiB,files=60")
	env := envs(t)
	for try, want := range map[string]map[string]string{
		"greedy":        {"bytes": "EDQUOT", "room comes back": "ok", "open": "EMFILE", "files come back": "ok", "files": "EDQUOT", "remove": "ok"},
		"sessions_only": {"sessions": "EDQUOT"},
	} {
		got := m.hostile(otherUID, []string{try}, map[string]any{"limits": limits, "session": try == "greedy"})
		mustBeRefused(t, got, want)
	}
	beside := conda(t, s, m.pkgs(), env("root", 0), "app00")
	atOnce(t, beside)
	mustBeRight(t, beside)
	m.settle()
	for _, limit := range []string{"sessions", "open", "bytes", "files"} {
		if log := m.log.String(); !strings.Contains(log, "limit="+limit) || !strings.Contains(log, "--limit "+limit+"=NUMBER") {
			t.Errorf("the log does not tell of %s:\n%s", limit, tail(log))
		}
	}
	u := m.status().Users
	if u == nil || u.Sharing != "trusted" || u.Limits != (control.Amounts{Sessions: 5, Open: 30, Bytes: 8 << 20, Files: 60}) || len(u.Usage) != 1 || u.Usage[0].UID != otherUID {
		t.Errorf("condafs status: %+v", u)
	}
	if out := string(m.condafs("status")); !strings.Contains(out, "5 sessions, 30 open files, 8.4 MB in 60 files") {
		t.Errorf("condafs status for people: %s", out)
	}
	// It is right again after a restart.
	m.remount()
	got := m.hostile(otherUID, []string{"greedy"}, map[string]any{"limits": limits})
	mustBeRefused(t, got, map[string]string{"bytes": "EDQUOT", "room comes back": "ok", "open": "EMFILE", "files come back": "ok", "files": "EDQUOT", "remove": "ok"})
	m.settle()
	m.headMustHold("app00")
	m.mustBeIntact()
}

// TestWhoseAreShared: by default a user is given root's packages, and no other user's;
// --trust and --share change that, also for what is there already.
func TestWhoseAreShared(t *testing.T) {
	t.Parallel()
	needRoot(t)
	s, m := serve(t), newMount(t, "--allow-other")
	openToOthers(t)
	env := envs(t)
	first, second := specs("lib05,odd", "app00"), specs("lib05,odd,pure07", "app03")
	install := func(uid int, app string, n int) (archives int) {
		t.Helper()
		before := s.stats().ArchiveRequests
		c := conda(t, s, m.pkgs(), env(strings.ReplaceAll(app, ",", "-")+"-"+strconv.Itoa(uid), n), app)
		if uid != 0 {
			if err := os.Chmod(filepath.Dir(c.prefix), 0o777); err != nil {
				t.Fatal(err)
			}
			c.as(t, uid)
		}
		atOnce(t, c)
		mustBeRight(t, c)
		m.settle()
		return int(s.stats().ArchiveRequests - before)
	}
	shared := func() (by map[uint32]int) {
		by = map[uint32]int{}
		for _, p := range query[[]control.Package](m, "ls") {
			if p.Shared {
				by[p.Owner]++
			}
		}
		return by
	}
	again := func(args ...string) {
		t.Helper()
		m.umount()
		m.args = append([]string{"--allow-other"}, args...)
		m.start()
	}
	if install(otherUID, first, 0) == 0 {
		t.Error("nothing was downloaded at first")
	}
	if install(otherUID, first, 1) != 0 {
		t.Error("a user does not find what was its own")
	}
	if by := shared(); len(by) != 0 {
		t.Errorf("a user's packages are shared: %v", by)
	}
	if install(thirdUID, first, 0) == 0 {
		t.Error("a user was given another's packages")
	}
	again("--trust", strconv.Itoa(otherUID))
	if install(otherUID, second, 0) == 0 {
		t.Error("nothing was downloaded at first")
	}
	if by := shared(); by[otherUID] == 0 || by[thirdUID] != 0 {
		t.Errorf("shared: %v", by)
	}
	if n := install(thirdUID, second, 0); n != 0 {
		t.Errorf("%d archives were downloaded that a trusted user had brought", n)
	}
	again() // trusted no more
	if by := shared(); len(by) != 0 {
		t.Errorf("still shared: %v", by)
	}
	again("--share", "none")
	install(0, first, 2)
	if by := shared(); len(by) != 0 {
		t.Errorf("root's are shared: %v", by)
	}
	m.mustBeIntact()
}
