package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"condafs/internal/longrun"
)

// cgroup is a memory cgroup of a test, of version 1 or 2.
type cgroup struct {
	t   *testing.T
	dir string
}

// newCgroup makes one with a limit in MiB. Where the kernel or a container gives none, the test cannot be had; where
// tests must be complete, it fails.
func newCgroup(t *testing.T, name string, limit int) *cgroup {
	t.Helper()
	var errs []error
	for _, limitFile := range []string{"/sys/fs/cgroup/memory/*/memory.limit_in_bytes", "/sys/fs/cgroup/*/memory.max"} {
		c := &cgroup{t, filepath.Join(filepath.Dir(filepath.Dir(limitFile)), fmt.Sprintf("condafs-test-%d-%s", os.Getpid(), name))}
		err := os.Mkdir(c.dir, 0o755)
		if err == nil {
			t.Cleanup(c.remove)
			err = c.write(filepath.Base(limitFile), strconv.Itoa(limit<<20))
		}
		if err == nil {
			return c
		}
		errs = append(errs, err)
	}
	if os.Getenv("CI") == "" {
		t.Skipf("no memory cgroup can be made: %v", errors.Join(errs...))
	}
	t.Fatalf("no memory cgroup can be made: %v", errors.Join(errs...))
	return nil
}

// write fails if the kernel has no such file.
func (c *cgroup) write(file, value string) error {
	f, err := os.OpenFile(filepath.Join(c.dir, file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// mustHaveBeenFull fails the test if the limit was never reached: then it would prove nothing.
func (c *cgroup) mustHaveBeenFull() {
	c.t.Helper()
	failed, err := os.ReadFile(filepath.Join(c.dir, "memory.failcnt"))
	full := err == nil && strings.TrimSpace(string(failed)) != "0"
	if errors.Is(err, fs.ErrNotExist) {
		var events []byte
		events, err = os.ReadFile(filepath.Join(c.dir, "memory.events"))
		full = err == nil && !strings.Contains(string(events), "\nmax 0\n")
	}
	if err != nil || !full {
		c.t.Errorf("%s was never full: %v", filepath.Base(c.dir), err)
	}
}

// remove waits for the last process in it to be gone.
func (c *cgroup) remove() {
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		err := os.Remove(c.dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return
		}
		if time.Now().After(deadline) {
			c.t.Errorf("remove the cgroup: %v", err)
			return
		}
	}
}

// wrap returns a program that runs another one in the cgroup, with more in its environment.
func (c *cgroup) wrap(dir, program string, env ...string) string {
	c.t.Helper()
	script := filepath.Join(dir, filepath.Base(program)+"-in-"+filepath.Base(c.dir))
	text := fmt.Sprintf("#!/bin/sh\necho $$ > '%s/cgroup.procs' && exec env %s '%s' \"$@\"\n", c.dir, strings.Join(env, " "), program)
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		c.t.Fatal(err)
	}
	return script
}

// TestMemoryPressure has clients whose dirty pages, written through mappings on the mount, are more than the memory that
// they, the daemon or both may have. To free a page, the kernel needs the daemon, which needs memory itself. The kernel
// may kill clients for want of memory; nobody may wait for ever, and the daemon goes on.
//
// With passthrough the pages are those of the files in the store, and the kernel writes them without the daemon. So it
// is done without, too, as for daemons that are not root's. What is not done is that with daemon and clients in one
// cgroup: there, with cgroups of version 1, the kernel has the daemon wait for pages that it has to write itself
// (ARCHITECTURE.md, "Memory pressure").
func TestMemoryPressure(t *testing.T) {
	clients, dirty := 12, 48
	if !longrun.Wanted() {
		clients, dirty = 6, 24
	}
	for _, test := range []struct {
		name            string
		daemon, clients int  // MiB; 0: no limit
		together        bool // in one cgroup, with passthrough
	}{
		{name: "daemon", daemon: 48},
		{name: "clients", clients: 40},
		{name: "each", daemon: 48, clients: 40},
		{name: "together", daemon: 72, together: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			binary, env := built(t, faultyBinary), []string{"CONDAFS_FAILPOINTS=passthrough.ask=ENOMEM@1+"}
			if test.together {
				binary, env = built(t, plainBinary), nil
			}
			scripts := testDir(t)
			limit := test.daemon
			if limit == 0 {
				limit = 4096 // no limit, for what is tested
			}
			d := newCgroup(t, "daemon", limit)
			l := newLoad(t, d.wrap(scripts, binary, env...))
			c := d
			if test.clients > 0 {
				c = newCgroup(t, "clients", test.clients)
			}
			if c != d || test.together {
				l.client = c.wrap(scripts, l.client)
			}
			l.underPressure(clients, dirty)
			if test.daemon > 0 {
				d.mustHaveBeenFull()
			}
			if c != d {
				c.mustHaveBeenFull()
			}
			l.nothingLeft()
			l.verify()
		})
	}
}

// underPressure runs clients that dirty so many MiB each, and others that install beside them.
func (l *load) underPressure(n, dirty int) {
	l.t.Helper()
	var wg sync.WaitGroup
	var mu sync.Mutex
	killed := 0
	cmds := make([]*exec.Cmd, n)
	for i := range n {
		what := "map"
		if i%3 == 2 {
			what = "install"
		}
		cmds[i] = l.command(i, what)
		cmds[i].Args = append(cmds[i].Args, "-dirty", strconv.Itoa(dirty))
		wg.Go(func() {
			out, err := cmds[i].CombinedOutput()
			mu.Lock()
			defer mu.Unlock()
			if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
				killed++ // for want of memory
			} else if err != nil {
				l.t.Errorf("client %d: %v: %s", i, err, out)
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
		l.t.Logf("%d of %d clients were killed for want of memory", killed, n)
	case <-time.After(patience):
		where := l.waits()
		// It ends the connection, and with that all waiting: else neither the daemon nor the clients can be killed.
		out, err := exec.Command("umount", "-f", l.point).CombinedOutput()
		l.t.Fatalf("clients wait for ever (umount -f: %v, %s); the daemon's threads wait in\n%s", err, out, where)
	}
}

// waits tells where the daemon's threads wait in the kernel.
func (l *load) waits() string {
	var b strings.Builder
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", l.cmd.Process.Pid))
	if err != nil {
		return err.Error()
	}
	for _, task := range tasks {
		stack, err := os.ReadFile(filepath.Join(task, "stack"))
		if err == nil && !strings.Contains(string(stack), "futex") {
			fmt.Fprintf(&b, "%s:\n%s", filepath.Base(task), stack)
		}
	}
	return b.String()
}
