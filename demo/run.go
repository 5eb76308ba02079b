package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Options say how the demonstration runs.
type Options struct {
	N          int               // clients at once; 0: 8
	Dir        string            // where its scratch directory is made; "": os.TempDir()
	Executable string            // the condafs binary; "": the running one
	Progress   func(line string) // told what happens next; may be nil
}

// Run shows the problem and its cure. It makes a scratch directory, mounts a store of its own in it, and leaves
// neither behind. An error means that the demonstration could not run; what it found is in the report.
func Run(ctx context.Context, o Options) (_ *Report, err error) {
	if o.N <= 0 {
		o.N = 8
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	if o.Executable == "" {
		if o.Executable, err = os.Executable(); err != nil {
			return nil, fmt.Errorf("demo: find the condafs binary: %w", err)
		}
	}
	scratch, err := os.MkdirTemp(o.Dir, "condafs-demo-")
	if err != nil {
		return nil, fmt.Errorf("demo: make a scratch directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()

	o.Progress("making packages")
	c, err := makeChannel()
	if err != nil {
		return nil, err
	}
	r := &Report{N: o.N, Packages: len(c.packages)}
	for _, p := range c.packages {
		r.Files += len(p.files)
	}
	s, err := serve(c, Link{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	d := &demonstration{o: o, channel: c, server: s}

	o.Progress(fmt.Sprintf("%d clients on a plain directory", o.N))
	plain := side{
		pkgs: filepath.Join(scratch, "plain", "pkgs"), envs: filepath.Join(scratch, "plain", "envs"),
		settle: func(context.Context) error { return nil },
	}
	if err := d.run(ctx, plain, &r.Plain); err != nil {
		return nil, err
	}
	o.Progress(fmt.Sprintf("%d clients on condafs", o.N))
	if err := d.runMounted(ctx, filepath.Join(scratch, "condafs"), r); err != nil {
		return nil, err
	}
	return r, nil
}

type demonstration struct {
	o       Options
	channel *channel
	server  *server
}

// side is where the clients of one column work.
type side struct {
	pkgs, envs string
	// settle returns once all that clients left behind has reached the cache for good.
	settle func(context.Context) error
}

// run lets N clients start at once on an empty cache and judges what they leave; then N again on the full cache with
// one that cleans it beside them.
func (d *demonstration) run(ctx context.Context, s side, col *Column) error {
	if err := os.MkdirAll(s.envs, 0o777); err != nil {
		return err
	}
	before := d.server.sent.Load()
	defer func() { col.BytesServed = d.server.sent.Load() - before }()
	for _, warm := range []bool{false, true} {
		if err := d.round(ctx, s, warm, col); err != nil {
			return err
		}
		if err := s.settle(ctx); err != nil {
			return err
		}
		d.channel.judgeCache(s.pkgs, !warm, col)
	}
	return nil
}

func (d *demonstration) round(ctx context.Context, s side, warm bool, col *Column) error {
	started := time.Now()
	name := "cold"
	if warm {
		name = "warm"
	}
	var clients []*client
	for i := range d.o.N {
		prefix := filepath.Join(s.envs, fmt.Sprintf("%s-%d", name, i))
		clients = append(clients, d.client(ctx, prefix, "-channel", d.server.url, "-pkgs", s.pkgs, "-prefix", prefix, "install", "app"))
	}
	if warm {
		clients = append(clients, d.client(ctx, "", "-pkgs", s.pkgs, "clean"))
	}
	for i, c := range clients {
		if err := c.cmd.Start(); err != nil {
			for _, started := range clients[:i] {
				err = errors.Join(err, started.cmd.Process.Kill(), ignoreExit(started.cmd.Wait()))
			}
			return fmt.Errorf("demo: start a client: %w", err)
		}
	}
	results := make([]error, len(clients))
	for i, c := range clients {
		results[i] = c.cmd.Wait()
	}
	col.Seconds += time.Since(started).Seconds()
	for i, c := range clients {
		if ctx.Err() != nil {
			continue
		}
		col.Clients++
		c.judge(results[i], d.channel, col)
	}
	return ctx.Err()
}

func ignoreExit(err error) error {
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		return nil
	}
	return err
}

type client struct {
	cmd    *exec.Cmd
	prefix string // "" for one that makes no environment
	out    bytes.Buffer
}

func (d *demonstration) client(ctx context.Context, prefix string, args ...string) *client {
	c := &client{cmd: exec.CommandContext(ctx, d.o.Executable, append([]string{ClientCommand}, args...)...), prefix: prefix}
	c.cmd.Stdout, c.cmd.Stderr = &c.out, &c.out
	return c
}

// judge looks at the client's environment first and believes its exit status only when that says failure.
func (c *client) judge(err error, channel *channel, col *Column) {
	before := col.EnvironmentsBroken
	if c.prefix != "" {
		channel.judgeEnvironment(c.prefix, col)
	}
	broken := col.EnvironmentsBroken > before
	if err != nil {
		col.ClientErrors++
	} else if broken {
		col.SilentFailures++
	}
	if err == nil && !broken {
		return
	}
	var o outcome
	if json.Unmarshal(c.out.Bytes(), &o) != nil {
		o.Error = strings.TrimSpace(c.out.String())
	}
	col.addError(o.Error)
}

// addError keeps the first few kinds of errors as examples.
func (c *Column) addError(text string) {
	const most = 8
	text, _, _ = strings.Cut(text, "\n")
	kind, _, _ := strings.Cut(text, " ")
	for _, e := range c.Errors {
		if strings.HasPrefix(e, kind) {
			return
		}
	}
	if text != "" && len(c.Errors) < most {
		c.Errors = append(c.Errors, text)
	}
}

// runMounted does the same on a mount and has everything in the store hashed again. Before each judgement the mount is
// ended in order and made anew, so that what is judged is what the store keeps.
func (d *demonstration) runMounted(ctx context.Context, dir string, r *Report) (err error) {
	m := mounted{d: d, point: filepath.Join(dir, "mnt"), store: filepath.Join(dir, "store")}
	if err := os.MkdirAll(m.point, 0o777); err != nil {
		return err
	}
	if err := m.mount(ctx); err != nil {
		return err
	}
	defer func() {
		// Not with ctx: an interrupted demonstration must not leave its mount behind.
		err = errors.Join(err, m.umount(context.WithoutCancel(ctx)))
	}()
	s := side{pkgs: filepath.Join(m.point, "pkgs"), envs: filepath.Join(dir, "envs"), settle: func(ctx context.Context) error {
		if err := m.umount(ctx); err != nil {
			return err
		}
		return m.mount(ctx)
	}}
	if err := d.run(ctx, s, &r.Condafs); err != nil {
		return err
	}
	d.o.Progress("hashing everything in the store again")
	out, verifyErr := m.condafs(ctx, "verify", "--full", "--json")
	r.Verified, r.VerifyOutput = verifyErr == nil, strings.TrimSpace(out)
	return ctx.Err()
}

// mounted is a mount of the demonstration's own store.
type mounted struct {
	d            *demonstration
	point, store string
	is           bool
}

func (m *mounted) mount(ctx context.Context) error {
	_, err := m.condafs(ctx, "mount", "--store", m.store, "--log-file", m.store+".log", m.point)
	m.is = err == nil
	return err
}

func (m *mounted) umount(ctx context.Context) error {
	if !m.is {
		return nil
	}
	_, err := m.condafs(ctx, "umount", m.point)
	m.is = err != nil
	return err
}

// condafs runs one command of the binary to its end and returns what it printed.
func (m *mounted) condafs(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, m.d.o.Executable, args...)
	cmd.Env = append(os.Environ(), "CONDAFS_MOUNT="+m.point)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("demo: condafs %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}
