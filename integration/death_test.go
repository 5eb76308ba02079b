package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"condafs/control"
	"condafs/internal/longrun"
)

// A client that is killed half-way leaves nothing of what it had not completed, and the next one works.
func TestKilledClientLeavesNothing(t *testing.T) {
	t.Parallel()
	s, env, m := serve(t), envs(t), newMount(t)
	for i, point := range []string{"download:odd", "download:big", "extract:many", "record:lib00", "append:lib01", "link:odd"} {
		ways := []string{"implicit", "run"}
		if !longrun.Wanted() {
			ways = ways[i/2%2:][:1]
		}
		for _, how := range ways {
			t.Run(point+"/"+how, func(t *testing.T) {
				kind, name, _ := strings.Cut(point, ":")
				before := m.packages()
				specs := "lib00,lib01,odd"
				if !strings.Contains(specs, name) {
					if !longrun.Wanted() {
						t.Skip("large")
					}
					specs += "," + name
				}
				victim := conda(t, s, m.pkgs(), env("victim-"+kind+"-"+name+how, i), specs, "--die-at", point)
				if how == "run" {
					victim.under(m)
				}
				dies(t, victim)
				m.settle()
				if j := judge(t, "none", "--cache", m.head()); !j.OK || j.Leftovers > 0 {
					t.Errorf("a dead client left something broken: %+v", j)
				}
				for path := range m.packages() {
					if _, had := before[path]; !had && strings.HasPrefix(path, "pkgs/"+name+"-") && m.packages()[path].Extracted && kind != "link" {
						t.Errorf("%s was committed although its client died at %s", path, point)
					}
				}
				next := conda(t, s, m.pkgs(), env("next-"+kind+"-"+name+how, i), "lib00,lib01,odd")
				atOnce(t, next)
				mustBeRight(t, next)
				m.settle()
				// The next victim needs something to do.
				clean := condaClean(t, m.pkgs(), "-a")
				atOnce(t, clean)
				mustSucceed(t, clean)
				m.settle()
			})
		}
	}
	m.mustBeIntact()
}

// killSomewhere sends sig to clients in the middle of their work: as soon as the server has sent that many archives.
func killSomewhere(t *testing.T, m *mount, s *server, archives int, sig syscall.Signal, clients ...*client) {
	t.Helper()
	for _, c := range clients {
		c.start(t)
	}
	m.await("the clients to be in the middle", func() bool { return s.stats().ArchiveRequests >= archives })
	for _, c := range clients {
		c.kill(t, sig)
	}
	for _, c := range clients {
		c.wait(t)
	}
}

// Half of the clients are killed with all their children while the other half works on the same packages.
func TestHalfOfTheClientsAreKilled(t *testing.T) {
	t.Parallel()
	s, env, m := serve(t), envs(t), newMount(t)
	s.control("slow?bps=2000000")
	survivors := several(3, func(i int) *client { return conda(t, s, m.pkgs(), env("survivor", i), app) })
	for _, c := range survivors {
		c.start(t)
	}
	victims := []*client{
		conda(t, s, m.pkgs(), env("victim", 0), app),
		conda(t, s, m.pkgs(), env("victim", 1), app).under(m),
		rattler(t, s, m.rattler(), env("victim", 2), app),
	}
	killSomewhere(t, m, s, 8, syscall.SIGKILL, victims...)
	s.control("slow?bps=0")
	for _, c := range survivors {
		c.wait(t)
	}
	mustBeRight(t, survivors...)
	m.settle()
	m.headMustHold(app)
	next := rattler(t, s, m.rattler(), env("next", 0), app)
	atOnce(t, next)
	mustBeRight(t, next)
	m.mustBeIntact()
}

