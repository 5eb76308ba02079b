package fs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"condafs/cow"
	"condafs/fault"
	"condafs/index"
	"condafs/proc"
)

func TestUnmountInUse(t *testing.T) {
	m := newMount(t, mountOptions{})
	path := filepath.Join(m.pkg, "f")
	write(t, path, "content")
	f, err := os.Open(path)
	must(t, err)
	wantKind(t, m.server.Unmount(false), fault.Busy, "in use", "fuser", "--lazy")
	must(t, m.server.Unmount(true))
	if _, err := os.Stat(filepath.Join(m.dir, ".condafs")); err == nil {
		t.Error("the mount is still there after a lazy unmount")
	}
	buf := make([]byte, 7)
	if _, err := f.ReadAt(buf, 0); err != nil || string(buf) != "content" {
		t.Errorf("an open file reads %q, %v", buf, err)
	}
	must(t, f.Close())
	m.server.Wait()
	must(t, m.server.Unmount(false)) // again
}

func TestUnmountedByOthers(t *testing.T) {
	asRoot(t)
	m := newMount(t, mountOptions{})
	must(t, unix.Unmount(m.dir, 0))
	<-m.server.Done()
	must(t, m.server.Unmount(false))
}

func TestMountThroughSymlink(t *testing.T) {
	m := newMount(t, mountOptions{})
	link := filepath.Join(t.TempDir(), "link")
	dir := t.TempDir()
	must(t, os.Symlink(dir, link))
	s, err := Mount(m.engine, MountOptions{MountPoint: link, Store: m.store.Dir(), Options: []string{"max_read=65536"}})
	must(t, err)
	if _, err := os.Lstat(filepath.Join(link, ".condafs")); err != nil {
		t.Error(err)
	}
	must(t, Unmount(link, false))
	s.Wait()
}

