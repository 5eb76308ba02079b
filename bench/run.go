package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"condafs/demo"
	"condafs/integration/clients"
)

// Options say how the benchmark runs.
type Options struct {
	N          int       // of many clients
	Rounds     int       // how often each figure is measured
	Size       demo.Size // of the channel
	Link       demo.Link // to the channel; with one that is slow, only what downloads is measured
	Dir        string    // where the scratch directory is made; "": os.TempDir()
	Executable string    // the condafs binary; "": the running one
	Python     string    // an interpreter that can import rattler; "": Rattler is not measured

	// Progress is told what is measured next, and how many measurements of how many are done; may be nil.
	Progress func(what string, done, total int)
}

// complete fills in what was left out.
func (o *Options) complete() (err error) {
	if o.Executable == "" {
		if o.Executable, err = os.Executable(); err != nil {
			return fmt.Errorf("bench: find the condafs binary: %w", err)
		}
	}
	if o.Progress == nil {
		o.Progress = func(string, int, int) {}
	}
	return nil
}

// inScratch lends fn a scratch directory, and leaves nothing of it.
func (o *Options) inScratch(fn func(dir string) error) (err error) {
	dir, err := os.MkdirTemp(o.Dir, "condafs-bench-")
	if err != nil {
		return fmt.Errorf("bench: make a scratch directory: %w", err)
	}
	defer func() {
		o.Progress("clear up", 0, 0) // which takes a disk minutes
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	return fn(dir)
}

// bench is a run of the benchmark.
type bench struct {
	o       Options
	scratch string
	aside   []string // what is to be removed at the end
	lab     *demo.Lab
	script  string // of the Rattler client
	runs    map[key][]sample
	done    int
	total   int
}

// Compare measures all places, and has show take the report, before it removes what was written, which can take minutes.
// An error means that it could not, or is show's; clients that fail are in the report. Nothing is left behind, no mount
// either, also when ctx ends.
func Compare(ctx context.Context, o Options, show func(*Report) error) (err error) {
	if err := o.complete(); err != nil {
		return err
	}
	o.Progress("make packages", 0, 0)
	lab, err := demo.NewLab(o.Size, o.Link)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lab.Close()) }()
	b := &bench{o: o, lab: lab, runs: map[key][]sample{}}
	r := &Report{
		Machine: machine(), N: o.N, Rounds: o.Rounds,
		Link: Link{o.Link.BytesPerSecond, o.Link.Latency.Seconds()}, Packages: lab.Packages(), Files: lab.Files(), ArchiveBytes: lab.Archives(),
	}
	passes := plan(o.N, o.Python != "")
	if o.Link != (demo.Link{}) {
		passes = coldOnly(passes)
	}
	return o.inScratch(func(dir string) error {
		b.scratch, b.script = dir, filepath.Join(dir, "rattler_client.py")
		if err := os.WriteFile(b.script, []byte(clients.Rattler), 0o600); err != nil {
			return err
		}
		all := turns(passes, o.Rounds)
		for _, p := range all {
			b.total += len(p.works)
		}
		for _, p := range all {
			if err := b.pass(ctx, p); err != nil {
				return err
			}
		}
		var keys []key
		for _, p := range passes {
			for _, w := range p.works {
				keys = append(keys, key{p.client, p.place, w})
			}
		}
		r.Figures = figures(keys, b.runs)
		return show(r)
	})
}

// pass makes its measurements on a new cache.
func (b *bench) pass(ctx context.Context, p pass) error {
	dir, err := os.MkdirTemp(b.scratch, "pass-")
	if err != nil {
		return err
	}
	c, err := b.openCache(p, dir)
	if err != nil {
		return err
	}
	for _, w := range p.works {
		b.o.Progress(fmt.Sprintf("%s, %s: %s", p.client, p.place, w), b.done, b.total)
		var s sample
		if s, err = b.measure(ctx, c, w); err != nil {
			break
		}
		k := key{p.client, p.place, w}
		b.runs[k] = append(b.runs[k], s)
		b.done++
	}
	// What could not be unmounted is not to be removed: that would go through the mount.
	if err := errors.Join(err, c.close(ctx)); err != nil {
		return err
	}
	return b.putAside(dir)
}

// measure lets the clients work, then looks at what they made.
func (b *bench) measure(ctx context.Context, c *cache, w work) (s sample, err error) {
	envs := filepath.Join(c.dir, "envs")
	if err := os.MkdirAll(envs, 0o777); err != nil {
		return s, err
	}
	var all []*client
	for i := range w.clients {
		prefix := filepath.Join(envs, strconv.Itoa(i))
		all = append(all, &client{prefix: prefix, cmd: c.command(ctx, i, prefix)})
	}
	unix.Sync() // what others wrote is not for these clients to wait for
	served, started := b.lab.Served(), time.Now()
	if err := runAll(all, w.atOnce); err != nil {
		return s, err
	}
	s.seconds = time.Since(started).Seconds()
	if err := c.settle(ctx); err != nil {
		return s, err
	}
	s.commit = time.Since(started).Seconds() - s.seconds
	s.served = b.lab.Served() - served
	if ctx.Err() != nil {
		return s, ctx.Err()
	}
	for _, cl := range all {
		if s.err == nil {
			s.err = cl.judge(b.lab)
		}
	}
	if s.cache, err = diskUse(c.disk()); err != nil {
		return s, err
	}
	if s.total, err = diskUse(c.disk(), envs); err != nil {
		return s, err
	}
	return s, b.putAside(envs)
}

// client is one process.
type client struct {
	cmd    *exec.Cmd
	prefix string
	out    bytes.Buffer
	err    error
}

// start starts the client; wait waits for its end.
func (c *client) start() error {
	c.cmd.Stdout, c.cmd.Stderr = &c.out, &c.out
	return c.cmd.Start()
}

func (c *client) wait() { c.err = c.cmd.Wait() }

// runAll runs the clients. An error means that one could not be started.
func runAll(all []*client, atOnce bool) error {
	started := all[:0:0]
	var err error
	for _, c := range all {
		if err = c.start(); err != nil {
			err = fmt.Errorf("bench: start a client: %w", err)
			break
		}
		if atOnce {
			started = append(started, c)
		} else {
			c.wait()
		}
	}
	for _, c := range started {
		c.wait()
	}
	return err
}

// judge says what is wrong with a client that has ended. Its environment counts as well as its exit status.
func (c *client) judge(lab *demo.Lab) error {
	err := lab.Judge(c.prefix)
	if c.err != nil {
		err = errors.Join(c.err, err)
	}
	if err == nil {
		return nil
	}
	said, _, _ := strings.Cut(strings.TrimSpace(c.out.String()), "\n")
	return fmt.Errorf("%s; the client said: %s", strings.ReplaceAll(err.Error(), "\n", "; "), said)
}

// machine describes what was measured on.
func machine() Machine {
	m := Machine{CPUs: runtime.NumCPU()}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		m.Load, m.Memory = float64(info.Loads[0])/(1<<16), int64(info.Totalram)*int64(info.Unit)
	}
	return m
}

// FindPython returns the interpreter if it can import rattler.
func FindPython(ctx context.Context, name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", err
	}
	out, err := exec.CommandContext(ctx, path, "-c", "import rattler").CombinedOutput()
	if err != nil {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		return "", fmt.Errorf("%s cannot import rattler: %s", path, slices.Concat(lines, []string{""})[max(0, len(lines)-1)])
	}
	return path, nil
}
