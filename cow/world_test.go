package cow

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"condafs/fault"
	"condafs/index"
	"condafs/proc"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// fakeProcs is a process table whose processes tests start and end.
type fakeProcs struct {
	mu    sync.Mutex
	next  int
	ticks uint64
	procs map[int]*fakeProc
}

type fakeProc struct {
	proc.Info
	waiters map[*func(proc.Exit)]bool
}

func newFakeProcs() *fakeProcs {
	p := &fakeProcs{next: 1, procs: make(map[int]*fakeProc)}
	p.spawn(0)
	return p
}

// spawn starts a child of ppid.
func (p *fakeProcs) spawn(ppid int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	pid := p.next
	p.next++
	p.startLocked(pid, ppid)
	return pid
}

func (p *fakeProcs) startLocked(pid, ppid int) {
	p.ticks++
	p.procs[pid] = &fakeProc{
		Info:    proc.Info{ID: proc.ID{PID: pid, Start: p.ticks}, PPID: ppid},
		waiters: make(map[*func(proc.Exit)]bool),
	}
}

// reuse gives the pid of a dead process away again.
func (p *fakeProcs) reuse(pid, ppid int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.procs[pid] != nil {
		panic("the process lives")
	}
	p.startLocked(pid, ppid)
}

// exit ends a process. Its children become those of process 1.
func (p *fakeProcs) exit(pid int) { p.end(pid, proc.Exit{Known: true}) }

func (p *fakeProcs) kill(pid int) { p.end(pid, proc.Exit{Known: true, Signal: 9}) }

func (p *fakeProcs) end(pid int, e proc.Exit) { p.die(pid, e)() }

// die ends a process of which nobody hears before tell is called.
func (p *fakeProcs) die(pid int, e proc.Exit) (tell func()) {
	p.mu.Lock()
	dead := p.procs[pid]
	delete(p.procs, pid)
	for _, c := range p.procs {
		if c.PPID == pid {
			c.PPID = 1
		}
	}
	waiters := slices.Collect(maps.Keys(dead.waiters))
	p.mu.Unlock()
	return func() {
		for _, f := range waiters {
			(*f)(e)
		}
	}
}

func (p *fakeProcs) Identify(tid int) (proc.Info, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if q := p.procs[tid]; q != nil {
		return q.Info, nil
	}
	return proc.Info{}, fault.New("find process", fmt.Sprint(tid), fault.NotFound, nil)
}

func (p *fakeProcs) Alive(id proc.ID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := p.procs[id.PID]
	return q != nil && q.ID == id
}

func (p *fakeProcs) Watch(id proc.ID, f func(proc.Exit)) (func(), error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := p.procs[id.PID]
	if q == nil || q.ID != id {
		go f(proc.Exit{})
		return func() {}, nil
	}
	q.waiters[&f] = true
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(q.waiters, &f)
	}, nil
}

// world is a store, an engine and processes to test with.
type world struct {
	t     tb
	dir   string
	procs *fakeProcs
	store *index.Store
	e     *Engine
	log   *lockedBuffer
	now   time.Time
	mount string

	// Whose packages are shared: in most tests everybody's.
	sharing Sharing
	trusted []uint32
	quota   Quota

	laneTick time.Duration
}

// me is the user of most tests. It is not the store's owner, unless root is not
// who runs the tests.
const me = 4711

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func newWorld(t testing.TB) *world {
	t.Helper()
	dir, err := memDir(t)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return newWorldIn(t, dir)
}

// newWorldIn makes one in a directory that the caller removes.
func newWorldIn(t testing.TB, dir string) *world {
	t.Helper()
	if t, ok := t.(*testing.T); ok {
		t.Parallel() // much of the time is spent waiting
	}
	w := newWorldAt(t, dir)
	t.Cleanup(w.close)
	return w
}

// memDir makes a directory, in memory where that has extended attributes: a new store costs a disk more than all else that most tests
// do. The caller removes it.
func memDir(t testing.TB) (string, error) {
	dir, err := os.MkdirTemp("/dev/shm", "condafs-test-")
	if err == nil && unix.Setxattr(dir, "user.condafs", nil, 0) != nil {
		err = errors.Join(errors.New("no extended attributes"), os.RemoveAll(dir))
	}
	if err != nil {
		return os.MkdirTemp(t.TempDir(), "")
	}
	return dir, nil
}

// newWorldAt makes one in a directory. Close it.
func newWorldAt(t tb, dir string) *world {
	w := closedWorld(t, dir)
	w.open()
	return w
}

// closedWorld is one whose daemon does not run yet.
func closedWorld(t tb, dir string) *world {
	return &world{t: t, dir: dir, procs: newFakeProcs(), log: new(lockedBuffer), now: time.Unix(1_800_000_000, 0), mount: "/mnt/condafs", sharing: ShareAll}
}

