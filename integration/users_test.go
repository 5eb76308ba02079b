package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const otherUID = 54321 // nobody's

// TestTwoUsers shares a mount between root and a user without any rights: both work at once, and the user is given what
// root's clients have verified.
func TestTwoUsers(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs root, to be two users")
	}
	s, m := serve(t), newMount(t, "--allow-other")
	dir := testDir(t)
	prefix := func(name string) string { return filepath.Join(dir, name) }
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	openToOthers(t)
	clients := []*client{
		conda(t, s, m.pkgs(), prefix("root-0"), app), conda(t, s, m.pkgs(), prefix("root-1"), app),
		conda(t, s, m.pkgs(), prefix("user-0"), app).as(t, otherUID), conda(t, s, m.pkgs(), prefix("user-1"), app).as(t, otherUID),
	}
	atOnce(t, clients...)
	mustBeRight(t, clients...)
	m.settle()
	m.headMustHold(app)

	before := s.stats().ArchiveRequests
	warm := conda(t, s, m.pkgs(), prefix("user-warm"), app).as(t, otherUID)
	atOnce(t, warm)
	mustBeRight(t, warm)
	if n := s.stats().ArchiveRequests - before; n > 0 {
		t.Errorf("the user downloaded %d archives that root's clients had verified", n)
	}

	// Nobody looks into another user's session, or writes into the head.
	spy := pythonClient(t, "a spy")
	spy.cmd.Path, spy.cmd.Args = "/bin/sh", []string{"sh", "-c", `
		for s in "$0"/.sessions/*/; do [ -d "$s" ] && ls "$s" >/dev/null 2>&1 && echo "read $s"; done
		touch "$0/.head/pkgs/new" 2>/dev/null && echo "wrote to the head"
		touch "$0/new" 2>/dev/null && echo "wrote to the root"
		rm -rf "$0"/.head/pkgs/lib* 2>/dev/null && [ ! -e "$0"/.head/pkgs/urls.txt ] && echo "emptied the head"
		true`, m.point}
	held := startShell(t, m)
	spy.as(t, otherUID)
	atOnce(t, spy)
	held()
	if out := strings.TrimSpace(spy.stdout.String()); out != "" {
		t.Errorf("an unprivileged user could do this: %s", out)
	}
	m.mustBeIntact()
}

// startShell has a shell of root's write into its session and keep it open until the returned function is called.
func startShell(t *testing.T, m *mount) func() {
	t.Helper()
	c := pythonClient(t, "root's shell")
	c.cmd.Path, c.cmd.Args = "/bin/sh", []string{"sh", "-c", `echo secret > "$0/secret.txt"; read line; rm "$0/secret.txt"`, m.pkgs()}
	in, err := c.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.start(t)
	m.await("root's shell to have written", func() bool {
		for _, s := range query[[]struct{ Dirty bool }](m, "sessions") {
			if s.Dirty {
				return true
			}
		}
		return false
	})
	return func() {
		t.Helper()
		if err := in.Close(); err != nil {
			t.Error(err)
		}
		c.wait(t)
	}
}

// openToOthers skips unless other users can reach what clients are run from.
func openToOthers(t *testing.T) {
	t.Helper()
	p := needTools(t)
	for _, path := range []string{p.clients, p.channel, needBinary(t), filepath.Dir(p.python)} {
		if d := closedTo(t, path); d != "" {
			t.Skipf("%s is closed to other users; set CONDAFS_TEST_CACHE to a directory that is open", d)
		}
	}
}

// closedTo names the directory that keeps other users from a path, if any.
func closedTo(t *testing.T, path string) string {
	t.Helper()
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{path, real} {
		for d := filepath.Dir(path); d != "/"; d = filepath.Dir(d) {
			st, err := os.Stat(d)
			if err != nil {
				t.Fatal(err)
			}
			if st.Mode()&0o005 != 0o005 {
				return d
			}
		}
	}
	return ""
}

// as has the client run as another user, by an interpreter that this user can reach.
func (c *client) as(t *testing.T, uid int) *client {
	t.Helper()
	p := needTools(t)
	if c.cmd.Path == p.python && closedTo(t, p.python) != "" {
		const system = "/usr/bin/python3"
		packages, err := filepath.Glob(filepath.Join(filepath.Dir(filepath.Dir(p.python)), "lib", "python3.*", "site-packages"))
		if err != nil || len(packages) != 1 {
			t.Fatalf("%v: %v", packages, err)
		}
		version := filepath.Base(filepath.Dir(packages[0]))
		if _, err := os.Stat(filepath.Join(filepath.Dir(system), version)); err != nil {
			t.Skipf("%s is closed to other users, and there is no %s in /usr/bin", p.python, version)
		}
		c.cmd.Path, c.cmd.Args[0] = system, system
		c.cmd.Env = append(c.cmd.Env, "PYTHONPATH="+p.clients+":"+packages[0])
	}
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	c.cmd.Env = append(c.cmd.Env, "HOME=/nonexistent", "PYTHONDONTWRITEBYTECODE=1")
	c.name += fmt.Sprintf(" (uid %d)", uid)
	return c
}
