package cow

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// newLaneWorld is a world whose clients' user owns the store, as one must who is to get lanes.
func newLaneWorld(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.openLanes()
	if !w.e.leases() {
		t.Skip("the file system has no leases")
	}
	return w
}

func (w *world) openLanes() { w.e.owner = me }

// lane makes a package's directory as a process about to unpack it does, and returns what a client finds there then.
func (c *client) lane(f *fixture) string {
	c.t.Helper()
	if !c.exists("pkgs/" + f.fn()) {
		c.download(f)
	}
	c.must(c.in("pkgs/"+f.dist, func(dir *Node, name string) error {
		n, a, err := c.v.Unpack(dir, name, 0o755, os.Getpid())
		if err != nil {
			return err
		}
		if !a.IsDir() || a.Mode&0o777 != 0o755 || !n.Volatile() {
			c.t.Errorf("who makes a directory gets %+v", a)
		}
		if again, err := c.v.Getattr(n, nil); err != nil || !again.IsDir() {
			c.t.Errorf("which is %+v, %v", again, err)
		}
		if _, _, err := c.v.Mkdir(n, "x", 0o755); err != unix.ENOENT {
			c.t.Errorf("in which one makes another: %v", err)
		}
		c.v.Forget(n, 1)
		return nil
	}))
	to := c.read("pkgs/" + f.dist)
	if filepath.Dir(to) != c.v.lanes.dir {
		c.t.Fatalf("it leads to %q", to)
	}
	return to
}