func (w *world) open() {
	w.t.Helper()
	var err error
	if w.store, err = index.Open(w.dir, index.Options{Logger: slog.New(slog.DiscardHandler)}); err != nil {
		w.t.Fatal(err)
	}
	if w.e, err = New(w.store, w.options()); err != nil {
		w.t.Fatal(errors.Join(err, w.store.Close()))
	}
}

func (w *world) options() Options {
	log := slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	return Options{Procs: w.procs, Logger: log, MountPoint: w.mount, Sharing: w.sharing, Trusted: w.trusted, Quota: w.quota, Lanes: true, laneTick: w.laneTick, Now: func() time.Time { return w.now }}
}

// close stops the daemon in order.
func (w *world) close() {
	if w.e == nil {
		return
	}
	closing, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := w.e.Close(closing); err != nil {
		w.t.Errorf("close: %v", err)
	}
	w.closeStore()
	if w.t.Failed() {
		w.t.Logf("log:\n%s", w.log)
	}
}

func (w *world) closeStore() {
	if err := w.store.Close(); err != nil {
		w.t.Errorf("close store: %v", err)
	}
	w.e = nil
}

// await waits until the engine has done what it does in the background.
func (w *world) await() { w.e.await() }

// process starts a process with a session of its own.
func (w *world) process() (pid int, c *client) {
	w.t.Helper()
	pid = w.procs.spawn(1)
	return pid, w.client(pid)
}

// client returns what the process sees.
func (w *world) client(pid int) *client { return w.clientAs(pid, me) }

func (w *world) clientAs(pid int, uid uint32) *client {
	w.t.Helper()
	s, err := w.e.SessionFor(pid, uid, uid, false)
	if err != nil {
		w.t.Fatal(err)
	}
	return &client{t: w.t, s: s, v: s.View()}
}

// exit ends a process and waits for what follows from it.
func (w *world) exit(pid int) {
	w.procs.exit(pid)
	w.await()
}

// head returns an entry of the head.
func (w *world) head(path string) *index.Entry {
	w.t.Helper()
	snap := w.store.PinHead()
	defer snap.Release()
	e, ok, err := snap.Get(path)
	if err != nil {
		w.t.Fatal(err)
	}
	if !ok {
		return nil
	}
	return &e
}

// headFile returns the content of a file of the head.
func (w *world) headFile(path string) string {
	w.t.Helper()
	e := w.head(path)
	if e == nil {
		w.t.Fatalf("%s is not in the head", path)
	}
	f, err := w.store.OpenBlob(e.Digest)
	if err != nil {
		w.t.Fatal(err)
	}
	b, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil {
		w.t.Fatal(err)
	}
	return string(b)
}

// tb is what helpers need of a test, also of one of package rapid.
type tb interface {
	Helper()
	Error(args ...any)
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Failed() bool
	Logf(format string, args ...any)
}

// client is a program that works on a view by paths, as the kernel would.
type client struct {
	t tb
	w *world // where a test needs it
	s *Session
	v *View
}

// in looks the parent of a path up and calls f with it.
func (c *client) in(p string, f func(dir *Node, name string) error) error {
	dir := c.v.Root()
	parent, name := path.Split(p)
	var held []*Node
	defer func() {
		for _, n := range slices.Backward(held) {
			c.v.Forget(n, 1)
		}
	}()
	for _, part := range strings.Split(strings.TrimSuffix(parent, "/"), "/") {
		if part == "" {
			continue
		}
		n, _, err := c.v.Lookup(dir, part)
		if err != nil {
			return err
		}
		held = append(held, n)
		dir = n
	}
	return f(dir, name)
}

// on looks a path up and calls f with it.
func (c *client) on(p string, f func(n *Node, a Attr) error) error {
	return c.in(p, func(dir *Node, name string) error {
		n, a, err := c.v.Lookup(dir, name)
		if err != nil {
			return err
		}
		defer c.v.Forget(n, 1)
		return f(n, a)
	})
}

func (c *client) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// open opens a file for writing, made if need be. The caller calls done.
func (c *client) open(p string, flags int) (h *Handle, done func(), err error) {
	err = c.in(p, func(dir *Node, name string) error {
		n, _, err := c.v.Lookup(dir, name)
		if err == nil {
			defer c.v.Forget(n, 1)
			h, err = c.v.Open(n, flags)
			return err
		}
		n, _, h, err = c.v.Create(dir, name, flags, 0o644)
		if err == nil {
			c.v.Forget(n, 1)
		}
		return err
	})
	return h, func() { c.must(h.Release()) }, err
}

