package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"condafs/internal/longrun"
)

// app is what most tests install: packages of all kinds, 11 with what they depend on, or 33.
var app = specs("odd,lib01,pure07,old00", "app03")

// specs chooses between what tests install by default and in long runs.
func specs(normal, long string) string {
	if longrun.Wanted() {
		return long
	}
	return normal
}

// envs makes a directory for environments and returns a namer of prefixes in it.
func envs(t *testing.T) func(name string, i int) string {
	t.Helper()
	dir := testDir(t)
	return func(name string, i int) string { return filepath.Join(dir, fmt.Sprintf("%s-%d", name, i)) }
}

// TestDemonstration is the promise: on condafs as many clients of all kinds at once as you like, cold or warm, with
// `conda clean` beside them, and nothing ever breaks. The program shows beside it what there is to break.
func TestDemonstration(t *testing.T) {
	t.Parallel()
	n := 32
	if !longrun.Wanted() {
		n = 4
	}
	dir := testDir(t)
	cmd := exec.Command("python3", "demonstration", "-n", fmt.Sprint(n), "--condafs", needBinary(t), "--size", channelSize(), "--scratch", dir, "--json")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	t.Logf("%s%s", stderr.String(), out)
	if err != nil {
		t.Fatalf("the demonstration: %v", err)
	}
	type column struct {
		Broken, Processes int
		Of                map[string]int
	}
	var r struct {
		OK      bool
		Columns map[string]column
	}
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatal(err)
	}
	// The program judges itself; that the judge finds what is broken is shown by TestJudgeFindsDamage.
	c := r.Columns["condafs"]
	if !r.OK || c.Broken > 0 || c.Processes != 2*n+1 || c.Of["conda"] != n || c.Of["rattler"] != n/2 || c.Of["extractor"] != n/2 {
		t.Errorf("%+v", r)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("the demonstration left %v, %v", left, err)
	}
}

// Explicit sessions: each client in one of its own, by `condafs run`, with and without a mount namespace.
func TestManyCondaClientsUnderRun(t *testing.T) {
	t.Parallel()
	s, env, m := serve(t), envs(t), newMount(t)
	n := 6
	if !longrun.Wanted() {
		n = 4
	}
	for _, round := range []string{"cold", "warm"} {
		clients := several(n, func(i int) *client {
			namespace := []string{"auto", "never"}[i%2]
			return conda(t, s, m.pkgs(), env(round, i), app).under(m, "--label", fmt.Sprint(round, i), "--namespace", namespace)
		})
		atOnce(t, clients...)
		mustBeRight(t, clients...)
	}
	m.settle()
	m.headMustHold(app)
	m.mustBeIntact()
}

// All clients in one explicit session share one overlay, as processes share a directory: one after the other all is right.
func TestOneSessionForSeveralCommands(t *testing.T) {
	t.Parallel()
	s, env, m := serve(t), envs(t), newMount(t)
	p := needTools(t)
	script := ""
	for i, spec := range []string{"app00", "app01"} {
		script += fmt.Sprintf("%s -m conda_shaped install --json --channel %s --prefix %s %s &&\n", p.python, s.url, env("one", i), spec)
	}
	c := pythonClient(t, "a script")
	c.cmd.Path, c.cmd.Args = "/bin/sh", []string{"sh", "-ec", script + "true"}
	c.under(m)
	atOnce(t, c)
	mustSucceed(t, c)
	if j := judge(t, "none", "--env", env("one", 0)+"=app00", "--env", env("one", 1)+"=app01"); !j.OK {
		t.Errorf("environments are not right: %+v", j)
	}
	m.settle()
	m.headMustHold("app00,app01")
	m.mustBeIntact()
}

// rattlerApp has no package without info/paths.json in it: see TestRattlerAndOldPackages.
var rattlerApp = specs("lib11,pure07,odd", "app05,odd")

func TestRattlerClients(t *testing.T) {
	t.Parallel()
	s, env, m := serve(t), envs(t), newMount(t)
	n := 8
	if !longrun.Wanted() {
		n = 3
	}
	for _, round := range []string{"cold", "warm"} {
		before := s.stats().ArchiveRequests
		clients := several(n, func(i int) *client { return rattler(t, s, m.rattler(), env(round, i), rattlerApp) })
		took := atOnce(t, clients...)
		mustBeRight(t, clients...)
		m.settle()
		m.rattlerHeadMustHold(rattlerApp)
		requests := s.stats().ArchiveRequests - before
		t.Logf("%s: %d clients in %.1f s, %d archives served", round, n, took.Seconds(), requests)
		if round == "warm" && requests > 0 {
			t.Errorf("warm clients downloaded %d archives", requests)
		}
	}
	m.mustBeIntact()
}

