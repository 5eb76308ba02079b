package cow

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"condafs/fault"
)

// bounded makes a world in which users have bounds.
func bounded(t *testing.T, q Quota) *world {
	t.Helper()
	w := newWorldIn(t, t.TempDir()) // memory has no blocks for attributes
	w.close()
	w.quota = q
	w.open()
	return w
}

func (w *world) usage(uid uint32) Quota {
	w.t.Helper()
	// A busy machine makes a count take long, and then the next one is put off.
	a := w.e.account(uid)
	a.mu.Lock()
	a.last = time.Time{}
	a.mu.Unlock()
	u := w.e.Usage(uid)
	if len(u) != 1 {
		w.t.Fatalf("usage: %+v", u)
	}
	return u[0].Quota
}

func (c *client) handle(p string, flags int) *Handle {
	c.t.Helper()
	h, _, err := c.open(p, flags)
	c.must(err)
	return h
}

// TestBytesAreBounded tries each way to make files longer.
func TestBytesAreBounded(t *testing.T) {
	const most = 1 << 20
	big := strings.Repeat("x", most+1)
	f := makePackage(t, "big-1.0-0", map[string]string{"lib/big": big})
	for name, grow := range map[string]func(c *client) error{
		"a write": func(c *client) error { return c.tryWrite("pkgs/f", big) },
		"small writes": func(c *client) error {
			h := c.handle("pkgs/f", unix.O_WRONLY)
			defer func() { c.must(h.Release()) }()
			for off := int64(0); off <= most; off += 4096 {
				if _, err := h.WriteAt([]byte(big[:4096]), off); err != nil {
					return err
				}
			}
			return nil
		},
		"a write far out": func(c *client) error {
			h := c.handle("pkgs/f", unix.O_WRONLY)
			defer func() { c.must(h.Release()) }()
			_, err := h.WriteAt([]byte("x"), 1<<40)
			return err
		},
		"truncate": func(c *client) error {
			c.write("pkgs/f", "x")
			return c.on("pkgs/f", func(n *Node, _ Attr) error {
				_, err := c.v.Setattr(n, nil, SetAttr{Valid: SetSize, Size: 1 << 40})
				return err
			})
		},
		"allocate": func(c *client) error {
			h := c.handle("pkgs/f", unix.O_WRONLY)
			defer func() { c.must(h.Release()) }()
			return h.Allocate(0, 0, most+1)
		},
		"allocate beyond the end": func(c *client) error {
			h := c.handle("pkgs/f", unix.O_WRONLY)
			defer func() { c.must(h.Release()) }()
			return h.Allocate(unix.FALLOC_FL_KEEP_SIZE, 0, most+1)
		},
		"many files": func(c *client) error {
			for i := range 5 {
				if err := c.tryWrite(fmt.Sprintf("pkgs/f%d", i), big[:most/4]); err != nil {
					return err
				}
			}
			return nil
		},
		"files without a name": func(c *client) error {
			for i := range 5 {
				p := fmt.Sprintf("pkgs/f%d", i)
				h := c.handle(p, unix.O_RDWR)
				defer func() { c.must(h.Release()) }()
				c.remove(p)
				if _, err := h.WriteAt([]byte(big[:most/4]), 0); err != nil {
					return err
				}
			}
			return nil
		},
		"removed files that are known": func(c *client) error {
			for i := range 5 {
				p := fmt.Sprintf("pkgs/f%d", i)
				if err := c.tryWrite(p, big[:most/4]); err != nil {
					return err
				}
				var held *Node
				c.must(c.in(p, func(dir *Node, name string) (err error) { held, _, err = c.v.Lookup(dir, name); return err }))
				defer c.v.Forget(held, 1)
				c.remove(p)
			}
			return nil
		},
		"several sessions": func(c *client) error {
			w := c.w
			for range 5 {
				_, o := w.process()
				if err := o.tryWrite("pkgs/f", big[:most/4]); err != nil {
					return err
				}
			}
			return nil
		},
		"copying up": func(c *client) error {
			h, _, err := c.open("pkgs/"+f.dist+"/lib/big", unix.O_RDWR)
			if err == nil {
				c.must(h.Release())
			}
			return err
		},
		"attributes": func(c *client) error {
			for i := range 400 {
				p := fmt.Sprintf("pkgs/f%d", i)
				c.write(p, "")
				err := c.on(p, func(n *Node, _ Attr) error { return c.v.Setxattr(n, "user.x", []byte(big[:3000]), 0) })
				if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSPC) {
					t.Skipf("no attributes of that size here: %v", err)
				}
				if err != nil {
					return err
				}
			}
			return nil
		},
		"commits to one's own space": func(c *client) error {
			for i := range 5 {
				pid, o := c.w.process()
				if err := o.tryWrite(fmt.Sprintf("pkgs/f%d", i), fmt.Sprint(i)+big[:most/4]); err != nil {
					return err
				}
				c.w.exit(pid)
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := bounded(t, Quota{Bytes: most})
			root, r := w.user(0)
			r.install(f) // root's has no bounds
			w.exit(root)
			pid, c := w.process()
			c.w = w
			if err := grow(c); !errors.Is(err, unix.EDQUOT) {
				t.Errorf("%v, want EDQUOT", err)
			}
			if u := w.usage(me); u.Bytes > most+most/2 { // blocks may be more than was asked for
				t.Errorf("%d bytes are used", u.Bytes)
			}
			if log := w.log.String(); !strings.Contains(log, "limit=bytes") || !strings.Contains(log, "--limit bytes=NUMBER") || !strings.Contains(log, fmt.Sprint("uid=", me)) {
				t.Error("the log does not say which limit, and how to raise it")
			}
			stranger, s := w.user(4712)
			s.write("pkgs/f", big[:most/2]) // is not kept from it
			w.exit(stranger)
			w.exit(pid)
		})
	}
}

