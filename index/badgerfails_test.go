//go:build condafs_faults

package index

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"condafs/internal/lossyfs"
)

// lossyChild makes one commit after the other in a store on a disk that can fail, each in a process of its own: a database maps its
// files, which a process can't do on a file system that it serves itself.
type lossyChild struct {
	t    *testing.T
	disk *lossyfs.FS
	mnt  string
}

func newLossyChild(t *testing.T) *lossyChild {
	c := &lossyChild{t: t, disk: lossyfs.New(lossyfs.Strict), mnt: t.TempDir()}
	m, err := c.disk.Mount(c.mnt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Unmount(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// run makes a commit and returns what the child says.
func (c *lossyChild) run() string {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashEnv+"="+filepath.Join(c.mnt, "store"), closeEnv+"=1")
	out, _ := cmd.CombinedOutput() // what it says counts
	return string(out)
}

// export copies the store to where this process can open it.
func (c *lossyChild) export() string {
	dir := memDir(c.t)
	if err := c.disk.Export(dir); err != nil {
		c.t.Fatal(err)
	}
	return filepath.Join(dir, "store")
}

// Badger ends the process where it can't make its file DISCARD. Whoever opens a store on a full disk gets an error instead, and can
// open it when there is room.
func TestDiscardFileCannotBeMade(t *testing.T) {
	for _, kind := range []lossyfs.Kind{lossyfs.Create, lossyfs.Truncate} {
		c := newLossyChild(t)
		c.disk.Inject(func(o lossyfs.Op) lossyfs.Verdict {
			if o.Kind == kind && strings.HasSuffix(o.Path, "/"+discardName) {
				return lossyfs.Verdict{Errno: unix.ENOSPC}
			}
			return lossyfs.Verdict{}
		})
		if out := c.run(); !strings.Contains(out, "open store") || !strings.Contains(out, hintFull) {
			t.Errorf("%v of %s failed, and the child said %q", kind, discardName, out)
		}
		c.disk.Inject(nil)
		if out := c.run(); !strings.Contains(out, "closed <nil>") {
			t.Errorf("the last said %q", out)
		}
		fi, err := os.Stat(filepath.Join(c.export(), dbName, discardName))
		if err != nil || fi.Size() != discardSize {
			t.Errorf("%s: %+v, %v", discardName, fi, err)
		}
	}
}

// Badger tries for ever to write a table. Opening and closing a store must not wait for
// that: they fail, with the errno, and lose nothing.
func TestTableCannotBeWritten(t *testing.T) {
	c := newLossyChild(t)
	c.disk.Inject(func(o lossyfs.Op) lossyfs.Verdict {
		if o.Kind == lossyfs.Create && strings.HasSuffix(o.Path, ".sst") {
			return lossyfs.Verdict{Errno: unix.ENOSPC}
		}
		return lossyfs.Verdict{}
	})
	if out := c.run(); !strings.Contains(out, "committed <nil>") || !strings.Contains(out, "closed close store") || !strings.Contains(out, unix.ENOSPC.Error()) {
		t.Errorf("the first said %q", out)
	}
	if out := c.run(); !strings.Contains(out, "failed") && !strings.Contains(out, "closed close store") {
		t.Errorf("the second said %q", out)
	}
	c.disk.Inject(nil)
	if out := c.run(); !strings.Contains(out, "closed <nil>") {
		t.Errorf("the last said %q", out)
	}
	s, err := Open(c.export(), Options{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(checkAfterCrash(s, map[string]string{"w": "1"}), s.Close()); err != nil {
		t.Error(err)
	}
}
