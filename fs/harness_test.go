package fs

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"condafs/cow"
	"condafs/fault"
	"condafs/hashing"
	"condafs/index"
	"condafs/proc"
)

// testMount is a real mount over a real store, with one explicit session to which
// the test process belongs.
type testMount struct {
	dir     string // the mount point
	store   *index.Store
	engine  *cow.Engine
	server  *Server
	procs   *proc.Linux
	session *cow.Session
	root    string // the session's root below the mount point
	pkg     string // an empty directory of a package in it
	log     *logBuffer
}

// mountOptions are options of newMount.
type mountOptions struct {
	noPassthrough bool
	allowOther    bool
	lanes         bool
	options       []string
	store         string                         // its directory; empty: a new one
	seed          func(*testing.T, *index.Store) // fills the store before the session starts
}

// bothWays runs a test with passthrough and without.
func bothWays(t *testing.T, seed func(*testing.T, *index.Store), test func(*testing.T, *testMount)) {
	t.Helper()
	for _, way := range []struct {
		name          string
		noPassthrough bool
	}{{"passthrough", false}, {"through the daemon", true}} {
		t.Run(way.name, func(t *testing.T) {
			test(t, newMount(t, mountOptions{noPassthrough: way.noPassthrough, seed: seed}))
		})
	}
}

func newMount(t testing.TB, o mountOptions) *testMount {
	t.Helper()
	m := &testMount{dir: filepath.Join(t.TempDir(), "mnt"), log: &logBuffer{}}
	must(t, os.Mkdir(m.dir, 0o755))
	logger := slog.New(slog.NewTextHandler(m.log, nil))
	if o.store == "" {
		o.store = filepath.Join(t.TempDir(), "store")
	}
	var err error
	m.store, err = index.Open(o.store, index.Options{Logger: logger})
	must(t, err)
	t.Cleanup(func() { check(t, m.store.Close()) })
	if o.seed != nil {
		o.seed(t.(*testing.T), m.store)
	}
	m.procs, err = proc.NewLinux()
	must(t, err)
	t.Cleanup(func() { check(t, m.procs.Close()) })
	m.engine, err = cow.New(m.store, cow.Options{Procs: m.procs, Logger: logger, MountPoint: m.dir, Lanes: o.lanes})
	must(t, err)
	t.Cleanup(func() { check(t, m.engine.Close(context.Background())) })
	m.server, err = Mount(m.engine, MountOptions{
		MountPoint: m.dir, AllowOther: o.allowOther, Options: o.options,
		Store: o.store, Socket: "/run/test.sock", Version: "test", Logger: logger, NoPassthrough: o.noPassthrough,
	})
	must(t, err)
	t.Cleanup(func() { m.unmount(t) })
	must(t, neverPoll(m.dir))
	m.session, err = m.engine.StartSession(cow.StartOptions{PID: os.Getpid(), UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), Label: t.Name()})
	must(t, err)
	m.root = filepath.Join(m.dir, ".sessions", m.session.ID())
	m.pkg = filepath.Join(m.root, "pkgs", "test-1.0-0")
	must(t, os.Mkdir(m.pkg, 0o755))
	return m
}