// A conda that is killed alone leaves its extraction workers behind. They must not keep its session, and the packages
// in it, from ending for good, nor harm anybody.
func TestKilledParentOfExtractionWorkers(t *testing.T) {
	t.Parallel()
	s, env, m := serve(t), envs(t), newMount(t)
	s.control("slow?bps=4000000")
	c := conda(t, s, m.pkgs(), env("parent", 0), app, "--extract", "process")
	c.cmd.Stdout, c.cmd.Stderr = nil, nil // its workers would keep them open
	c.start(t)
	m.await("the client to be in the middle", func() bool { return s.stats().ArchiveRequests >= 6 })
	if err := c.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	c.died(t)
	s.control("slow?bps=0")
	next := conda(t, s, m.pkgs(), env("next", 0), app)
	atOnce(t, next)
	mustBeRight(t, next)
	c.wait(t)
	m.settle()
	m.headMustHold(app)
	m.mustBeIntact()
}

// A connection that breaks off makes that client fail, as it would anywhere; the cache stays whole and a second try works.
func TestBrokenConnections(t *testing.T) {
	t.Parallel()
	s, env, m := serve(t), envs(t), newMount(t)
	s.control("faults?drop=3")
	clients := several(4, func(i int) *client { return conda(t, s, m.pkgs(), env("dropped", i), app) })
	atOnce(t, clients...)
	for _, c := range clients {
		mustNotLie(t, c)
	}
	m.settle()
	if j := judge(t, "none", "--cache", m.head()); !j.OK || j.Leftovers > 0 {
		t.Errorf("the head is not right: %+v", j)
	}
	s.control("faults?drop=0")
	again := several(4, func(i int) *client { return conda(t, s, m.pkgs(), env("again", i), app) })
	atOnce(t, again...)
	mustBeRight(t, again...)
	m.mustBeIntact()
}

// The daemon is stopped while clients work. What had been committed is there afterwards, nothing is broken, and clients
// work again.
func TestDaemonStopsInTheMiddle(t *testing.T) {
	t.Parallel()
	signals := map[string]syscall.Signal{"SIGTERM": syscall.SIGTERM, "SIGKILL": syscall.SIGKILL}
	for name, sig := range signals {
		t.Run(name, func(t *testing.T) {
			s, env, m := serve(t), envs(t), newMount(t)
			first := conda(t, s, m.pkgs(), env("first", 0), "app00")
			atOnce(t, first)
			mustBeRight(t, first)
			m.settle()
			m.headMustHold("app00")
			s.reset()
			s.control("slow?bps=2000000")
			clients := several(3, func(i int) *client {
				c := conda(t, s, m.pkgs(), env("during", i), "app03")
				if i%2 == 1 {
					c.under(m)
				}
				return c
			})
			for _, c := range clients {
				c.start(t)
			}
			m.await("the clients to be in the middle", func() bool { return s.stats().ArchiveRequests >= 6 })
			m.stop(sig)
			for _, c := range clients {
				c.wait(t)
				mustNotLie(t, c)
			}
			s.control("slow?bps=0")
			m.emptyBarePoint()
			m.start()
			m.headMustHold("app00")
			m.verify()
			last := several(2, func(i int) *client { return conda(t, s, m.pkgs(), env("after", i), "app03") })
			atOnce(t, last...)
			mustBeRight(t, last...)
			m.settle()
			m.headMustHold("app00,app03")
			m.mustBeIntact()
		})
	}
}

// emptyBarePoint removes what clients wrote into the bare directory when the mount had gone from under them.
func (m *mount) emptyBarePoint() {
	m.t.Helper()
	if isMounted(m.t, m.point) {
		m.t.Fatalf("%s is still mounted", m.point)
	}
	if err := os.RemoveAll(m.point); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Mkdir(m.point, 0o755); err != nil {
		m.t.Fatal(err)
	}
}

