// Command load is a small native client for load tests: one process is one session. It does to a
// package cache what conda does, in conda's order, with packages that lie unpacked beside their
// archives, so that next to nothing of its time is its own.
//
//	load -channel DIR -pkgs DIR -prefix DIR -seed N
//
// The seed decides what it does. Most install two packages: they read the repodata cache, touch
// urls.txt, download into .partial and rename, extract, write the record last, and link. Some remove
// packages, some die in the middle of an extraction, some write through a shared mapping, some leave
// a child behind that goes on, some leave files open. Exit status 1 says that something did not go as
// on a disk that nobody else uses.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	c := &client{}
	seed := flag.Uint64("seed", 0, "decides what is done")
	dirty := flag.Int("dirty", 1, "MiB that are written through a mapping, by those who do that")
	flag.StringVar(&c.channel, "channel", "", "directory with packages: NAME.conda, NAME.record, NAME/")
	flag.StringVar(&c.pkgs, "pkgs", "", "package directory")
	flag.StringVar(&c.prefix, "prefix", "", "environment, a directory that is made")
	only := flag.String("do", "", "do just that: install, clean, die, map, leave or hold")
	flag.Parse()
	c.rand, c.dirty = rand.New(rand.NewPCG(*seed, 0)), *dirty<<20
	what := *only
	if what == "" {
		what = []string{"install", "install", "install", "install", "install", "clean", "die", "map", "leave", "hold"}[c.rand.IntN(10)]
	}
	if err := c.do(what); err != nil {
		fmt.Fprintf(os.Stderr, "load: %s: %v\n", what, err)
		os.Exit(1)
	}
}

type client struct {
	channel, pkgs, prefix string
	rand                  *rand.Rand
	dirty                 int
}

func (c *client) do(what string) error {
	if err := c.begin(); err != nil {
		return err
	}
	switch what {
	case "install":
		return c.install(2, -1)
	case "clean":
		return c.clean()
	case "die":
		return c.install(1, 3)
	case "map":
		return c.writeMapped()
	case "leave":
		return errors.Join(c.install(1, -1), c.leave())
	case "hold":
		return c.hold()
	}
	return fmt.Errorf("unknown: %q", what)
}

