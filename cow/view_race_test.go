package cow

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"condafs/fault"
	"condafs/internal/longrun"
)

// racer is one client among many: it works on a few names that all others work
// on, too, so every error that says that somebody was faster is right.
type racer struct {
	*rig
	rand *rand.Rand
}

func (c *racer) name() string {
	names := []string{"pkgs/n", "pkgs/m", "pkgs/d/n", "pkgs/d", "pkgs/a-1-0/lib", "pkgs/a-1-0/lib/libz.so.1", "pkgs/urls.txt", "pkgs/a-1-0", "pkgs/e"}
	return names[c.rand.IntN(len(names))]
}

func (c *racer) step() error {
	p, q := c.name(), c.name()
	switch c.rand.IntN(12) {
	case 0:
		return c.create(p, "race", 0o644)
	case 1:
		return c.mkdir(p, 0o755)
	case 2:
		return c.unlink(p)
	case 3:
		return c.rmdir(p)
	case 4, 5:
		return c.rename(p, q, []uint32{0, unix.RENAME_EXCHANGE, unix.RENAME_NOREPLACE}[c.rand.IntN(3)])
	case 6:
		return c.write(p, "w", unix.O_APPEND)
	case 7:
		return c.link(p, q)
	case 8:
		return c.setattr(p, SetAttr{Valid: SetMode, Mode: 0o600 | c.rand.Uint32N(0o200)})
	case 9:
		_, err := c.read(p)
		return err
	case 10:
		return c.passthrough(p)
	}
	return c.on(p, func(n *Node) error {
		if !n.isDir() {
			return nil
		}
		_, err := c.v.ReadDir(n)
		return err
	})
}

func (c *racer) passthrough(path string) error {
	h, err := c.openAt(path, unix.O_RDONLY)
	if err != nil {
		return err
	}
	h.SetPassthrough(true)
	err = c.write(path, "w", 0)
	if rerr := h.Release(); err == nil {
		err = rerr
	}
	return err
}

// expected reports whether an error can come of a race.
func expected(err error) bool {
	switch fault.Errno(err) {
	case 0, unix.ENOENT, unix.EEXIST, unix.ENOTDIR, unix.EISDIR, unix.ENOTEMPTY, unix.EINVAL, unix.EPERM, unix.ELOOP, unix.EOPNOTSUPP, unix.EBUSY:
		return true
	}
	return false
}

func TestClientsRace(t *testing.T) {
	r := newRig(t)
	steps := 2000
	if !longrun.Wanted() {
		steps = 300
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			c := &racer{r, rand.New(rand.NewPCG(1, uint64(i)))}
			for range steps {
				if err := c.step(); !expected(err) {
					t.Error(err)
					return
				}
			}
		})
	}
	// Meanwhile, the engine looks and seals.
	stop := make(chan struct{})
	var engine sync.WaitGroup
	engine.Go(func() {
		rnd := &racer{r, rand.New(rand.NewPCG(2, 2))}
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := r.v.Changes(); err != nil {
				t.Error(err)
			}
			p := rnd.name()
			r.v.Generation(p)
			r.v.Writers(p)
			h, err := r.v.Harvest(p)
			if err == nil && len(h.Entries) > 0 && strings.Count(p, "/") == 1 {
				err = r.seal(p)
			}
			if !expected(err) {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	close(stop)
	engine.Wait()
	if r.v.OpenHandles() != 0 || r.v.References() != 0 || len(r.v.root.children) != 0 {
		t.Errorf("%d handles, %d references, %d nodes are left", r.v.OpenHandles(), r.v.References(), len(r.v.root.children))
	}
	before := r.dump()
	r.reopen()
	after := r.dump()
	for p, d := range before {
		if after[p] != d {
			t.Errorf("%s: %q, reopened %q", p, d, after[p])
		}
	}
	if len(before) != len(after) {
		t.Errorf("%d names, reopened %d", len(before), len(after))
	}
}

// Two writers that copy the same file up must end in one file.
func TestCopyUpRace(t *testing.T) {
	r := newRig(t)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			h, err := r.openAt("pkgs/urls.txt", unix.O_WRONLY)
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := h.WriteAt(fmt.Appendf(nil, "%02d\n", i), int64(len("private\n")+3*i)); err != nil {
				t.Error(err)
			}
			if err := h.Release(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	s, err := r.read("pkgs/urls.txt")
	if len(s) != len("private\n")+16*3 || err != nil {
		t.Errorf("%q, %v", s, err)
	}
}

// Who was about to read a directory of the overlay when the view was closed is told so.
func TestListingOfAClosedView(t *testing.T) {
	r := newRig(t)
	check(t, r.mkdir("pkgs/d", 0o755))
	check(t, r.create("pkgs/d/n", "", 0o644))
	r.reopen()
	dir, err := r.node("pkgs/d")
	check(t, err)
	if dir.names != nil {
		t.Fatal("its names are known already")
	}
	check(t, r.v.Close())
	check(t, r.v.ensureNames(dir))
	if list, err := r.v.ReadDir(dir); err != unix.ESTALE {
		t.Errorf("%v, %v", list, err)
	}
	r.v.Forget(dir, 1)
}

// Closing a view waits for nobody but those who use its directories.
func TestCloseWhileInUse(t *testing.T) {
	r := newRig(t)
	var wg, started sync.WaitGroup
	for i := range 4 {
		started.Add(1)
		wg.Go(func() {
			c := &racer{r, rand.New(rand.NewPCG(3, uint64(i)))}
			for j := 0; ; j++ {
				err := c.step()
				if j == 50 {
					started.Done()
				}
				switch no := fault.Errno(err); {
				case j >= 50 && (no == unix.ESTALE || no == unix.EROFS):
					return
				case !expected(err):
					t.Error(err)
				}
			}
		})
	}
	started.Wait()
	check(t, r.v.Close())
	wg.Wait()
	if r.v.OpenHandles() != 0 {
		t.Errorf("%d handles are left", r.v.OpenHandles())
	}
}

// Who gives the last reference of a directory back while the view goes through it hears that it was the last.
func TestForgottenWhileVisited(t *testing.T) {
	r := newRig(t)
	n, err := r.node("pkgs/a-1-0")
	check(t, err)
	last := make(chan bool, 1)
	r.v.mu.Lock()
	err = r.v.visit(n, "", func(rel string, _ *Node) error {
		if rel == "" {
			return nil
		}
		if r.v.References() > 0 {
			go func() { last <- r.v.Forget(n, 1) }()
		}
		for r.v.References() > 0 {
			runtime.Gosched()
		}
		return nil
	})
	r.v.mu.Unlock()
	check(t, err)
	if !<-last {
		t.Error("it was not the last")
	}
}
