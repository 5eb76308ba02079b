package integration

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"condafs/control"
)

// besideShelf gives a conda client what `condafs env` prints.
func (c *client) besideShelf(m *mount) *client {
	env := query[map[string]string](m, "env")
	if !strings.Contains(env["CONDA_PKGS_DIRS"], ",") {
		m.t.Fatalf("condafs env knows no shelf: %v", env)
	}
	c.cmd.Env = append(c.cmd.Env, "CONDA_PKGS_DIRS="+env["CONDA_PKGS_DIRS"])
	return c
}

// awaitShelf waits until all verified packages of the head are on the shelf, and returns where that is.
func (m *mount) awaitShelf() string {
	m.t.Helper()
	m.settle()
	verified := 0
	for _, p := range m.packages() {
		if p.Directory == "pkgs" && p.Extracted && p.Shared && p.Trust == "verified" {
			verified++
		}
	}
	if verified == 0 {
		m.t.Fatal("nothing in the head is verified")
	}
	var shelf *control.Shelf
	m.await("packages to be on the shelf", func() bool {
		shelf = m.status().Shelf
		return shelf != nil && shelf.Packages == verified
	})
	return shelf.Path
}

// fromShelf demands that clients downloaded nothing and made their environments by hard links.
func fromShelf(t *testing.T, clients ...*client) {
	t.Helper()
	mustBeRight(t, clients...)
	for _, c := range clients {
		if c.outcome.Fetched != 0 || c.outcome.Hardlinked == 0 {
			t.Errorf("%s fetched %d packages and linked %d files", c.name, c.outcome.Fetched, c.outcome.Hardlinked)
		}
	}
}

// Clients that find packages on the shelf link them from there, by themselves and under `condafs run`, root or not, and
// cannot write to it. `conda clean` takes nothing from it, whoever else is at work.
func TestShelf(t *testing.T) {
	t.Parallel()
	s, env, m := serve(t), envs(t), newMount(t)
	first := conda(t, s, m.pkgs(), env("first", 0), app).besideShelf(m)
	atOnce(t, first)
	mustBeRight(t, first)
	if first.outcome.Hardlinked == 0 {
		t.Error("what it had brought itself was copied, not linked")
	}
	shelf := m.awaitShelf()
	before := s.stats()

	warm := several(4, func(i int) *client {
		c := conda(t, s, m.pkgs(), env("warm", i), app).besideShelf(m)
		if i%2 == 1 {
			c.under(m)
		}
		return c
	})
	clean := condaClean(t, m.pkgs(), "-a").besideShelf(m)
	atOnce(t, append(warm, clean)...)
	mustSucceed(t, clean)
	fromShelf(t, warm...)
	if served := s.stats().ArchiveRequests - before.ArchiveRequests; served != 0 {
		t.Errorf("%d archives were fetched again", served)
	}
	if f, err := os.OpenFile(filepath.Join(shelf, "urls.txt"), os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o666); err == nil {
		t.Error("conda would write to the shelf", f.Close())
	}
	m.headMustHold(app)

	// A client that knows one directory only sees everything on the mount, as links once it reads of what packages consist.
	plain := conda(t, s, m.pkgs(), env("plain", 0), app)
	atOnce(t, plain)
	fromShelf(t, plain)

	// Nor does a restart lose anything.
	m.remount()
	m.awaitShelf()
	again := conda(t, s, m.pkgs(), env("again", 0), app).besideShelf(m)
	atOnce(t, again)
	fromShelf(t, again)
	m.mustBeIntact()
}