// unpack does natively what extract does.
func unpack(t tb, to string, f *fixture) {
	t.Helper()
	for p, content := range f.files {
		at := filepath.Join(to, p)
		if err := errors.Join(os.MkdirAll(path.Dir(at), 0o755), os.WriteFile(at, []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for p, target := range f.links {
		if err := os.Symlink(target, filepath.Join(to, p)); err != nil {
			t.Fatal(err)
		}
	}
}

func record(t tb, to string, f *fixture) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(to, "info/repodata_record.json"), []byte(f.record), 0o644); err != nil {
		t.Fatal(err)
	}
}

// isDirAt reports whether the view shows a directory there.
func (c *client) isDirAt(p string) (is bool) {
	c.t.Helper()
	c.must(c.on(p, func(_ *Node, a Attr) error {
		is = a.IsDir()
		return nil
	}))
	return is
}

// noLanes makes sure that nothing of lanes is left but the ways back to the mount.
func (c *client) noLanes() {
	c.t.Helper()
	list, err := os.ReadDir(c.v.lanes.dir)
	c.must(err)
	for _, e := range list {
		if e.Type() != os.ModeSymlink {
			c.t.Errorf("%s is left of the lanes", e.Name())
		}
	}
}

func TestLane(t *testing.T) {
	w := newLaneWorld(t)
	f := makePackage(t, "tool-1.0-0", nil)
	pid, c := w.process()
	to := c.lane(f)
	unpack(t, to, f)
	if c.isDirAt("pkgs/" + f.dist) {
		t.Error("taken over before it is complete")
	}
	if r, err := w.e.Commit(ctx, c.s.ID()); err != nil || len(r.Pending) != 1 || r.Pending[0].Path != "pkgs/"+f.dist {
		t.Errorf("commit: %+v, %v", r, err)
	}
	if !c.s.dirty() || c.isDirAt("pkgs/"+f.dist) {
		t.Error("the lane does not count")
	}
	record(t, to, f)
	if !c.isDirAt("pkgs/" + f.dist) {
		t.Fatal("not taken over when it is complete")
	}
	c.has(f)
	if got, err := os.Readlink(to); err != nil || got != w.mount+"/pkgs/"+f.dist {
		t.Errorf("who knows the lane's path is led to %q, %v", got, err)
	}
	c.noLanes()
	w.await()
	if w.trust(shared+f.dist) != "verified" {
		t.Errorf("it is %q", w.trust(shared+f.dist))
	}
	c.has(f)
	w.exit(pid)
	_, c = w.process()
	c.has(f)
}

// Who has unpacked need not come back for others to get the package.
func TestLaneIsWatched(t *testing.T) {
	w := newLaneWorld(t)
	f := makePackage(t, "tool-1.0-0", nil)
	pid, c := w.process()
	to := c.lane(f)
	unpack(t, to, f)
	record(t, to, f)
	for w.trust(shared+f.dist) != "verified" {
		time.Sleep(time.Millisecond)
	}
	c.has(f)
	w.exit(pid)
}

// What seems to be complete and is not, stays with its client.
func TestLaneIsNotComplete(t *testing.T) {
	f := makePackage(t, "tool-1.0-0", nil)
	for name, spoil := range map[string]func(t *testing.T, to string) (mend func()){
		"a listed file is missing": func(t *testing.T, to string) func() {
			check(t, os.Rename(to+"/lib/data", to+"/aside"))
			return func() { check(t, os.Rename(to+"/aside", to+"/lib/data")) }
		},
		"a file is being written": func(t *testing.T, to string) func() {
			h, err := os.OpenFile(to+"/lib/data", os.O_WRONLY, 0)
			check(t, err)
			return func() { check(t, h.Close()) }
		},
		"a file is mapped to be written": func(t *testing.T, to string) func() {
			h, err := os.OpenFile(to+"/lib/data", os.O_RDWR, 0)
			check(t, err)
			m, err := unix.Mmap(int(h.Fd()), 0, 4, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			check(t, errors.Join(err, h.Close()))
			return func() { check(t, unix.Munmap(m)) }
		},
		"the record is being written": func(t *testing.T, to string) func() {
			h, err := os.OpenFile(to+"/info/repodata_record.json", os.O_WRONLY, 0)
			check(t, err)
			return func() { check(t, h.Close()) }
		},
		"the record came out of the archive": func(t *testing.T, to string) func() {
			long := time.Unix(1_600_000_000, 0)
			check(t, os.Chtimes(to+"/info/repodata_record.json", long, long))
			return func() { record(t, to, f) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newLaneWorld(t)
			pid, c := w.process()
			to := c.lane(f)
			unpack(t, to, f)
			// The record comes to its place with what is wrong, since somebody is watching.
			l := c.v.liveLanes()[0]
			l.taking.Lock()
			record(t, to, f)
			mend := spoil(t, to)
			l.taking.Unlock()
			if c.isDirAt("pkgs/" + f.dist) {
				t.Error("taken over")
			}
			mend()
			for !c.isDirAt("pkgs/" + f.dist) {
				time.Sleep(time.Millisecond)
			}
			c.has(f)
			w.exit(pid)
			if w.trust(shared+f.dist) != "verified" {
				t.Error("not published")
			}
			w.tidy()
		})
	}
}

// Of what is unpacked when the session ends, complete packages are published, and nothing else.
func TestLaneAtTheEnd(t *testing.T) {
	w := newLaneWorld(t)
	whole, half := makePackage(t, "whole-1.0-0", nil), makePackage(t, "half-1.0-0", nil)
	pid, c := w.process()
	to := c.lane(half)
	unpack(t, to, half)
	unpack(t, c.lane(whole), whole)
	record(t, c.read("pkgs/"+whole.dist), whole)
	w.procs.kill(pid)
	w.await()
	if w.trust(shared+whole.dist) != "verified" || w.head(shared+half.dist) != nil || w.head(mine+half.dist) != nil {
		t.Error("not what was complete is published")
	}
	w.tidy()
}

// Nothing is left of what is not to be kept, and who goes on writing there does not reach the store.
func TestLaneIsDiscarded(t *testing.T) {
	w := newLaneWorld(t)
	f := makePackage(t, "tool-1.0-0", nil)
	pid, c := w.process()
	to := c.lane(f)
	unpack(t, to, f)
	if err := w.e.Discard(ctx, c.s.ID()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(to, "lib/data"), nil, 0o644); err == nil {
		t.Error("the lane is still there")
	}
	w.exit(pid)
	if w.head(shared+f.dist) != nil {
		t.Error("published")
	}
	w.tidy()
}

// A client may remove, rename and make anew what it takes for a directory.
func TestLaneIsRemoved(t *testing.T) {
	w := newLaneWorld(t)
	f, g := makePackage(t, "tool-1.0-0", nil), makePackage(t, "other-1.0-0", nil)
	pid, c := w.process()
	c.install(f)
	w.exit(pid)
	pid, c = w.process()
	c.remove("pkgs/" + f.dist)
	first := c.lane(f)
	unpack(t, first, f)
	c.must(os.WriteFile(first+"/lib/left", nil, 0o644))
	c.remove("pkgs/" + f.dist)
	if c.exists("pkgs/" + f.dist) {
		t.Error("it is still there")
	}
	second := c.lane(f)
	if first == second {
		t.Error("a lane is used again")
	}
	unpack(t, second, f)
	c.rename("pkgs/"+f.dist, "pkgs/"+f.dist+".c~")
	c.rename("pkgs/"+f.dist+".c~", "pkgs/"+f.dist)
	record(t, second, f)
	if err := c.in("pkgs/"+f.dist, func(dir *Node, name string) error {
		n, _, err := c.v.Lookup(dir, name)
		if err == nil {
			c.v.Forget(n, 1)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
	c.has(f)
	if slices.Contains(c.list("pkgs/"+f.dist+"/lib"), "left") {
		t.Error("a file of the lane that was removed is there")
	}
	if l := c.list("pkgs/" + f.dist); !slices.Equal(l, []string{"bin", "info", "lib"}) {
		t.Errorf("it holds %v", l)
	}
	// A link to a lane is no file that one could give more names.
	c.lane(g)
	c.must(c.on("pkgs/"+g.dist, func(n *Node, _ Attr) error {
		if _, err := c.v.Link(n, n.links[0].dir, "again"); err != unix.EPERM {
			t.Errorf("link: %v", err)
		}
		return nil
	}))
	c.remove("pkgs/" + g.dist)
	for c.v.hasLanes() {
		time.Sleep(time.Millisecond)
	}
	c.noLanes()
	w.exit(pid)
	w.tidy()
}

// Whatever a client puts into a lane, and whatever it keeps open of it or has linked elsewhere: what comes into the overlay is what
// the mount would have let in, and nobody can change it past the view.
func TestLaneOfAHostileClient(t *testing.T) {
	w := newLaneWorld(t)
	f := makePackage(t, "tool-1.0-0", nil)
	pid, c := w.process()
	to := c.lane(f)
	unpack(t, to, f)
	elsewhere := w.dir + "/elsewhere"
	in := func(name string) string { return filepath.Join(to, name) }
	must := func(errs ...error) {
		t.Helper()
		check(t, errors.Join(errs...))
	}
	must(
		os.WriteFile(in("setid"), []byte("x"), 0o755), os.Chmod(in("setid"), 0o755|os.ModeSetuid|os.ModeSetgid),
		os.WriteFile(in("secret"), []byte("secret"), 0o600), os.Chmod(in("secret"), 0),
		os.MkdirAll(in("closed/deep"), 0o755), os.WriteFile(in("closed/deep/file"), []byte("deep"), 0o644), os.Chmod(in("closed"), 0o500),
		unix.Mkfifo(in("fifo"), 0o644), os.Symlink("/etc/passwd", in("passwd")), os.Symlink("..", in("up")),
		os.Link(in("lib/data"), in("lib/again")), os.WriteFile(in("shared"), []byte("before"), 0o644), os.Link(in("shared"), elsewhere), os.Link(in("shared"), in("shared2")),
		os.WriteFile(in("forged"), []byte("forged"), 0o644), unix.Setxattr(in("forged"), xattrMark, []byte("whiteout"), 0),
		os.WriteFile(in("written"), []byte("before"), 0o644),
	)
	if err := unix.Mknod(in("gone"), unix.S_IFCHR, 0); err != nil && err != unix.EPERM {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		capable := []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0} // of version 2: one capability, effective
		must(os.Chown(in("forged"), me, me), unix.Setxattr(in("forged"), "security.capability", capable, 0))
	}
	writer, err := os.OpenFile(in("written"), os.O_RDWR, 0)
	must(err)
	forged, err := os.Open(in("forged"))
	must(err)
	defer forged.Close()
	cwd, err := os.Open(in("lib"))
	must(err)
	defer cwd.Close()
	record(t, to, f)
	if over, err := c.v.takeOver(c.v.liveLanes()[0], true); err != nil || !over {
		t.Fatal(over, err)
	}
	must(os.WriteFile(elsewhere, []byte("AFTER!"), 0o644))
	if _, err := writer.WriteAt([]byte("AFTER!"), 0); err != nil {
		t.Fatal(err)
	}
	must(writer.Close())
	if fd, err := unix.Openat(int(cwd.Fd()), "data", unix.O_RDWR, 0); err == nil {
		t.Errorf("a file is found in a directory from before, %d", fd)
	}
	if fd, err := unix.Openat(int(cwd.Fd()), "new", unix.O_RDWR|unix.O_CREAT, 0o644); err == nil {
		t.Errorf("a file is made in a directory from before, %d", fd)
	}
	var st unix.Stat_t
	must(unix.Fstat(int(forged.Fd()), &st))
	if names, err := listXattrs(int(forged.Fd())); err != nil || slices.Contains(names, "security.capability") || int(st.Uid) != os.Geteuid() || int(st.Gid) != os.Getegid() {
		t.Errorf("a file of a client's is user %d's with %q, %v", st.Uid, names, err)
	}
	c.has(f)
	p := "pkgs/" + f.dist + "/"
	for name, want := range map[string]string{
		"setid": "x", "secret": "secret", "closed/deep/file": "deep", "passwd": "/etc/passwd", "up": "..", "lib/again": f.files["lib/data"],
		"shared": "before", "shared2": "before", "forged": "forged", "written": "before",
	} {
		if got := c.read(p + name); got != want {
			t.Errorf("%s holds %q", name, got)
		}
	}
	for name, want := range map[string]uint32{"setid": unix.S_IFREG | 0o755, "secret": unix.S_IFREG, "closed": unix.S_IFDIR | 0o500, "fifo": unix.S_IFIFO | 0o644, "forged": unix.S_IFREG | 0o644} {
		c.must(c.on(p+name, func(_ *Node, a Attr) error {
			if a.Mode != want {
				t.Errorf("%s has mode %o", name, a.Mode)
			}
			return nil
		}))
	}
	if l := c.list("pkgs/" + f.dist); slices.Contains(l, "gone") || len(l) != 13 {
		t.Errorf("it holds %v", l)
	}
	c.must(c.on(p+"shared", func(n *Node, a Attr) error {
		return c.on(p+"shared2", func(m *Node, _ Attr) error {
			if m != n || a.Nlink != 2 {
				t.Errorf("two names of one file are %v and %v, with %d links", n.id, m.id, a.Nlink)
			}
			return nil
		})
	}))
	w.exit(pid)
	w.tidy()
}

// Nobody sees half of a package while it is taken over.
func TestLaneIsTakenOverAtOnce(t *testing.T) {
	w := newLaneWorld(t)
	files := map[string]string{}
	for i := range 200 {
		files["lib/"+string(rune('a'+i%20))+"/f"+strings.Repeat("x", i)] = "content " + strings.Repeat("y", i)
	}
	f := makePackage(t, "tool-1.0-0", files)
	pid, c := w.process()
	to := c.lane(f)
	unpack(t, to, f)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for !c.isDirAt("pkgs/" + f.dist) {
				time.Sleep(100 * time.Microsecond)
			}
			c.has(f)
		})
	}
	record(t, to, f)
	wg.Wait()
	w.exit(pid)
	if w.trust(shared+f.dist) != "verified" {
		t.Error("not published")
	}
	w.tidy()
}

// The next daemon finds what a client unpacks, goes on with it, and takes over what is complete by then.
func TestLaneOutlivesTheDaemon(t *testing.T) {
	for _, alive := range []bool{true, false} {
		t.Run(fmt.Sprintf("client alive: %t", alive), func(t *testing.T) { testLaneOutlivesTheDaemon(t, alive) })
	}
}

func testLaneOutlivesTheDaemon(t *testing.T, alive bool) {
	w := newLaneWorld(t)
	f, g := makePackage(t, "tool-1.0-0", nil), makePackage(t, "other-1.0-0", nil)
	pid, c := w.process()
	to, other := c.lane(f), c.lane(g)
	unpack(t, to, f)
	unpack(t, other, g)
	w.close()
	record(t, to, f)
	if !alive {
		w.procs.kill(pid)
	}
	w.open()
	w.openLanes()
	w.await()
	if w.trust(shared+f.dist) != "verified" || w.head(shared+g.dist) != nil {
		t.Error("not what was complete is published")
	}
	if alive {
		again := w.client(pid)
		if again.s.ID() != c.s.ID() {
			t.Fatal("the client is in another session")
		}
		if again.read("pkgs/"+g.dist) != other {
			t.Error("the other lane is gone")
		}
		record(t, other, g)
		again.has(f)
		if !again.isDirAt("pkgs/" + g.dist) {
			t.Error("the other lane is not taken over")
		}
		again.has(g)
		w.exit(pid)
		if w.trust(shared+g.dist) != "verified" {
			t.Error("the other package is not published")
		}
	}
	w.tidy()
}

// So does another program that takes this one's place.
func TestLaneIsHandedOver(t *testing.T) {
	w := newLaneWorld(t)
	f := makePackage(t, "tool-1.0-0", nil)
	pid, c := w.process()
	to := c.lane(f)
	unpack(t, to, f)
	w.handOver()
	again := w.client(pid)
	if again.read("pkgs/"+f.dist) != to {
		t.Fatal("the lane is gone")
	}
	record(t, to, f)
	for w.trust(shared+f.dist) != "verified" { // nobody asks
		time.Sleep(time.Millisecond)
	}
	again.has(f)
	w.exit(pid)
	w.tidy()
}

// rattler unpacks into a directory that it renames at the end: until then it is not complete, whatever is in it.
func TestRattlerLane(t *testing.T) {
	w := newLaneWorld(t)
	installsByRattler(t, w, func(c *client, named bool) {
		if named {
			if !c.isDirAt(rattlerFinal) || c.exists(rattlerTemp) {
				t.Error("it did not get its name")
			}
			c.noLanes()
			return
		}
		c.write(rattlerTemp+"/info/repodata_record.json", "{}")
		w.await()
		if c.isDirAt(rattlerTemp) || len(c.v.liveLanes()) != 1 {
			t.Error("taken over before it has its name")
		}
		c.must(c.pass1(rattlerTemp+"/info/repodata_record.json", os.Remove))
	})
}

// A download that broke off is begun again, in the place of what was there.
func TestRattlerBeginsAgain(t *testing.T) {
	w := newLaneWorld(t)
	f := makePackage(t, "tool-1.0-0", nil)
	pid, c := w.process()
	c.write(rattlerFinal+".lock", "\x00\x00\x00\x00\x00\x00\x00\x01")
	c.mkdirs(rattlerTemp + "/lib")
	c.write(rattlerTemp+"/lib/half", "x")
	c.remove(rattlerTemp) // of a link, Rust removes the link
	c.unpackByRattler(f)
	if len(c.v.liveLanes()) != 1 {
		t.Error("no lane for another try")
	}
	c.rename(rattlerTemp, rattlerFinal)
	c.hasByRattler(f)
	if c.exists(rattlerFinal + "/lib/half") {
		t.Error("something is left of the first try")
	}
	w.await()
	w.exit(pid)
	if w.trust("u4711/"+rattlerFinal) != "consistent" {
		t.Error("not published")
	}
	w.tidy()
}

func TestWhoGetsNoLane(t *testing.T) {
	for _, test := range []struct {
		name string
		pid  int
		dist string
		do   func(w *world, c *client)
	}{
		{"a client that cannot be seen", 0, "tool-1.0-0", nil},
		{"another user", os.Getpid(), "tool-1.0-0", func(w *world, _ *client) { w.e.owner = me + 1 }},
		{"no archive beside it", os.Getpid(), "other-1.0-0", nil},
		{"no package", os.Getpid(), "plain", nil},
		{"nothing leads back", os.Getpid(), "tool-1.0-0", func(w *world, _ *client) { w.e.o.MountPoint = "" }},
		{"no leases", os.Getpid(), "tool-1.0-0", func(w *world, _ *client) { w.e.leases = func() bool { return false } }},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newLaneWorld(t)
			pid, c := w.process()
			c.download(makePackage(t, "tool-1.0-0", nil))
			if test.do != nil {
				test.do(w, c)
			}
			c.must(c.in("pkgs/"+test.dist, func(dir *Node, name string) error {
				n, _, err := c.v.Unpack(dir, name, 0o755, test.pid)
				if err == nil {
					c.v.Forget(n, 1)
				}
				return err
			}))
			if !c.isDirAt("pkgs/" + test.dist) {
				t.Error("it is a link")
			}
			w.exit(pid)
		})
	}
}
