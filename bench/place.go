package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// cache is where the clients of one pass keep packages.
type cache struct {
	b      *bench
	client Client
	place  Place
	dir    string
	m      *mounted // of condafs's places
}

func (b *bench) openCache(p pass, dir string) (*cache, error) {
	c := &cache{b: b, client: p.client, place: p.place, dir: dir}
	if !p.place.condafs() {
		return c, nil
	}
	m, err := newMounted(b.o.Executable, dir)
	if err == nil {
		err = m.mount()
	}
	c.m = m
	return c, err
}

// close hashes what condafs holds once more, then unmounts.
func (c *cache) close(ctx context.Context) error {
	if c.m == nil {
		return nil
	}
	var err error
	if ctx.Err() == nil {
		err = c.m.verify(ctx)
	}
	if e := c.m.umount(); e != nil {
		return e
	}
	return err
}

// command is the client that makes an environment.
func (c *cache) command(ctx context.Context, i int, prefix string) *exec.Cmd {
	var args, env []string
	switch c.client {
	case Conda:
		args = append([]string{c.b.o.Executable}, c.b.lab.InstallArgs(c.path(i, "pkgs"), prefix, c.place == Copies)...)
	case Rattler:
		args = []string{c.b.o.Python, c.b.script, "--channel", c.b.lab.URL(), "--prefix", prefix, "app"}
		env = []string{"RATTLER_CACHE_DIR=" + c.path(i, "rattler")}
	}
	if c.place == Run {
		args = append([]string{c.b.o.Executable, "run", "--mount", c.m.point, "--"}, args...)
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = slices.Concat(os.Environ(), env)
	// Politely, so that `condafs run` takes its command with it.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// path is the package directory that client i uses.
func (c *cache) path(i int, name string) string {
	switch c.place {
	case Mount:
		return filepath.Join(c.m.point, name)
	case Shelf:
		if name == "pkgs" {
			return filepath.Join(c.m.point, "unshelved") + "," + c.m.shelf
		}
		return filepath.Join(c.m.point, name)
	case Run:
		if name == "pkgs" {
			return filepath.Join(c.m.point, name) + "," + c.m.shelf
		}
		return filepath.Join(c.m.point, name)
	case Each:
		return filepath.Join(c.dir, "cache", strconv.Itoa(i), name)
	}
	return filepath.Join(c.dir, "cache", name)
}

// disk is the directory that takes the disk space.
func (c *cache) disk() string {
	if c.m != nil {
		return c.m.store
	}
	return filepath.Join(c.dir, "cache")
}

// settle waits until what clients have left is committed.
func (c *cache) settle(ctx context.Context) error {
	if c.m == nil {
		return nil
	}
	return c.m.settle(ctx)
}

func (w work) String() string {
	name := "cold"
	if w.warm {
		name = "warm"
	}
	switch {
	case w.clients == 1:
		return "1 client, " + name
	case w.atOnce:
		return fmt.Sprintf("%d clients at once, %s", w.clients, name)
	}
	return fmt.Sprintf("%d clients one at a time, %s", w.clients, name)
}