// neverPoll makes the kernel ask for a poll, once, and learn that we know none. Go's
// runtime polls files that it opens, in a way that stops a whole processor of its
// scheduler: tests open files of the mount that they have to answer for.
func neverPoll(mountPoint string) error {
	fd, err := unix.Open(filepath.Join(mountPoint, infoName), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	if err == unix.EINTR {
		err = nil
	}
	return errors.Join(err, unix.Close(fd))
}

// unmount leaves no mount behind, whatever the test did.
func (m *testMount) unmount(t testing.TB) {
	if err := m.server.Unmount(false); err != nil {
		t.Errorf("%v", err)
		check(t, m.server.Unmount(true))
	}
	select {
	case <-m.server.Done():
	case <-time.After(10 * time.Second):
		t.Error("the test has left something open on the mount")
	}
	if t.Failed() {
		t.Logf("log:\n%s", m.log)
	}
}

// node returns our node of a path below the session's root.
func (m *testMount) node(t testing.TB, path string) *node {
	t.Helper()
	view := m.session.View()
	n := view.Root()
	rel, err := filepath.Rel(m.root, path)
	must(t, err)
	for name := range strings.SplitSeq(rel, "/") {
		next, _, err := view.Lookup(n, name)
		must(t, err)
		view.Forget(next, 1) // the kernel still holds it
		n = next
	}
	nd := m.server.fs.nodes.get(n.ID() + idOffset)
	if nd == nil {
		t.Fatalf("the kernel doesn't know %s", path)
	}
	return nd
}

// passedThrough reports whether the kernel reads an open file's native file itself.
func (m *testMount) passedThrough(t testing.TB, path string) bool {
	nd := m.node(t, path)
	nd.open.mu.Lock()
	defer nd.open.mu.Unlock()
	return nd.open.backing != nil
}

// logBuffer collects a log that several goroutines write.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// seedPackage commits a package that all users share. Files ending in "/" are
// empty directories; a value that starts with "-> " makes a symlink.
func seedPackage(t testing.TB, s *index.Store, name string, files map[string]string) {
	t.Helper()
	mtime := time.Date(2020, 1, 2, 3, 4, 5, 6000, time.UTC).UnixNano()
	hold := s.NewHold()
	defer hold.Release()
	b := index.NewTreeBuilder(index.TreeEntry{Mode: 0o755, Mtime: mtime})
	for path, content := range files {
		e := index.TreeEntry{Kind: index.KindFile, Mode: 0o644, Mtime: mtime, Size: int64(len(content))}
		if dir, ok := strings.CutSuffix(path, "/"); ok {
			path = dir
			e = index.TreeEntry{Kind: index.KindDir, Mode: 0o755, Mtime: mtime}
		} else if target, ok := strings.CutPrefix(content, "-> "); ok {
			e = index.TreeEntry{Kind: index.KindSymlink, Mode: 0o777, Mtime: mtime, Link: target, Size: int64(len(target))}
		} else {
			sums, err := s.PutBlob(hold, strings.NewReader(content), 0)
			must(t, err)
			e.Digest = sums.Blake3
		}
		must(t, b.Add(path, e))
	}
	tree, err := b.Build()
	must(t, err)
	_, err = s.Update(context.Background(), index.CommitInfo{Label: "seed"}, func(tx *index.Tx) error {
		d, err := tx.PutTree(tree)
		if err != nil {
			return err
		}
		return tx.Put("shared/pkgs/"+name, treeEntry(tree, d))
	})
	must(t, err)
}

func treeEntry(tree *index.Tree, d hashing.Digest) index.Entry {
	return index.Entry{Kind: index.KindTree, Mode: 0o755, Mtime: tree.At(0).Mtime, Digest: d, Size: tree.Bytes(), Content: tree.ContentDigest()}
}

// python runs a script of testdata in a process of its own: a page fault of ours
// on the mount could stop the very goroutines that have to serve it.
func python(t *testing.T, script string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "python3", append([]string{filepath.Join("testdata", script)}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

func wantErrno(t testing.TB, err error, want unix.Errno) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

func wantKind(t testing.TB, err error, want fault.Kind, words ...string) {
	t.Helper()
	if !fault.Is(err, want) {
		t.Fatalf("got %v, of kind %v, want kind %v", err, fault.KindOf(err), want)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q doesn't say %q", err, w)
		}
	}
}

func write(t testing.TB, path, content string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(content), 0o644))
}

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return string(b)
}

func wantContent(t testing.TB, path, want string) {
	t.Helper()
	if got := read(t, path); got != want {
		t.Errorf("%s: got %q, want %q", filepath.Base(path), got, want)
	}
}

// asRoot skips what needs privileges.
func asRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}
