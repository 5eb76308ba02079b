package fs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"condafs/cow"
	"condafs/index"
)

// names lists a directory, sorted.
func names(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func TestMountRoot(t *testing.T) {
	m := newMount(t, mountOptions{})
	if got, want := names(t, m.dir), []string{".condafs", ".head", ".sessions", "pkgs", "rattler", "unshelved"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for name, to := range map[string]string{"pkgs": "pkgs", "unshelved": "pkgs", "rattler": "rattler"} {
		target, err := os.Readlink(filepath.Join(m.dir, name))
		must(t, err)
		if want := ".sessions/" + m.session.ID() + "/" + to; target != want {
			t.Errorf("%s leads to %q, want %q", name, target, want)
		}
		st, err := os.Lstat(filepath.Join(m.dir, name))
		must(t, err)
		if st.Mode().Type() != os.ModeSymlink {
			t.Errorf("%s is %v", name, st.Mode())
		}
	}
	var info struct {
		Socket, Store, Version string
		PID                    int
	}
	must(t, json.Unmarshal([]byte(read(t, filepath.Join(m.dir, ".condafs"))), &info))
	if info.Socket != "/run/test.sock" || info.Store != m.store.Dir() || info.PID != os.Getpid() || info.Version != "test" {
		t.Errorf("got %+v", info)
	}
	var st unix.Statfs_t
	must(t, unix.Statfs(m.dir, &st))
	if st.Blocks == 0 || st.Namelen != 255 {
		t.Errorf("statfs: %+v", st)
	}
	typ, err := mountedAt(m.dir)
	must(t, err)
	if typ != "fuse.condafs" {
		t.Errorf("mounted as %q", typ)
	}
}

// TestFixedNodesStay tries to change what is the mount's own.
func TestFixedNodesStay(t *testing.T) {
	m := newMount(t, mountOptions{})
	session := filepath.Join(m.dir, ".sessions", m.session.ID())
	tests := map[string]error{
		"create":         os.WriteFile(filepath.Join(m.dir, "x"), nil, 0o644),
		"mkdir":          os.Mkdir(filepath.Join(m.dir, "x"), 0o755),
		"session":        os.Mkdir(filepath.Join(m.dir, ".sessions", "mine"), 0o755),
		"unlink":         os.Remove(filepath.Join(m.dir, "pkgs")),
		"rename":         os.Rename(session, filepath.Join(m.dir, ".sessions", "other")),
		"rename in root": os.Rename(filepath.Join(m.dir, "pkgs"), filepath.Join(m.dir, "q")),
		"symlink":        os.Symlink("x", filepath.Join(m.dir, ".sessions", "l")),
		"chmod":          os.Chmod(m.dir, 0o777),
		"write":          os.WriteFile(filepath.Join(m.dir, ".condafs"), []byte("x"), 0o644),
		"truncate":       os.Truncate(filepath.Join(m.dir, ".condafs"), 0),
		"xattr":          unix.Setxattr(m.dir, "user.x", []byte("x"), 0),
		"head":           os.Mkdir(filepath.Join(m.dir, ".head", "x"), 0o755),
	}
	for name, err := range tests {
		if !errors.Is(err, unix.EROFS) {
			t.Errorf("%s: got %v, want EROFS", name, err)
		}
	}
	_, err := os.Lstat(filepath.Join(m.dir, "none"))
	wantErrno(t, err, unix.ENOENT)
	_, err = os.Lstat(filepath.Join(m.dir, ".sessions", "none"))
	wantErrno(t, err, unix.ENOENT)
	wantErrno(t, os.Rename(filepath.Join(m.pkg), filepath.Join(m.dir, ".head", "x")), unix.EXDEV)
}

// run runs a shell script as another user.
func run(t *testing.T, uid uint32, script string) (string, error) {
	t.Helper()
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// reachable lets other users walk to the mount point.
func reachable(t *testing.T, dir string) {
	t.Helper()
	for d := filepath.Dir(dir); d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		must(t, os.Chmod(d, 0o755))
	}
}

func TestSessionsArePrivate(t *testing.T) {
	asRoot(t)
	m := newMount(t, mountOptions{allowOther: true})
	reachable(t, m.dir)
	const other = 61234
	write(t, filepath.Join(m.pkg, "secret"), "secret")
	for _, script := range []string{
		"cat %[1]s/secret", "ls %[1]s", "ls %[2]s", "echo x >%[1]s/secret",
	} {
		if out, err := run(t, other, fmt.Sprintf(script, m.pkg, m.root)); err == nil || !strings.Contains(out, "ermission denied") {
			t.Errorf("%s: %v, %s", script, err, out)
		}
	}
	cmd := worker("stranger", m.dir, m.session.ID())
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: other, Gid: other}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// strangerWorker uses a mount on which somebody else has a session.
func strangerWorker(args []string) error {
	mount, foreign := args[0], args[1]
	link, err := os.Readlink(filepath.Join(mount, "pkgs"))
	if err != nil {
		return err
	}
	own := strings.Split(link, "/")[1]
	sessions, err := os.ReadDir(filepath.Join(mount, ".sessions"))
	if err != nil {
		return err
	}
	if own == foreign || len(sessions) != 1 || sessions[0].Name() != own {
		return fmt.Errorf("own session %s, foreign %s, listed %v", own, foreign, sessions)
	}
	if _, err := os.ReadDir(filepath.Join(mount, ".sessions", foreign)); !errors.Is(err, unix.EACCES) {
		return fmt.Errorf("listing another's session: %v", err)
	}
	pkg := filepath.Join(mount, "pkgs", "own-1-0")
	if err := os.Mkdir(pkg, 0o755); err != nil {
		return err
	}
	file := filepath.Join(pkg, "f")
	if err := os.WriteFile(file, []byte("mine"), 0o644); err != nil {
		return err
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "mine" {
		return fmt.Errorf("read %q, %v", b, err)
	}
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		return err
	}
	if int(st.Uid) != os.Getuid() || int(st.Gid) != os.Getgid() {
		return fmt.Errorf("own file shows %d:%d", st.Uid, st.Gid)
	}
	return nil
}

func TestNotAllowedOthers(t *testing.T) {
	asRoot(t)
	m := newMount(t, mountOptions{})
	reachable(t, m.dir)
	if out, err := run(t, 61234, "ls "+m.dir); err == nil || !strings.Contains(out, "ermission denied") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestReadOnlyMount(t *testing.T) {
	asRoot(t)
	m := newMount(t, mountOptions{})
	_ = m
	dir := t.TempDir()
	s, err := Mount(m.engine, MountOptions{MountPoint: dir, Options: []string{"ro,noexec"}})
	must(t, err)
	wantErrno(t, os.WriteFile(filepath.Join(dir, ".sessions", m.session.ID(), "pkgs", "x"), nil, 0o644), unix.EROFS)
	must(t, s.Unmount(false))
	s.Wait()
}

// TestSessionEnds looks what the kernel keeps of a session that is over.
func TestSessionEnds(t *testing.T) {
	m := newMount(t, mountOptions{seed: seedTwo})
	other := exec.Command("cat") // lives until its input ends
	in, err := other.StdinPipe()
	must(t, err)
	must(t, other.Start())
	defer func() {
		check(t, in.Close())
		check(t, other.Wait())
	}()
	s, err := m.engine.StartSession(cow.StartOptions{PID: other.Process.Pid, UID: uint32(os.Getuid()), GID: uint32(os.Getgid())})
	must(t, err)
	root := filepath.Join(m.dir, ".sessions", s.ID())
	file := filepath.Join(root, "pkgs", "one-1.0-0", "lib", "a.txt")
	write(t, filepath.Join(root, "pkgs", "dirty"), "x")
	wantContent(t, file, "a")
	open, err := os.Open(file)
	must(t, err)
	defer open.Close()
	cwd, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(t, err)
	leave := sync.OnceValue(func() error { return unix.Close(cwd) })
	defer leave()

	must(t, m.engine.Discard(context.Background(), s.ID()))
	eventually(t, "the session can't be entered any more", func() bool {
		_, err := os.Lstat(root)
		return errors.Is(err, unix.ENOENT)
	})
	err = unix.Mkdirat(cwd, "pkgs/late", 0o755)
	if !errors.Is(err, unix.EROFS) && !errors.Is(err, unix.ESTALE) && !errors.Is(err, unix.ENOENT) {
		t.Errorf("writing into an ended session: %v", err)
	}
	buf := make([]byte, 1)
	if _, err := open.ReadAt(buf, 0); err != nil || string(buf) != "a" {
		t.Errorf("an open file of an ended session reads %q, %v", buf, err)
	}
	must(t, open.Close())
	eventually(t, "the kernel has forgotten the session's files", func() bool { return s.View().References() == 0 })
	must(t, leave())
	eventually(t, "the session is gone", func() bool {
		_, ok := m.engine.Session(s.ID())
		_, err := os.Lstat(root)
		return !ok && errors.Is(err, unix.ENOENT)
	})
}

func TestHeadFollows(t *testing.T) {
	m := newMount(t, mountOptions{seed: func(t *testing.T, s *index.Store) {
		seedPackage(t, s, "first-1.0-0", map[string]string{"lib/a": "content of a"})
	}})
	head := filepath.Join(m.dir, ".head", "pkgs")
	wantContent(t, filepath.Join(head, "first-1.0-0", "lib", "a"), "content of a")
	wantErrno(t, os.WriteFile(filepath.Join(head, "first-1.0-0", "x"), nil, 0o644), unix.EROFS)
	wantErrno(t, os.Remove(filepath.Join(head, "first-1.0-0", "lib", "a")), unix.EROFS)
}