// What a session has written and not committed is there after an orderly stop (SIGTERM) for a session that is kept.
func TestKeptSessionOutlivesTheDaemon(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	script := `mkdir -p $CONDAFS_MOUNT/pkgs/half-1.0-0/info; echo kept > $CONDAFS_MOUNT/pkgs/half-1.0-0/file; exit 7`
	cmd := m.commandFor("run", "--mount", m.point, "--on-failure", "keep", "--", "sh", "-c", script)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != 7 {
		t.Fatalf("condafs run: %v: %s; the command's status is 7", err, out)
	}
	kept := func() string {
		t.Helper()
		for _, s := range query[[]control.Session](m, "sessions") {
			if s.State == "kept" {
				return s.ID
			}
		}
		t.Fatal("no session is kept")
		return ""
	}
	id := kept()
	m.stop(syscall.SIGTERM)
	m.start()
	if again := kept(); again != id {
		t.Fatalf("session %s became %s", id, again)
	}
	b, err := os.ReadFile(filepath.Join(m.point, ".sessions", id, "pkgs", "half-1.0-0", "file"))
	if err != nil || string(b) != "kept\n" {
		t.Errorf("what the kept session wrote: %q, %v", b, err)
	}
	m.condafs("discard", id)
	m.settle()
	m.mustBeIntact()
}

// A shell that stays for long sees what others commit meanwhile, as long as it has not written itself.
func TestShellThatStays(t *testing.T) {
	t.Parallel()
	s, env, m := serve(t), envs(t), newMount(t)
	c := pythonClient(t, "a shell")
	c.cmd.Path, c.cmd.Args = "/bin/sh", []string{"sh", "-c", `ls "$0" >/dev/null; echo ready; while read line; do ls "$0"; echo done; done`, m.pkgs()}
	in, err := c.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.cmd.Stdout = &lockedBuffer{}
	said := func() string { return c.cmd.Stdout.(*lockedBuffer).String() }
	c.start(t)
	m.await("the shell to look at the cache", func() bool { return strings.Contains(said(), "ready") })
	install := conda(t, s, m.pkgs(), env("beside", 0), "lib00")
	atOnce(t, install)
	mustBeRight(t, install)
	m.await("the shell to see what was committed", func() bool {
		before := strings.Count(said(), "done")
		if _, err := fmt.Fprintln(in, "look"); err != nil {
			t.Fatal(err)
		}
		m.await("the shell to answer", func() bool { return strings.Count(said(), "done") > before })
		return strings.Contains(said(), "lib00-")
	})
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	c.wait(t)
	if c.err != nil {
		t.Error(c.err)
	}
	m.mustBeIntact()
}

// Children that outlive their parent stay in its session if they have used the mount before, themselves: it ends when
// the last of them does.
func TestDaemonisedChild(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	dir := testDir(t)
	c := pythonClient(t, "a parent")
	c.cmd.Path = "/bin/sh"
	c.cmd.Args = []string{"sh", "-c", `
		cd "$0" && echo first > first.txt
		(trap "" HUP; read line < "$0/first.txt"; echo "$line" > "$1/seen"; : > "$1/ready"
		 while [ -d "$1" ] && [ ! -e "$1/go" ]; do sleep 0.05; done; echo second > "$0/second.txt") >/dev/null 2>&1 </dev/null &
		while [ ! -e "$1/ready" ]; do sleep 0.05; done`, m.pkgs(), dir}
	c.start(t)
	c.died(t)
	if b, err := os.ReadFile(filepath.Join(dir, "seen")); err != nil || string(b) != "first\n" {
		t.Errorf("the child does not see what its parent wrote: %q, %v", b, err)
	}
	// The parent is gone and its session is not.
	if n := len(query[[]control.Session](m, "sessions")); n != 1 {
		t.Errorf("%d sessions while the child lives, want 1", n)
	}
	if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	m.settle()
	c.wait(t)
	for _, name := range []string{"first", "second"} {
		b, err := os.ReadFile(filepath.Join(m.head(), name+".txt"))
		if err != nil || string(b) != name+"\n" {
			t.Errorf("%s.txt: %q, %v", name, b, err)
		}
	}
	m.mustBeIntact()
}