func (c *client) tryWrite(p, content string) error {
	if done, err := c.pass(p, func(native string) error { return os.WriteFile(native, []byte(content), 0o644) }); done {
		return err
	}
	h, done, err := c.open(p, unix.O_WRONLY|unix.O_TRUNC)
	if err != nil {
		return err
	}
	defer done()
	_, err = h.WriteAt([]byte(content), 0)
	return err
}

func (c *client) write(p, content string) {
	c.t.Helper()
	c.must(c.tryWrite(p, content))
}

func (c *client) tryMkdir(p string) error {
	if done, err := c.pass(p, func(native string) error { return os.Mkdir(native, 0o755) }); done {
		return err
	}
	pid := 0
	if c.getsLanes() {
		pid = os.Getpid()
	}
	return c.in(p, func(dir *Node, name string) error {
		n, _, err := c.v.Unpack(dir, name, 0o755, pid)
		if err == nil {
			c.v.Forget(n, 1)
		}
		return err
	})
}

// mkdirs makes a directory and its parents.
func (c *client) mkdirs(p string) {
	c.t.Helper()
	for i := range len(p) + 1 {
		if i == len(p) || p[i] == '/' {
			if err := c.tryMkdir(p[:i]); err != nil && !errors.Is(err, unix.EEXIST) {
				c.t.Fatal(err)
			}
		}
	}
}

func (c *client) symlink(p, target string) {
	c.t.Helper()
	if done, err := c.pass(p, func(native string) error { return os.Symlink(target, native) }); done {
		c.must(err)
		return
	}
	c.must(c.in(p, func(dir *Node, name string) error {
		n, _, err := c.v.Symlink(dir, name, target)
		if err == nil {
			c.v.Forget(n, 1)
		}
		return err
	}))
}

func (c *client) rename(from, to string) {
	c.t.Helper()
	c.must(c.tryRename(from, to))
}

func (c *client) tryRename(from, to string) error {
	return c.in(from, func(olddir *Node, oldname string) error {
		return c.in(to, func(newdir *Node, newname string) error {
			return c.v.Rename(olddir, oldname, newdir, newname, 0)
		})
	})
}