// Rattler keeps no archives, so nothing can prove that what it has extracted of a package without info/paths.json is
// right. Its environments are, and such a package stays out of the head.
func TestRattlerAndOldPackages(t *testing.T) {
	t.Parallel()
	s, env, m := serve(t), envs(t), newMount(t)
	for i := range 2 {
		c := rattler(t, s, m.rattler(), env("old", i), "old00,lib00")
		atOnce(t, c)
		mustBeRight(t, c)
		m.settle()
		m.rattlerHeadMustHold("lib00")
		if p, ok := m.packages()["rattler/pkgs/old00-0.0-0"]; ok {
			t.Errorf("an unproven package is in the head: %+v", p)
		}
	}
	t.Logf("quarantine: %+v", m.status().Quarantine)
	m.mustBeIntact()
}

// TestExtractors has both extractors work on the same packages at once, in worker processes and without.
func TestExtractors(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	packages := []string{"odd", "python", "lib00", "lib05", "pure00", "pure07", "old00", "app04", "many"}
	var clients []*client
	for _, tool := range []string{"cph", "cps"} {
		for _, processes := range []string{"1", "2"} {
			clients = append(clients, extractor(t, m.pkgs(), tool, append([]string{"--processes", processes}, packages...)...))
		}
	}
	atOnce(t, clients...)
	mustSucceed(t, clients...)
	m.settle()
	for _, name := range packages {
		if j := judge(t, "none", "--cache", m.head()); j.DirectoriesOK != len(packages) || j.ArchivesOK != len(packages) {
			t.Fatalf("%s: the head does not hold what was extracted: %+v", name, j)
		}
	}
	m.mustBeIntact()
}

// TestAllKindsAtOnce mixes every client there is, with cleaning beside them.
func TestAllKindsAtOnce(t *testing.T) {
	t.Parallel()
	s, env, m := serve(t), envs(t), newMount(t)
	rounds, of := 2, 3
	if !longrun.Wanted() {
		rounds, of = 1, 2
	}
	for round := range rounds {
		name := func(kind string) string { return fmt.Sprintf("%s-round%d", kind, round) }
		var installs, others []*client
		for i := range of {
			spec := []string{"app03", "app05", "app00"}[i]
			installs = append(installs,
				conda(t, s, m.pkgs(), env(name("conda"), i), spec, "--extract", []string{"process", "thread"}[i%2]),
				conda(t, s, m.pkgs(), env(name("run"), i), spec).under(m),
				rattler(t, s, m.rattler(), env(name("rattler"), i), spec))
		}
		others = append(others, extractor(t, m.pkgs(), "cph", "lib00", "odd", "old00"), condaClean(t, m.pkgs(), "-a"), condaClean(t, m.pkgs(), "-t"))
		atOnce(t, append(installs, others...)...)
		mustBeRight(t, append(installs, others...)...)
	}
	m.mustBeIntact()
}

// TestSeveralPackageDirectories gives conda the mount first and a plain, full cache second: packages are linked from
// there and nothing is downloaded, as with a plain first directory.
func TestSeveralPackageDirectories(t *testing.T) {
	t.Parallel()
	s, env, m := serve(t), envs(t), newMount(t)
	full := filepath.Join(testDir(t), "pkgs")
	fill := conda(t, s, full, env("fill", 0), app)
	atOnce(t, fill)
	mustBeRight(t, fill)
	s.reset()
	clients := several(3, func(i int) *client { return conda(t, s, m.pkgs()+","+full, env("second", i), app) })
	atOnce(t, clients...)
	mustBeRight(t, clients...)
	if n := s.stats().ArchiveRequests; n > 0 {
		t.Errorf("%d archives were downloaded although the second directory has them", n)
	}
	m.mustBeIntact()
}

// TestCleanOfEverything: even `conda clean -f`, which removes whole package directories, harms nobody who works.
func TestCleanOfEverything(t *testing.T) {
	t.Parallel()
	s, env, m := serve(t), envs(t), newMount(t)
	first := conda(t, s, m.pkgs(), env("first", 0), app)
	atOnce(t, first)
	mustBeRight(t, first)
	m.settle()
	clients := several(4, func(i int) *client { return conda(t, s, m.pkgs(), env("beside", i), app) })
	clean := condaClean(t, m.pkgs(), "-f").under(m)
	atOnce(t, append(clients, clean)...)
	mustBeRight(t, append(clients, clean)...)
	m.settle()
	if _, err := os.Stat(m.head()); err != nil {
		t.Errorf("the package directory itself is gone: %v", err)
	}
	last := conda(t, s, m.pkgs(), env("last", 0), app)
	atOnce(t, last)
	mustBeRight(t, last)
	m.mustBeIntact()
}

// TestLargestEnvironment installs everything, with the package of thousands of files and the huge one.
func TestLargestEnvironment(t *testing.T) {
	t.Parallel()
	if !longrun.Wanted() {
		t.Skip("large")
	}
	s, env, m := serve(t), envs(t), newMount(t)
	clients := several(3, func(i int) *client { return conda(t, s, m.pkgs(), env("all", i), "universe") })
	took := atOnce(t, clients...)
	t.Logf("3 clients, %d packages each: %.1f s", clients[0].outcome.Packages, took.Seconds())
	mustBeRight(t, clients...)
	m.settle()
	m.headMustHold("universe")
	m.mustBeIntact()
}