// TestUserMount serves a mount of a user without privileges: by fusermount3, and
// without passthrough, of which it says so once.
func TestUserMount(t *testing.T) {
	asRoot(t)
	if _, err := findHelper(helperPlaces); err != nil {
		t.Fatal(err)
	}
	const uid = 65534 // nobody: fusermount3 wants a user with a name
	dir := t.TempDir()
	reachable(t, filepath.Join(dir, "x"))
	must(t, os.Chown(dir, uid, uid))
	cmd := worker("ordinary", dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// ordinaryWorker gives a mount namespace what ordinary systems have, a FUSE device
// for everybody, and runs the worker "user" as the owner of a directory.
func ordinaryWorker(args []string) error {
	dir := args[0]
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return err
	}
	dev := filepath.Join(dir, "fuse")
	if err := unix.Mknod(dev, unix.S_IFCHR, int(unix.Mkdev(10, 229))); err != nil {
		return err
	}
	if err := unix.Chmod(dev, 0o666); err != nil {
		return err
	}
	if err := unix.Mount(dev, fuseDevice, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	cmd := worker("user", dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: st.Uid, Gid: st.Gid}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

func userWorker(args []string) (err error) {
	dir := args[0]
	var log logBuffer
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, &log)
		}
	}()
	logger := slog.New(slog.NewTextHandler(&log, nil))
	store, err := index.Open(filepath.Join(dir, "store"), index.Options{Logger: logger})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	procs, err := proc.NewLinux()
	if err != nil {
		return err
	}
	mnt := filepath.Join(dir, "mnt")
	if err := os.Mkdir(mnt, 0o755); err != nil {
		return err
	}
	engine, err := cow.New(store, cow.Options{Procs: procs, Logger: logger, MountPoint: mnt})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, engine.Close(context.Background()), procs.Close()) }()
	if err := CheckMountPoint("/etc/ssl", false); !fault.Is(err, fault.Permission) {
		return fmt.Errorf("somebody else's directory: %v", err)
	}
	s, err := Mount(engine, MountOptions{MountPoint: mnt, Store: store.Dir(), Logger: logger})
	if err != nil {
		return err
	}
	defer s.Wait()
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Unmount(true))
		}
	}()
	if _, err := Mount(engine, MountOptions{MountPoint: dir, AllowOther: true}); !fault.Is(err, fault.Permission) && !fault.Is(err, fault.Exists) {
		return fmt.Errorf("allow_other: %v", err)
	}
	for _, name := range []string{"a", "b"} {
		path := filepath.Join(mnt, "pkgs", name)
		if err := os.WriteFile(path, []byte("content"), 0o644); err != nil {
			return err
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != "content" {
			return fmt.Errorf("read %q, %v", b, err)
		}
	}
	if n := strings.Count(log.String(), "no passthrough"); n != 1 {
		return fmt.Errorf("told %d times that there is no passthrough", n)
	}
	f, err := os.Open(filepath.Join(mnt, "pkgs", "a"))
	if err != nil {
		return err
	}
	if err := s.Unmount(false); !fault.Is(err, fault.Busy) {
		return fmt.Errorf("unmount in use: %v", err)
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := s.Unmount(false); err != nil {
		return err
	}
	if err := Unmount(mnt, false); !fault.Is(err, fault.NotMounted) {
		return fmt.Errorf("unmount again: %v", err)
	}
	return nil
}

// TestStoreOnOverlay has backing files that lie on an overlay themselves, as in a
// container.
func TestStoreOnOverlay(t *testing.T) {
	asRoot(t)
	base, merged := t.TempDir(), t.TempDir()
	for _, d := range []string{"lower", "upper", "work"} {
		must(t, os.Mkdir(filepath.Join(base, d), 0o755))
	}
	must(t, unix.Mount("overlay", merged, "overlay", 0, fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", base)))
	t.Cleanup(func() { check(t, unix.Unmount(merged, unix.MNT_DETACH)) }) // the kernel closes backing files late
	m := newMount(t, mountOptions{store: filepath.Join(merged, "store"), seed: seedTwo})
	path := filepath.Join(m.root, "pkgs", "one-1.0-0", "lib", "a.txt")
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	if !m.passedThrough(t, path) {
		t.Error("not passed through")
	}
	wantContent(t, path, "a")
	write(t, path, "changed")
	wantContent(t, path, "changed")
	must(t, f.Close())
}

func TestPanicIsAnswered(t *testing.T) {
	var log logBuffer
	st := panicHandler(slog.New(slog.NewTextHandler(&log, nil)))("boom")
	if st != fuse.EIO {
		t.Errorf("got %v", st)
	}
	if s := log.String(); !strings.Contains(s, "boom") || !strings.Contains(s, "TestPanicIsAnswered") {
		t.Errorf("the log lacks the panic or its stack: %s", s)
	}
}

// TestPanicKeepsTheMount puts a node into the table that can't be used.
func TestPanicKeepsTheMount(t *testing.T) {
	m := newMount(t, mountOptions{})
	path := filepath.Join(m.pkg, "f")
	write(t, path, "content")
	nd := m.node(t, path)
	swap := func(n *node) {
		shard := m.server.fs.nodes.shard(nd.id)
		shard.mu.Lock()
		defer shard.mu.Unlock()
		shard.m[nd.id] = n
	}
	swap(&node{id: nd.id, over: nd.over})
	_, err := os.Open(path)
	wantErrno(t, err, unix.EIO)
	swap(nd)
	wantContent(t, path, "content")
	if !strings.Contains(m.log.String(), "panic") {
		t.Error("the panic was not logged")
	}
}

func TestStatus(t *testing.T) {
	var log logBuffer
	f := &fileSystem{log: slog.New(slog.NewTextHandler(&log, nil))}
	tests := []struct {
		err    error
		want   fuse.Status
		logged bool
	}{
		{nil, fuse.OK, false},
		{unix.ENOENT, fuse.ENOENT, false},
		{fault.New("write", "x", fault.Full, nil), fuse.Status(unix.ENOSPC), false},
		{fault.New("open blob", "x", fault.Corrupt, unix.ENOENT), fuse.EIO, true},
		{fault.New("read", "x", fault.Other, unix.EIO), fuse.EIO, true},
	}
	for _, tt := range tests {
		before := len(log.String())
		if got := f.status("op", tt.err); got != tt.want {
			t.Errorf("%v: got %v, want %v", tt.err, got, tt.want)
		}
		if logged := len(log.String()) > before; logged != tt.logged {
			t.Errorf("%v: logged %v, want %v", tt.err, logged, tt.logged)
		}
	}
}

// TestUnmountDespiteCopies unmounts while another mount namespace has a copy.
func TestUnmountDespiteCopies(t *testing.T) {
	asRoot(t)
	m := newMount(t, mountOptions{})
	other := exec.Command("cat")
	other.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	in, err := other.StdinPipe()
	must(t, err)
	must(t, other.Start())
	defer func() {
		check(t, in.Close())
		check(t, other.Wait())
	}()
	must(t, m.server.Unmount(false))
	m.server.Wait()
}