// A package that is deleted while somebody links from the shelf goes when he has ended.
func TestShelfKeepsWhatIsInUse(t *testing.T) {
	t.Parallel()
	s, env, m := serve(t), envs(t), newMount(t)
	first := conda(t, s, m.pkgs(), env("first", 0), "lib09,pure06,old00,odd")
	atOnce(t, first)
	mustBeRight(t, first)
	shelf := m.awaitShelf()
	user := m.commandFor("run", "--mount", m.point, "--", "cat")
	in, err := user.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := user.Start(); err != nil {
		t.Fatal(err)
	}
	m.await("the session to begin", func() bool { return len(query[[]control.Session](m, "sessions")) == 1 })
	remove := condaClean(t, m.pkgs(), "-a")
	atOnce(t, remove)
	mustSucceed(t, remove)
	m.await("the packages to be gone from the head", func() bool {
		for _, p := range m.packages() {
			if p.Extracted && p.Directory == "pkgs" {
				return false
			}
		}
		return true
	})
	if _, err := os.Stat(filepath.Join(shelf, "odd-1.0-0", "info", "index.json")); err != nil {
		t.Errorf("the shelf has lost what a session relies on: %v", err)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := user.Wait(); err != nil {
		t.Error(err)
	}
	m.await("the shelf to be empty", func() bool { return m.status().Shelf.Packages == 0 })
	last := conda(t, s, m.pkgs(), env("last", 0), "lib09,pure06,old00,odd").besideShelf(m)
	atOnce(t, last)
	mustBeRight(t, last)
	m.awaitShelf()
	m.mustBeIntact()
}

// A file that is edited in place through an environment is found, named and mended; nobody else ever gets the edit from
// condafs, and the environment keeps it.
func TestEditInPlace(t *testing.T) {
	t.Parallel()
	s, env, m := serve(t), envs(t), newMount(t, "--shelf", "copy")
	first := conda(t, s, m.pkgs(), env("first", 0), "lib00").besideShelf(m)
	atOnce(t, first)
	m.awaitShelf()
	linked := conda(t, s, m.pkgs(), env("linked", 0), "lib00").besideShelf(m)
	atOnce(t, linked)
	fromShelf(t, linked)
	edited := ""
	err := filepath.WalkDir(linked.prefix, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && filepath.Ext(path) == ".h" {
			edited = path
		}
		return err
	})
	if err != nil || edited == "" {
		t.Fatalf("nothing to edit: %v", err)
	}
	if err := os.WriteFile(edited, []byte("edited"), 0o644); err != nil {
		t.Fatal(err)
	}
	verify := func(want int, args ...string) control.VerifyReport {
		t.Helper()
		cmd := m.commandFor(append(args, "--json")...)
		out, _ := cmd.Output()
		var r control.VerifyReport
		if err := json.Unmarshal(out, &r); err != nil || cmd.ProcessState.ExitCode() != want {
			t.Fatalf("verify %q: status %d, %v: %s", args, cmd.ProcessState.ExitCode(), err, out)
		}
		return r
	}
	if r := verify(3, "verify"); len(r.Problems) != 1 || r.Problems[0].Kind != "shelf" {
		t.Errorf("verify finds %+v", r.Problems)
	}
	if r := verify(0, "repair"); len(r.Problems) != 1 || r.Problems[0].Fixed != "mended" {
		t.Errorf("repair finds %+v", r.Problems)
	}
	verify(0, "verify", "--full")
	if b, err := os.ReadFile(edited); err != nil || string(b) != "edited" {
		t.Errorf("the environment has lost its edit: %q, %v", b, err)
	}
	next := conda(t, s, m.pkgs(), env("next", 0), "lib00").besideShelf(m)
	atOnce(t, next)
	fromShelf(t, next)
	m.mustBeIntact()
}

// A package that a client reads through the mount becomes a link to the shelf under its feet. Who is in the directory, or
// has it open, notices nothing, and does not come to write to the shelf.
func TestWhoIsInAPackageStaysThere(t *testing.T) {
	t.Parallel()
	s, env, m := serve(t), envs(t), newMount(t)
	first := conda(t, s, m.pkgs(), env("first", 0), "odd")
	atOnce(t, first)
	mustBeRight(t, first)
	shelf := m.awaitShelf()
	dir := testDir(t)
	script := `set -eu
		package=$CONDAFS_MOUNT/pkgs/odd-1.0-0
		cd "$package" && exec 3<info
		[ ! -L "$package" ]
		cat "$package/info/paths.json" >"$0/by-path"
		[ -L "$package" ]
		cmp info/paths.json "$0/by-path"
		cmp "/proc/self/fd/3/index.json" "$package/info/index.json"
		cp -a . "$0/from-within"
		diff -r --no-dereference "$package/" "$0/from-within"
		! (echo x >made-within) 2>/dev/null
		! (echo x >>info/index.json) 2>/dev/null
		ls "$package/" | sort >"$0/listed"`
	run := m.commandFor("run", "--no-shelf", "--mount", m.point, "--", "bash", "-c", script, dir)
	if out, err := run.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if j := judge(t, "none", "--cache", shelf); !j.OK {
		t.Errorf("the shelf is not right: %+v", j)
	}
	m.mustBeIntact()
}