// TestRoomComesBack: what is removed, committed or dropped can be used again, also
// after a restart.
func TestRoomComesBack(t *testing.T) {
	const most = 1 << 20
	w := bounded(t, Quota{Bytes: most, Files: 50})
	chunk := strings.Repeat("x", most/2)
	pid, c := w.process()
	for range 5 {
		c.write("pkgs/f1", chunk)
		c.write("pkgs/f2", chunk[:most/4])
		if err := c.tryWrite("pkgs/f3", chunk); !errors.Is(err, unix.EDQUOT) {
			t.Fatalf("%v, want EDQUOT", err)
		}
		c.remove("pkgs/f1")
		c.remove("pkgs/f2")
		c.remove("pkgs/f3") // it was made, and is empty
		for i := range 45 {
			c.write(fmt.Sprintf("pkgs/g%d", i), "")
		}
		for i := range 45 {
			c.remove(fmt.Sprintf("pkgs/g%d", i))
		}
	}
	c.write("pkgs/f1", chunk)
	if u := w.usage(me); u.Bytes != most/2 || u.Sessions != 1 || u.Open != 0 || u.Files == 0 {
		t.Errorf("%+v", u)
	}
	// The next daemon finds the overlay, and counts it.
	w.close()
	w.open()
	w.await()
	c = w.client(pid)
	if u := w.usage(me); u.Bytes != most/2 || u.Sessions != 1 {
		t.Errorf("after a restart: %+v", u)
	}
	c.write("pkgs/f2", chunk[:most/4])
	if err := c.tryWrite("pkgs/f3", chunk); !errors.Is(err, unix.EDQUOT) {
		t.Errorf("after a restart: %v, want EDQUOT", err)
	}
	c.remove("pkgs/f1")
	c.remove("pkgs/f2")
	c.remove("pkgs/f3")
	w.exit(pid)
	if u := w.usage(me); u != (Quota{}) {
		t.Errorf("at the end: %+v", u)
	}
	w.tidy()
}

