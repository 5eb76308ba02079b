package main

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"condafs/control"
	"condafs/daemon"
	"condafs/fault"
)

// Environment that `condafs run` sets and other commands go by.
const (
	envMount   = "CONDAFS_MOUNT"
	envSession = "CONDAFS_SESSION"
	envSocket  = "CONDAFS_SOCKET"
)

// target says which daemon, or which store without one, a command is for.
type target struct {
	mount string
	store string
}

func (t *target) mountFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&t.mount, "mount", "", "mount `point` of the daemon (default $CONDAFS_MOUNT, the only mount there is, or the configured one)")
}

func (t *target) storeFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&t.store, "store", "", "`directory` of the store, which needs no daemon")
}

// place is where a daemon is.
type place struct {
	mount  string
	socket string
}

// locate finds the daemon: that of --mount; else, inside of `condafs run`, the one
// around; else that of $CONDAFS_MOUNT; else the only one; else the configured one.
func (a *app) locate(t target) (place, error) {
	mount := t.mount
	if env := a.getenv(envMount); mount == "" || same(mount, env) {
		// In a session's own namespace the mount point shows the session, without
		// the file that says where the daemon listens.
		if s := a.getenv(envSocket); s != "" && env != "" {
			return place{env, s}, nil
		}
		if mount == "" {
			mount = env
		}
	}
	if mount == "" {
		l, err := control.Mounts()
		if err != nil {
			return place{}, err
		}
		if mount, err = control.OnlyMount(l); fault.Is(err, fault.Usage) {
			mount, err = a.configuredAmong(l, err)
		}
		if err != nil {
			return place{}, err
		}
	}
	mount, err := absolute(mount)
	if err != nil {
		return place{}, err
	}
	info, err := control.ReadInfo(mount)
	if err != nil {
		return place{}, err
	}
	return place{mount, info.Socket}, nil
}

// configuredAmong chooses the configured mount among several, or returns why none was chosen.
func (a *app) configuredAmong(l []control.Mount, several error) (string, error) {
	point, err := a.configuredMount()
	if err != nil {
		return "", err
	}
	for _, m := range l {
		if m.Type == control.FSType && m.Root == "/" && same(m.Point, point) {
			return m.Point, nil
		}
	}
	return "", several
}

func same(a, b string) bool {
	x, err := absolute(a)
	if err != nil || b == "" {
		return false
	}
	y, err := absolute(b)
	return err == nil && x == y
}

// absolute returns the path as the kernel's list of mounts shows it. The last
// component may be a dead mount, which cannot be looked at.
func absolute(p string) (string, error) {
	abs, err := filepath.Abs(p)
	if err != nil {
		return "", fault.New("find", p, fault.Other, err)
	}
	if abs == "/" {
		return abs, nil
	}
	if fi, err := os.Lstat(abs); err == nil && fi.Mode()&os.ModeSymlink != 0 {
		if real, err := filepath.EvalSymlinks(abs); err == nil {
			return real, nil
		}
		return abs, nil
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(abs))
	if err != nil {
		return abs, nil // whoever opens it says what is wrong with it
	}
	return filepath.Join(dir, filepath.Base(abs)), nil
}

// client returns a client of the daemon.
func (a *app) client(t target) (*control.Client, error) {
	p, err := a.locate(t)
	if err != nil {
		return nil, err
	}
	return control.NewClient(p.socket), nil
}

// open returns the daemon's commands, or those of the store in --store. A daemon
// that holds that store is asked instead. done gives everything back.
func (a *app) open(t target, create bool) (api control.API, done func() error, err error) {
	if t.store == "" {
		c, err := a.client(t)
		if err != nil {
			return nil, nil, err
		}
		return c, func() error { c.Close(); return nil }, nil
	}
	if t.mount != "" {
		return nil, nil, fault.New("", "", fault.Usage, errors.New("--mount and --store exclude each other"))
	}
	dir, err := absolute(t.store)
	if err != nil {
		return nil, nil, err
	}
	if c := daemonOf(dir); c != nil {
		return c, func() error { c.Close(); return nil }, nil
	}
	d, err := daemon.OpenDirect(dir, version(), create, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, nil, err
	}
	return d, d.Close, nil
}

// with opens the daemon or store, calls f and gives it back.
func (a *app) with(t target, create bool, f func(control.API) error) error {
	api, done, err := a.open(t, create)
	if err != nil {
		return err
	}
	err = f(api)
	if cerr := done(); cerr != nil {
		return errors.Join(err, cerr)
	}
	return err
}

// daemonOf finds a mounted daemon that holds the store.
func daemonOf(store string) *control.Client {
	l, err := control.Mounts()
	if err != nil {
		return nil
	}
	for _, m := range l {
		if m.Type != control.FSType || m.Root != "/" {
			continue
		}
		if info, err := control.ReadInfo(m.Point); err == nil && same(info.Store, store) {
			return control.NewClient(info.Socket)
		}
	}
	return nil
}

// defaultStore is where the store is unless --store says otherwise.
func (a *app) defaultStore(uid int) (string, error) {
	if uid == 0 {
		return "/var/lib/condafs", nil
	}
	if dir := a.getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "condafs"), nil
	}
	home := a.getenv("HOME")
	if !filepath.IsAbs(home) {
		return "", fault.New("find the store", "", fault.Usage, nil).WithHint("$HOME is not set; name a directory with --store")
	}
	return filepath.Join(home, ".local", "share", "condafs"), nil
}