// tryRemove removes a file or a whole directory.
func (c *client) tryRemove(p string) error {
	if done, err := c.pass(p, os.RemoveAll); done {
		return err
	}
	var names []string
	isDir := false
	err := c.on(p, func(n *Node, a Attr) error {
		if isDir = a.IsDir(); !isDir {
			return nil
		}
		list, err := c.v.ReadDir(n)
		for _, e := range list {
			names = append(names, e.Name)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := c.tryRemove(p + "/" + name); err != nil {
			return err
		}
	}
	return c.in(p, func(dir *Node, name string) error {
		if isDir {
			return c.v.Rmdir(dir, name)
		}
		return c.v.Unlink(dir, name)
	})
}

func (c *client) remove(p string) {
	c.t.Helper()
	c.must(c.tryRemove(p))
}

// tryRead returns a file's content, or a link's target.
func (c *client) tryRead(p string) (content string, err error) {
	if done, err := c.pass(p, func(native string) error {
		content, err = readNative(native)
		return err
	}); done {
		return content, err
	}
	err = c.on(p, func(n *Node, a Attr) error {
		if a.Mode&unix.S_IFMT == unix.S_IFLNK {
			content, err = c.v.Readlink(n)
			return err
		}
		h, err := c.v.Open(n, unix.O_RDONLY)
		if err != nil {
			return err
		}
		b, err := io.ReadAll(io.NewSectionReader(h, 0, 1<<40))
		content = string(b)
		return errors.Join(err, h.Release())
	})
	return content, err
}

func (c *client) read(p string) string {
	c.t.Helper()
	s, err := c.tryRead(p)
	c.must(err)
	return s
}

func (c *client) exists(p string) bool {
	if native, ok := c.beyond(p); ok {
		_, err := os.Lstat(native)
		return err == nil
	}
	return c.on(p, func(*Node, Attr) error { return nil }) == nil
}

func (c *client) list(p string) []string {
	c.t.Helper()
	var names []string
	if done, err := c.pass(p, func(native string) (err error) {
		names, err = listNative(native)
		return err
	}); done {
		c.must(err)
		return names
	}
	c.must(c.on(p, func(n *Node, _ Attr) error {
		list, err := c.v.ReadDir(n)
		for _, e := range list {
			names = append(names, e.Name)
		}
		return err
	}))
	slices.Sort(names)
	return names
}

// fixture is a package as a channel has it.
type fixture struct {
	dist    string
	files   map[string]string // all of its members
	links   map[string]string
	archive string // the .conda file's content
	record  string // info/repodata_record.json
}

func (f *fixture) fn() string { return f.dist + ".conda" }

// makePackage makes one with some files and a link.
func makePackage(t tb, dist string, files map[string]string) *fixture {
	t.Helper()
	f := &fixture{dist: dist, files: maps.Clone(files), links: map[string]string{"lib/link": "data"}}
	if f.files == nil {
		f.files = map[string]string{"lib/data": "data of " + dist, "bin/tool": "#!/bin/sh\n# " + dist}
	}
	parts := strings.Split(dist, "-")
	n := len(parts)
	id := map[string]any{
		"name": strings.Join(parts[:n-2], "-"), "version": parts[n-2], "build": parts[n-1], "build_number": 0, "subdir": "noarch",
	}
	var entries []map[string]any
	for _, p := range slices.Sorted(maps.Keys(f.files)) {
		sum := sha256.Sum256([]byte(f.files[p]))
		entries = append(entries, map[string]any{"_path": p, "path_type": "hardlink", "sha256": hex.EncodeToString(sum[:]), "size_in_bytes": len(f.files[p])})
	}
	for p := range f.links {
		entries = append(entries, map[string]any{"_path": p, "path_type": "softlink"})
	}
	f.files["info/index.json"] = toJSON(t, id)
	f.files["info/paths.json"] = toJSON(t, map[string]any{"paths_version": 1, "paths": entries})

	var b bytes.Buffer
	z := zip.NewWriter(&b)
	add := func(name, content string) {
		w, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store})
		if err == nil {
			_, err = w.Write([]byte(content))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	add("metadata.json", `{"conda_pkg_format_version": 2}`)
	add("pkg-"+dist+".tar.zst", f.tarball(t, func(p string) bool { return !strings.HasPrefix(p, "info/") }))
	add("info-"+dist+".tar.zst", f.tarball(t, func(p string) bool { return strings.HasPrefix(p, "info/") }))
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	f.archive = b.String()
	sum := sha256.Sum256([]byte(f.archive))
	id["fn"], id["url"], id["sha256"], id["size"] = f.fn(), "https://channel/noarch/"+f.fn(), hex.EncodeToString(sum[:]), len(f.archive)
	id["channel"] = "https://channel"
	f.record = toJSON(t, id)
	return f
}

func toJSON(t tb, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func (f *fixture) tarball(t tb, which func(string) bool) string {
	t.Helper()
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(z)
	for _, p := range slices.Sorted(maps.Keys(f.files)) {
		if which(p) {
			err = errors.Join(err, w.WriteHeader(&tar.Header{Name: p, Mode: 0o644, Size: int64(len(f.files[p])), Typeflag: tar.TypeReg}))
			_, werr := w.Write([]byte(f.files[p]))
			err = errors.Join(err, werr)
		}
	}
	for p, target := range f.links {
		if which(p) {
			err = errors.Join(err, w.WriteHeader(&tar.Header{Name: p, Mode: 0o777, Linkname: target, Typeflag: tar.TypeSymlink}))
		}
	}
	if err := errors.Join(err, w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// download does what conda does to get an archive.
func (c *client) download(f *fixture) {
	c.t.Helper()
	c.write("pkgs/"+f.fn()+".partial", f.archive)
	c.rename("pkgs/"+f.fn()+".partial", "pkgs/"+f.fn())
}

// extract does what conda does to unpack it, but for the record.
func (c *client) extract(f *fixture) {
	c.t.Helper()
	for _, p := range slices.Sorted(maps.Keys(f.files)) {
		c.mkdirs(path.Dir("pkgs/" + f.dist + "/" + p))
		c.write("pkgs/"+f.dist+"/"+p, f.files[p])
	}
	for p, target := range f.links {
		c.symlink("pkgs/"+f.dist+"/"+p, target)
	}
}

// finish writes the record, the last thing that conda does before it looks at what is there.
func (c *client) finish(f *fixture) {
	c.t.Helper()
	l := c.laneOf(f)
	c.write("pkgs/"+f.dist+"/info/repodata_record.json", f.record)
	if l != nil {
		if _, err := c.v.takeOver(l, false); err != nil {
			c.v.laneTrouble(l, err)
		}
	}
}

// install does all of it.
func (c *client) install(f *fixture) {
	c.t.Helper()
	c.download(f)
	c.extract(f)
	c.finish(f)
}

// has checks that a package is there, whole.
func (c *client) has(f *fixture) {
	c.t.Helper()
	for p, content := range f.files {
		if got := c.read("pkgs/" + f.dist + "/" + p); got != content {
			c.t.Errorf("%s/%s holds %q", f.dist, p, got)
		}
	}
	for p, target := range f.links {
		if got := c.read("pkgs/" + f.dist + "/" + p); got != target {
			c.t.Errorf("%s/%s leads to %q", f.dist, p, got)
		}
	}
}
