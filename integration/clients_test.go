package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// client is one client process: not yet started, running or ended.
type client struct {
	name   string
	cmd    *exec.Cmd
	prefix string // the environment that it makes; "" if none
	specs  string // what that must hold

	stdout, stderr bytes.Buffer
	err            error
	outcome        outcome
}

// outcome is what a client says of itself.
type outcome struct {
	Success   bool   `json:"success"`
	Exception string `json:"exception"`
	Error     string `json:"error"`
	Packages  int    `json:"packages"`
	Fetched   int    `json:"fetched"`
}

// pythonClient is a Python program of clients/ with the environment that all of them need.
func pythonClient(t *testing.T, name string, args ...string) *client {
	t.Helper()
	p := needTools(t)
	c := &client{name: name, cmd: exec.Command(p.python, args...)}
	c.cmd.Dir = p.clients
	c.cmd.Env = append(os.Environ(), "PYTHONPATH="+p.clients, "PYTHONPYCACHEPREFIX="+filepath.Join(scratch, "pycache"), "PYTHONUNBUFFERED=1")
	c.cmd.Stdout, c.cmd.Stderr = &c.stdout, &c.stderr
	return c
}

// conda is a client that makes prefix with the package directories pkgs.
func conda(t *testing.T, s *server, pkgs, prefix, specs string, args ...string) *client {
	t.Helper()
	all := []string{"-m", "conda_shaped", "install", "--json", "--channel", s.url, "--prefix", prefix}
	all = append(all, args...)
	c := pythonClient(t, "conda "+filepath.Base(prefix), append(all, strings.Split(specs, ",")...)...)
	c.cmd.Env = append(c.cmd.Env, "CONDA_PKGS_DIRS="+pkgs)
	c.prefix, c.specs = prefix, specs
	return c
}

// condaClean is `conda clean` with args.
func condaClean(t *testing.T, pkgs string, args ...string) *client {
	t.Helper()
	c := pythonClient(t, "conda clean", append([]string{"-m", "conda_shaped", "clean", "--json"}, args...)...)
	c.cmd.Env = append(c.cmd.Env, "CONDA_PKGS_DIRS="+pkgs)
	return c
}

func rattler(t *testing.T, s *server, cache, prefix, specs string) *client {
	t.Helper()
	args := []string{"rattler_client.py", "--channel", s.url, "--prefix", prefix}
	c := pythonClient(t, "rattler "+filepath.Base(prefix), append(args, strings.Split(specs, ",")...)...)
	c.cmd.Env = append(c.cmd.Env, "RATTLER_CACHE_DIR="+cache)
	c.prefix, c.specs = prefix, specs
	return c
}

// extractor extracts archives with tool, cph or cps, straight into a package directory.
func extractor(t *testing.T, pkgs, tool string, args ...string) *client {
	t.Helper()
	p := needTools(t)
	all := []string{"cph_client.py", "--channel", p.channel, "--pkgs", pkgs, "--tool", tool}
	return pythonClient(t, tool, append(all, args...)...)
}

// under has the client run by `condafs run` in a session of its own.
func (c *client) under(m *mount, args ...string) *client {
	inner := c.cmd
	all := append([]string{"run", "--mount", m.point}, args...)
	all = append(append(all, "--"), inner.Args...)
	c.cmd = exec.Command(m.bin, all...)
	c.cmd.Dir, c.cmd.Env, c.cmd.Stdout, c.cmd.Stderr = inner.Dir, inner.Env, inner.Stdout, inner.Stderr
	c.name += " (run)"
	return c
}

func (c *client) start(t *testing.T) {
	t.Helper()
	// A process group of its own, so that a client can be killed with its children and nothing else.
	if c.cmd.SysProcAttr == nil {
		c.cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	c.cmd.SysProcAttr.Setpgid = true
	// Children of a killed client may hold its output open; they are not waited for.
	c.cmd.WaitDelay = patience
	if err := c.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", c.name, err)
	}
	pid := c.cmd.Process.Pid
	t.Cleanup(func() {
		if err := syscall.Kill(-pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Error(err)
		}
	})
}

func (c *client) wait() {
	c.err = c.cmd.Wait()
	lines := strings.Split(strings.TrimSpace(c.stdout.String()), "\n")
	if json.Unmarshal([]byte(lines[len(lines)-1]), &c.outcome) != nil {
		c.outcome = outcome{Error: tail(c.stderr.String())}
	}
}

// complaint is "" if the client says that all went well.
func (c *client) complaint() string {
	if c.err == nil && c.outcome.Success {
		return ""
	}
	return fmt.Sprintf("%s: %v: %s: %s\n%s", c.name, c.err, c.outcome.Exception, c.outcome.Error[:min(len(c.outcome.Error), 1500)], tail(c.stderr.String()))
}

// atOnce runs clients at the same time until all have ended, and returns how long that took.
func atOnce(t *testing.T, clients ...*client) time.Duration {
	t.Helper()
	started := time.Now()
	for _, c := range clients {
		c.start(t)
	}
	for _, c := range clients {
		c.wait()
	}
	return time.Since(started)
}

// mustSucceed fails the test for every client that complains.
func mustSucceed(t *testing.T, clients ...*client) {
	t.Helper()
	for _, c := range clients {
		if why := c.complaint(); why != "" {
			t.Errorf("client failed: %s", why)
		}
	}
}

// several makes n clients by f.
func several(n int, f func(i int) *client) []*client {
	var out []*client
	for i := range n {
		out = append(out, f(i))
	}
	return out
}

// decodeLast decodes the last line that a client printed.
func decodeLast(t *testing.T, c *client, v any) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(c.stdout.String()), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), v); err != nil {
		t.Fatalf("%s printed %q: %v", c.name, c.stdout.String(), err)
	}
}