// begin is what each conda does: may it write here, and what is known of the channel?
func (c *client) begin() error {
	f, err := os.OpenFile(filepath.Join(c.pkgs, "urls.txt"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	dir := filepath.Join(c.pkgs, "cache")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	name := filepath.Join(dir, "abcd1234.json")
	if _, err := os.ReadFile(name); err == nil && c.rand.IntN(50) > 0 {
		return nil
	}
	for _, f := range []string{name, filepath.Join(dir, "abcd1234.info.json")} {
		if err := os.WriteFile(f, fmt.Appendf(nil, `{"packages": {}, "packages.conda": {}, "n": %d}`, c.rand.IntN(1000)), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// choose draws a package of the channel.
func (c *client) choose() (string, error) {
	archives, err := filepath.Glob(filepath.Join(c.channel, "*.conda"))
	if err != nil || len(archives) == 0 {
		return "", fmt.Errorf("no packages in %s: %w", c.channel, err)
	}
	return strings.TrimSuffix(filepath.Base(archives[c.rand.IntN(len(archives))]), ".conda"), nil
}

// install brings n packages into the cache and links them. With a limit, the process kills itself
// once it has extracted that many files.
func (c *client) install(n, limit int) error {
	for range n {
		dist, err := c.choose()
		if err != nil {
			return err
		}
		record := filepath.Join(c.pkgs, dist, "info", "repodata_record.json")
		if _, err := os.Stat(record); err != nil || limit >= 0 {
			if err := c.fetch(dist); err != nil {
				return err
			}
			if err := c.extract(dist, limit); err != nil {
				return err
			}
		}
		if err := c.link(dist); err != nil {
			return err
		}
	}
	return nil
}

func (c *client) fetch(dist string) error {
	target := filepath.Join(c.pkgs, dist+".conda")
	if err := copyFile(filepath.Join(c.channel, dist+".conda"), target+".partial"); err != nil {
		return err
	}
	if err := os.Rename(target+".partial", target); err != nil {
		return err
	}
	urls, err := os.OpenFile(filepath.Join(c.pkgs, "urls.txt"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(urls, "https://example.invalid/%s.conda\n", dist)
	return errors.Join(err, urls.Close())
}

func (c *client) extract(dist string, limit int) error {
	target := filepath.Join(c.pkgs, dist)
	if err := os.RemoveAll(target); err != nil {
		return err
	}
	err := each(filepath.Join(c.channel, dist), func(rel string, d fs.DirEntry) error {
		if limit == 0 {
			return unix.Kill(os.Getpid(), unix.SIGKILL)
		}
		limit--
		to := filepath.Join(target, rel)
		if d.IsDir() {
			return os.MkdirAll(to, 0o755)
		}
		if err := copyFile(filepath.Join(c.channel, dist, rel), to); err != nil {
			return err
		}
		return errors.Join(os.Chmod(to, 0o644), os.Chtimes(to, time.Time{}, time.Unix(1_700_000_000, 0)))
	})
	if err != nil {
		return err
	}
	return copyFile(filepath.Join(c.channel, dist+".record"), filepath.Join(target, "info", "repodata_record.json"))
}

// link puts what the package has into the environment, and compares it with what it should have.
func (c *client) link(dist string) error {
	return each(filepath.Join(c.channel, dist), func(rel string, d fs.DirEntry) error {
		to := filepath.Join(c.prefix, dist, rel)
		if d.IsDir() {
			return os.MkdirAll(to, 0o755)
		}
		if err := copyFile(filepath.Join(c.pkgs, dist, rel), to); err != nil {
			return err
		}
		want, err := os.ReadFile(filepath.Join(c.channel, dist, rel))
		got, gotErr := os.ReadFile(to)
		if err := errors.Join(err, gotErr); err != nil {
			return err
		}
		if !bytes.Equal(got, want) {
			return fmt.Errorf("%s/%s has other content than its channel", dist, rel)
		}
		return nil
	})
}

// clean removes a package, as `conda clean` does.
func (c *client) clean() error {
	dist, err := c.choose()
	if err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(c.pkgs, dist+".conda")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.RemoveAll(filepath.Join(c.pkgs, dist))
}

// writeMapped makes pages dirty through a shared mapping. It has half of them written, and leaves the
// rest to the kernel, which may do so when the process is gone. The file's name is one that is never
// committed.
func (c *client) writeMapped() error {
	f, err := os.OpenFile(filepath.Join(c.pkgs, fmt.Sprintf("mapped-%d.lock", os.Getpid())), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // what was written through the mapping has no error to tell
	if err := f.Truncate(int64(c.dirty)); err != nil {
		return err
	}
	m, err := unix.Mmap(int(f.Fd()), 0, c.dirty, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	for i := 0; i < len(m); i += os.Getpagesize() {
		m[i] = byte(i >> 12)
	}
	if err := unix.Msync(m[:len(m)/2], unix.MS_SYNC); err != nil {
		return err
	}
	for i := 0; i < len(m); i += os.Getpagesize() {
		if m[i] != byte(i>>12) {
			return fmt.Errorf("page %d has lost what was written", i/os.Getpagesize())
		}
	}
	return unix.Munmap(m)
}

// leave starts a child that outlives this process, in a directory of the session.
func (c *client) leave() error {
	child := exec.Command("sh", "-c", "cat urls.txt >/dev/null; sleep 0.05; echo x >left; rm left")
	child.Dir = c.pkgs
	return child.Start()
}

// hold ends with files and directories open, one of them removed.
func (c *client) hold() error {
	for i := range 20 {
		if _, err := os.Open(c.pkgs); err != nil {
			return err
		}
		name := filepath.Join(c.pkgs, fmt.Sprintf("held-%d-%d", os.Getpid(), i))
		f, err := os.Create(name)
		if err != nil {
			return err
		}
		if _, err := f.WriteString("held"); err != nil {
			return err
		}
		if err := os.Remove(name); err != nil {
			return err
		}
	}
	return nil
}

// each calls f for everything below dir, directories first.
func each(dir string, f func(rel string, d fs.DirEntry) error) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		return f(rel, d)
	})
}

func copyFile(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close() //nolint:errcheck // read only
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(struct{ io.Writer }{dst}, struct{ io.Reader }{src})
	return errors.Join(err, dst.Close())
}
