package bench

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
	"syscall"
	"time"

	"condafs/control"
)

// mounted is a store of the benchmark's own, mounted by the condafs binary.
type mounted struct {
	exe, point, store string
	shelf             string

	up     bool
	pid    int             // the daemon's
	client *control.Client // while it is up
}

func newMounted(exe, dir string) (*mounted, error) {
	m := &mounted{exe: exe, point: filepath.Join(dir, "mnt"), store: filepath.Join(dir, "store")}
	return m, os.MkdirAll(m.point, 0o777)
}

// mount returns once the mount answers. Neither it nor umount is to be interrupted: nothing may be left behind.
func (m *mounted) mount() error {
	out, err := m.condafs(context.Background(), "mount", "--json", "--store", m.store, "--log-file", m.store+".log", m.point)
	if err != nil {
		return err
	}
	m.up = true
	var said struct {
		Socket string `json:"socket"`
		PID    int    `json:"pid"`
	}
	if err := json.Unmarshal(out, &said); err != nil {
		return fmt.Errorf("bench: condafs mount said %q: %w", out, err)
	}
	m.pid, m.client = said.PID, control.NewClient(said.Socket)
	info, err := control.ReadInfo(m.point)
	m.shelf = info.Shelf
	return err
}

func (m *mounted) umount() error {
	if !m.up {
		return nil
	}
	m.client.Close()
	_, err := m.condafs(context.Background(), "umount", m.point)
	if err != nil {
		_, lazyErr := m.condafs(context.Background(), "umount", "--lazy", m.point)
		err = errors.Join(err, lazyErr)
	}
	m.up = false
	return err
}

// settle waits until no session is left, and so everything is committed.
func (m *mounted) settle(ctx context.Context) error {
	for {
		sessions, err := m.client.Sessions(ctx)
		if err != nil || len(sessions) == 0 {
			return err
		}
		if err := pause(ctx, 2*time.Millisecond); err != nil {
			return err
		}
	}
}

// verify has everything in the head hashed again.
func (m *mounted) verify(ctx context.Context) error {
	_, err := m.condafs(ctx, "verify", "--full", "--mount", m.point)
	return err
}

// condafs runs one command to its end, out of reach of ^C, and returns what it printed.
func (m *mounted) condafs(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, m.exe, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("bench: condafs %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	return stdout.Bytes(), nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
