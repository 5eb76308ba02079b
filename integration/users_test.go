package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const otherUID = 54321 // nobody's

// TestTwoUsers shares a mount between root and a user without any rights: both work at once, and the user is given what
// root's clients have verified.
func TestTwoUsers(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to be two users")
	}
	s, m := serve(t), newMount(t, "--allow-other")
	dir := testDir(t)
	prefix := func(name string) string { return filepath.Join(dir, name) }
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	needReadable(t)
	clients := []*client{
		conda(t, s, m.pkgs(), prefix("root-0"), app), conda(t, s, m.pkgs(), prefix("root-1"), app),
		conda(t, s, m.pkgs(), prefix("user-0"), app).as(otherUID), conda(t, s, m.pkgs(), prefix("user-1"), app).as(otherUID),
	}
	atOnce(t, clients...)
	mustBeRight(t, clients...)
	m.settle()
	m.headMustHold(app)

	before := s.stats().ArchiveRequests
	warm := conda(t, s, m.pkgs(), prefix("user-warm"), app).as(otherUID)
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
	spy.as(otherUID)
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
		c.wait()
	}
}

// needReadable skips unless other users can read what clients are run from.
func needReadable(t *testing.T) {
	t.Helper()
	p := needTools(t)
	for _, path := range []string{p.python, p.clients, p.channel, needBinary(t)} {
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
					t.Skipf("%s is closed to other users; set CONDAFS_TEST_CACHE to a directory that is open", d)
				}
			}
		}
	}
}
