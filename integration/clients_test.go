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

	"golang.org/x/sys/unix"
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
	Success    bool   `json:"success"`
	Exception  string `json:"exception"`
	Error      string `json:"error"`
	Packages   int    `json:"packages"`
	Fetched    int    `json:"fetched"`
	Hardlinked int    `json:"hardlinked"`
}

// pythonClient is a Python program of clients/ with the environment that all of them need.
func pythonClient(t *testing.T, name string, args ...string) *client {
	t.Helper()
	p := needTools(t)
	c := &client{name: name, cmd: exec.Command(p.python, args...)}
	c.cmd.Dir = p.clients
	c.cmd.Env = append(os.Environ(), "PYTHONPATH="+p.clients, "PYTHONUNBUFFERED=1",
		// Where nothing compiled may be kept, each client compiles all that it imports: more work than the rest of it.
		"PYTHONDONTWRITEBYTECODE=", "PYTHONPYCACHEPREFIX="+filepath.Join(scratch, "pycache"))
	c.cmd.Stdout, c.cmd.Stderr = &c.stdout, &c.stderr
	return c
}

// conda is a client that makes prefix with the package directories pkgs. It extracts in threads, as conda did until
// lately, unless args say otherwise: worker processes cost three times as much.
func conda(t *testing.T, s *server, pkgs, prefix, specs string, args ...string) *client {
	t.Helper()
	all := []string{"-m", "conda_shaped", "install", "--json", "--channel", s.url, "--prefix", prefix, "--extract", "thread"}
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

// start starts the client as the leader of a process group of its own, so that it can be killed with its children and
// nothing else.
func (c *client) start(t *testing.T) {
	t.Helper()
	if c.cmd.SysProcAttr == nil {
		c.cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	c.cmd.SysProcAttr.Setpgid = true
	if err := c.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", c.name, err)
	}
	t.Cleanup(func() {
		if c.cmd.ProcessState == nil {
			c.kill(t, syscall.SIGKILL)
			c.wait(t)
		}
	})
}

// kill sends a signal to the client and its children. Until wait, nobody else can have its process group's number.
func (c *client) kill(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(-c.cmd.Process.Pid, sig); err != nil {
		t.Errorf("kill %s: %v", c.name, err)
	}
}

// died waits until the client itself has ended. Children that it has left behind go on until wait.
func (c *client) died(t *testing.T) {
	t.Helper()
	hung := time.AfterFunc(3*patience, func() {
		t.Errorf("%s hangs: it has not ended after %s", c.name, 3*patience)
		c.kill(t, syscall.SIGKILL)
	})
	defer hung.Stop()
	for {
		err := unix.Waitid(unix.P_PID, c.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err == nil {
			return
		}
		if !errors.Is(err, syscall.EINTR) {
			t.Fatalf("wait for %s: %v", c.name, err)
		}
	}
}

// wait waits until the client has ended, and ends what it has left behind.
func (c *client) wait(t *testing.T) {
	t.Helper()
	c.died(t)
	c.kill(t, syscall.SIGKILL)
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
		c.died(t)
	}
	took := time.Since(started)
	for _, c := range clients {
		c.wait(t)
	}
	return took
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