func TestFilesAreBounded(t *testing.T) {
	f := makePackage(t, "many-1.0-0", nil)
	for name, grow := range map[string]func(c *client, i int) error{
		"files":       func(c *client, i int) error { return c.tryWrite(fmt.Sprintf("pkgs/f%d", i), "") },
		"directories": func(c *client, i int) error { return c.tryMkdir(fmt.Sprintf("pkgs/f%d", i)) },
		"links": func(c *client, i int) error {
			return c.in(fmt.Sprintf("pkgs/f%d", i), func(dir *Node, name string) error {
				n, _, err := c.v.Symlink(dir, name, "x")
				if err == nil {
					c.v.Forget(n, 1)
				}
				return err
			})
		},
		"names": func(c *client, i int) error {
			if i == 0 {
				return c.tryWrite("pkgs/f", "")
			}
			return c.on("pkgs/f", func(n *Node, _ Attr) error {
				return c.in(fmt.Sprintf("pkgs/f%d", i), func(dir *Node, name string) error {
					_, err := c.v.Link(n, dir, name)
					if err == nil {
						c.v.Forget(n, 1)
					}
					return err
				})
			})
		},
		"FIFOs": func(c *client, i int) error {
			return c.in(fmt.Sprintf("pkgs/f%d", i), func(dir *Node, name string) error {
				n, _, err := c.v.Mknod(dir, name, unix.S_IFIFO|0o600, 0)
				if err == nil {
					c.v.Forget(n, 1)
				}
				return err
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			const most = 20
			w := bounded(t, Quota{Files: most})
			root, r := w.user(0)
			r.install(f)
			w.exit(root)
			pid, c := w.process()
			i := 0
			var err error
			for ; i < 2*most && err == nil; i++ {
				err = grow(c, i)
			}
			if !errors.Is(err, unix.EDQUOT) || i > most {
				t.Errorf("after %d: %v, want EDQUOT", i, err)
			}
			// To remove things still works, also what is below.
			c.remove("pkgs/" + f.dist)
			w.exit(pid)
		})
	}
}

func TestOpenFilesAreBounded(t *testing.T) {
	const most = 10
	w := bounded(t, Quota{Open: most})
	f := makePackage(t, "tool-1.0-0", nil)
	root, r := w.user(0)
	r.install(f)
	w.exit(root)
	pid, c := w.process()
	var held []*Handle
	var err error
	for i := 0; err == nil && i < 2*most; i++ {
		var h *Handle
		p, flags := "pkgs/"+f.dist+"/lib/data", unix.O_RDONLY
		if i%2 == 1 {
			p, flags = fmt.Sprintf("pkgs/f%d", i), unix.O_WRONLY
		}
		if h, _, err = c.open(p, flags); err == nil {
			held = append(held, h)
		}
	}
	if !errors.Is(err, unix.EMFILE) || len(held) != most {
		t.Errorf("%d files are open: %v, want EMFILE", len(held), err)
	}
	c.must(c.in("pkgs/x", func(dir *Node, _ string) error {
		if _, _, _, err := c.v.Tmpfile(dir, unix.O_RDWR, 0o600); !errors.Is(err, unix.EMFILE) {
			t.Errorf("a file without a name: %v, want EMFILE", err)
		}
		return nil
	}))
	if err := c.v.KeepListing(-1, 0); !errors.Is(err, unix.EMFILE) {
		t.Errorf("a directory: %v, want EMFILE", err)
	}
	c.must(held[0].Release())
	held = held[1:]
	if err := c.v.KeepListing(-1, 0); err != nil {
		t.Errorf("a directory: %v", err)
	}
	if err := c.v.KeepListing(0, 10*namesPerFile); !errors.Is(err, unix.EMFILE) {
		t.Errorf("a long listing: %v, want EMFILE", err)
	}
	c.must(c.v.KeepListing(0, -1))
	for _, h := range held {
		c.must(h.Release())
		c.must(h.Release()) // twice is once
	}
	if u := w.usage(me); u.Open != 0 {
		t.Errorf("%d are open", u.Open)
	}
	if !strings.Contains(w.log.String(), "limit=open") {
		t.Error("the log does not tell")
	}
	w.exit(pid)
	w.tidy()
}

func TestSessionsAreBounded(t *testing.T) {
	const most = 3
	w := bounded(t, Quota{Sessions: most})
	var pids []int
	for range most {
		pid, _ := w.process()
		pids = append(pids, pid)
	}
	refused := func() {
		t.Helper()
		_, err := w.e.SessionFor(w.procs.spawn(1), me, me, false)
		if !fault.Is(err, fault.TooMany) || fault.Errno(err) != unix.EDQUOT {
			t.Errorf("one more: %v", err)
		}
		if _, err := w.e.StartSession(StartOptions{PID: w.procs.spawn(1), UID: me}); !fault.Is(err, fault.TooMany) || !strings.Contains(err.Error(), "--limit sessions") {
			t.Errorf("one more by request: %v", err)
		}
	}
	refused()
	for _, uid := range []uint32{0, 4712} {
		pid, _ := w.user(uid)
		w.exit(pid)
	}
	// Those of before a restart go on, even if they are more than is allowed now.
	for _, pid := range pids {
		w.client(pid).write("pkgs/note", "x")
	}
	w.await()
	w.close()
	w.quota.Sessions = most - 1
	w.open()
	w.await()
	if u := w.usage(me); u.Sessions != most {
		t.Errorf("%d sessions, %d go on", u.Sessions, most)
	}
	refused()
	w.exit(pids[0])
	refused()
	w.exit(pids[1])
	pid, _ := w.process()
	for _, pid := range []int{pid, pids[2]} {
		w.exit(pid)
	}
	if u := w.usage(me); u.Sessions != 0 {
		t.Errorf("%d sessions are left", u.Sessions)
	}
	w.tidy()
}

// TestKernelWritesAreCounted: where bytes are bounded, the kernel is not let at files of
// the overlay, whose growth nobody would see.
func TestKernelWritesAreCounted(t *testing.T) {
	f := makePackage(t, "tool-1.0-0", nil)
	for _, tt := range []struct {
		quota Quota
		uid   uint32
		may   bool
	}{{Quota{Bytes: 1 << 20}, me, false}, {Quota{Bytes: 1 << 20}, 0, true}, {Quota{Files: 100}, me, true}, {Quota{}, me, true}} {
		t.Run(fmt.Sprintf("%+v of %d", tt.quota, tt.uid), func(t *testing.T) {
			w := bounded(t, tt.quota)
			root, r := w.user(0)
			r.install(f)
			w.exit(root)
			pid, c := w.user(tt.uid)
			c.write("pkgs/f", "x")
			for p, want := range map[string]bool{"pkgs/f": tt.may, "pkgs/" + f.dist + "/lib/data": true} {
				h := c.handle(p, unix.O_RDONLY)
				if h.Passthrough() != want {
					t.Errorf("%s: %v", p, !want)
				}
				c.must(h.Release())
			}
			w.exit(pid)
		})
	}
}

// TestQuarantineIsBounded: bad packages don't pile up; the last ones are kept.
func TestQuarantineIsBounded(t *testing.T) {
	w := bounded(t, Quota{Bytes: 64 << 10})
	last := ""
	for i := range 8 {
		f := makePackage(t, fmt.Sprintf("bad-%d-0", i), map[string]string{"lib/data": strings.Repeat("x", 3000)})
		pid, c := w.process()
		c.extract(f)
		c.finish(f)
		c.write("pkgs/"+f.dist+"/lib/data", strings.Repeat("y", 3000))
		w.exit(pid)
		last = "pkgs/" + f.dist
		w.now = w.now.Add(1)
	}
	q, err := w.store.Quarantined()
	if err != nil {
		t.Fatal(err)
	}
	var bytes int64
	found := false
	for _, r := range q {
		bytes += r.Bytes
		found = found || r.Path == last
		if _, err := filepath.Glob(w.store.QuarantineDir(r.ID) + "/*"); err != nil {
			t.Error(err)
		}
	}
	if !found || len(q) == 0 || len(q) == 8 || bytes > 64<<10/quarantineShare+4000 {
		t.Errorf("%d things, %d bytes, the last one: %v", len(q), bytes, found)
	}
}
