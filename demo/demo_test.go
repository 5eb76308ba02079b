package demo

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"condafs/internal/racetest"
)

// TestMain lets the test binary be a client of the demonstration, as the condafs binary is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == ClientCommand {
		os.Exit(ClientMain(os.Args[2:], os.Stdout, os.Stderr))
	}
	if err := racetest.Children(); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// made is the channel of all tests: making it takes seconds under the race detector.
var made = sync.OnceValues(makeChannel)

func newDemonstration(t *testing.T, n int) *demonstration {
	t.Helper()
	c, err := made()
	if err != nil {
		t.Fatal(err)
	}
	s, err := serve(c, Link{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return &demonstration{o: Options{N: n, Executable: exe}, channel: c, server: s}
}

func plainSide(t *testing.T) side {
	t.Helper()
	dir := t.TempDir()
	return side{pkgs: filepath.Join(dir, "pkgs"), envs: filepath.Join(dir, "envs"), settle: func(context.Context) error { return nil }}
}

// One client alone breaks nothing: what the demonstration counts is the doing of many, not of a bad client.
func TestOneClientAloneBreaksNothing(t *testing.T) {
	d, s := newDemonstration(t, 1), plainSide(t)
	if err := os.MkdirAll(s.envs, 0o777); err != nil {
		t.Fatal(err)
	}
	var col Column
	for range 2 { // cold, then warm
		if err := d.round(t.Context(), s, false, &col); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Join(s.envs, "cold-0")); err != nil {
			t.Fatal(err)
		}
	}
	d.channel.judgeCache(s.pkgs, true, &col)
	if col.Broken() != 0 || col.Clients != 2 || col.Environments != 2 {
		t.Errorf("one client at a time broke something: %+v", col)
	}
	if served := d.server.sent.Load(); served > int64(2*archiveBytes(d.channel)) {
		t.Errorf("the second client downloaded again: %d bytes were served", served)
	}
}

func archiveBytes(c *channel) int {
	n := 0
	for _, p := range c.packages {
		n += len(p.archive)
	}
	return n
}

// Many on a plain directory break something; that they do is what condafs exists for.
func TestManyClientsBreakAPlainDirectory(t *testing.T) {
	d := newDemonstration(t, 8)
	for try := range 5 {
		var col Column
		if err := d.run(t.Context(), plainSide(t), &col); err != nil {
			t.Fatal(err)
		}
		t.Logf("try %d: %+v", try, col)
		if col.Broken() > 0 {
			return
		}
	}
	t.Error("five times eight clients at once, and nothing broke")
}

// A client whose environment is not right counts as failed, whatever it says.
func TestJudgeLooksAtBytesNotAtStatus(t *testing.T) {
	d, s := newDemonstration(t, 1), plainSide(t)
	if err := os.MkdirAll(s.envs, 0o777); err != nil {
		t.Fatal(err)
	}
	var col Column
	if err := d.round(t.Context(), s, false, &col); err != nil || col.Broken() != 0 {
		t.Fatalf("%v, %+v", err, col)
	}
	env, p := filepath.Join(s.envs, "cold-0"), d.channel.packages[0]
	var plain *file
	for i := range p.files {
		if f := &p.files[i]; !f.isInfo() && f.link == "" && !f.prefix && len(f.data) > 0 {
			plain = f
		}
	}
	path := filepath.Join(env, plain.name)
	changed := append([]byte{plain.data[0] ^ 1}, plain.data[1:]...)
	if err := os.Remove(path); err != nil { // a hard link into the cache: not to be written through
		t.Fatal(err)
	}
	if err := os.WriteFile(path, changed, os.FileMode(plain.mode)); err != nil {
		t.Fatal(err)
	}
	c := &client{prefix: env}
	c.judge(nil, d.channel, &col)
	if col.FilesWrong != 1 || col.EnvironmentsBroken != 1 || col.SilentFailures != 1 {
		t.Errorf("one changed byte was not found: %+v", col)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	c.judge(&exec.ExitError{}, d.channel, &col)
	if col.FilesMissing != 1 || col.ClientErrors != 1 {
		t.Errorf("one missing file was not found: %+v", col)
	}
}

func TestChannelIsTheSameEachTime(t *testing.T) {
	a, err := made()
	if err != nil {
		t.Fatal(err)
	}
	b, err := makeChannel()
	if err != nil {
		t.Fatal(err)
	}
	if string(a.repodata) != string(b.repodata) {
		t.Error("two channels differ")
	}
}
