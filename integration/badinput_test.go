package integration

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"condafs/control"
)

// failing runs condafs and demands one exit status and one clear line that says these things.
func failing(t *testing.T, status int, says []string, args ...string) {
	t.Helper()
	cmd := exec.Command(needBinary(t), args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	exit := new(exec.ExitError)
	if !errors.As(err, &exit) {
		t.Fatalf("condafs %s: %v; want exit status %d\n%s", strings.Join(args, " "), err, status, stderr.String())
	}
	text := strings.TrimSpace(stderr.String())
	if exit.ExitCode() != status {
		t.Errorf("condafs %s: exit status %d, want %d: %s", strings.Join(args, " "), exit.ExitCode(), status, text)
	}
	for _, want := range says {
		if !strings.Contains(text, want) {
			t.Errorf("condafs %s does not say %q: %s", strings.Join(args, " "), want, text)
		}
	}
	// Usage errors may add a line that names --help.
	if lines := strings.Count(text, "\n") + 1; text == "" || lines > 2 || lines > 1 && status != 2 {
		t.Errorf("condafs %s: want one clear line, got:\n%s", strings.Join(args, " "), text)
	}
}

// TestBadStoresAndMountPoints is about what `condafs mount` must refuse, in the foreground and in the background.
func TestBadStoresAndMountPoints(t *testing.T) {
	t.Parallel()
	dir := testDir(t)
	in := func(name string) string { return filepath.Join(dir, name) }
	for _, d := range []string{"mnt", "foreign", "full-mnt"} {
		if err := os.Mkdir(in(d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"foreign/precious.txt", "full-mnt/precious.txt", "file"} {
		if err := os.WriteFile(in(f), []byte("precious"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	held := newMount(t)
	newer := in("newer-store")
	n := mountStore(t, newer, in("newer-mnt"))
	n.umount()
	format := filepath.Join(newer, "condafs-store.json")
	b, err := os.ReadFile(format)
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.Replace(b, []byte(`1`), []byte(`999`), 1)
	if err := os.WriteFile(format, changed, 0o644); err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		name   string
		status int
		says   []string
		args   []string
	}{
		{"foreign store", 2, []string{in("foreign"), "not a condafs store"}, []string{"--store", in("foreign"), in("mnt")}},
		{"store is a file", 1, []string{in("file")}, []string{"--store", in("file"), in("mnt")}},
		{"newer store", 1, []string{"format 999"}, []string{"--store", newer, in("mnt")}},
		{"held store", 1, []string{held.store}, []string{"--store", held.store, in("mnt")}},
		{"missing mount point", 1, []string{in("missing")}, []string{"--store", in("s1"), in("missing")}},
		{"mount point is a file", 2, []string{in("file")}, []string{"--store", in("s1"), in("file")}},
		{"mount point is not empty", 1, []string{in("full-mnt")}, []string{"--store", in("s1"), in("full-mnt")}},
		{"mount point is busy", 1, []string{held.point}, []string{"--store", in("s1"), held.point}},
		{"unknown flag", 2, []string{"--no-such-flag"}, []string{"--no-such-flag", in("mnt")}},
		{"store below mount point", 2, []string{in("mnt")}, []string{"--store", in("mnt/store"), in("mnt")}},
	}
	for _, c := range cases {
		for _, how := range []string{"foreground", "background"} {
			t.Run(c.name+"/"+how, func(t *testing.T) {
				args := []string{"mount"}
				if how == "foreground" {
					args = append(args, "-f")
				}
				failing(t, c.status, c.says, append(append(args, "--log-file", in("log")), c.args...)...)
				if isMounted(t, in("mnt")) {
					t.Error("something was mounted")
				}
			})
		}
	}
	for _, f := range []string{"foreign/precious.txt", "full-mnt/precious.txt", "file"} {
		if b, err := os.ReadFile(in(f)); err != nil || string(b) != "precious" {
			t.Errorf("%s: %q, %v", f, b, err)
		}
	}
	held.mustBeIntact()
}

func TestNothingMounted(t *testing.T) {
	dir := testDir(t)
	for _, args := range [][]string{{"status"}, {"sessions"}, {"ls"}, {"log"}, {"gc"}, {"verify"}, {"commit"}, {"discard", "abc"}, {"run", "--", "true"}, {"import", dir}} {
		t.Run(args[0], func(t *testing.T) {
			t.Setenv("CONDAFS_MOUNT", dir)
			failing(t, 4, nil, args...)
		})
	}
	failing(t, 4, []string{dir}, "umount", dir)
}

// TestReadOnlyStore: nothing can be mounted from a store that cannot be written, and nothing waits or crashes.
func TestReadOnlyStore(t *testing.T) {
	t.Parallel()
	tmpfs := newTmpfs(t, "64m")
	dir := testDir(t)
	m := mountStore(t, filepath.Join(tmpfs, "store"), filepath.Join(dir, "mnt"))
	m.umount()
	if err := unix.Mount("", tmpfs, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	failing(t, 1, []string{"read-only"}, "mount", "--log-file", filepath.Join(dir, "log"), "--store", m.store, m.point)
	failing(t, 1, []string{"read-only"}, "mount", "-f", "--store", filepath.Join(tmpfs, "new"), m.point)
}

// newTmpfs mounts a small file system for a store.
func newTmpfs(t *testing.T, size string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount a tmpfs")
	}
	dir := filepath.Join(testDir(t), "tmpfs")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size+",mode=0755"); err != nil {
		t.Skipf("cannot mount a tmpfs here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestFullStore: a client that fills the disk gets ENOSPC and fails as it would anywhere. Nothing that was committed is
// lost, and once there is room the next client works, without the daemon being started again.
func TestFullStore(t *testing.T) {
	t.Parallel()
	tmpfs := newTmpfs(t, "48m")
	s, env := serve(t), envs(t)
	m := mountStore(t, filepath.Join(tmpfs, "store"), filepath.Join(testDir(t), "mnt"))
	first := conda(t, s, m.pkgs(), env("first", 0), "app00")
	atOnce(t, first)
	mustBeRight(t, first)
	m.settle()
	m.headMustHold("app00")
	hog := filepath.Join(tmpfs, "hog")
	fill(t, hog)
	clients := []*client{conda(t, s, m.pkgs(), env("full", 0), "app03"), conda(t, s, m.pkgs(), env("full", 1), "app03").under(m), rattler(t, s, m.rattler(), env("full", 2), "app03")}
	atOnce(t, clients...)
	for _, c := range clients {
		mustNotLie(t, c)
	}
	if why := clients[0].complaint(); !strings.Contains(why, "space") {
		t.Errorf("a client on a full disk says: %q", why)
	}
	if err := os.Remove(hog); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", tmpfs, "", unix.MS_REMOUNT, "size=400m"); err != nil {
		t.Fatal(err)
	}
	m.headMustHold("app00")
	m.verify()
	// What could not be committed for want of room waits, and follows with the next commit.
	last := []*client{conda(t, s, m.pkgs(), env("room", 0), "app03"), rattler(t, s, m.rattler(), env("room", 1), "app03")}
	atOnce(t, last...)
	mustBeRight(t, last...)
	m.settle()
	m.headMustHold("app00,app03")
	m.mustBeIntact()
}

// fill writes a file until there is no room left, and leaves a little.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var size int64
	chunk := make([]byte, 1<<20)
	for {
		n, err := f.Write(chunk)
		size += int64(n)
		if errors.Is(err, unix.ENOSPC) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(max(0, size-(2<<20))); err != nil {
		t.Fatal(err)
	}
}

// TestBadPackages has clients leave bad things under good names. None of it reaches the head, all of it is kept in
// quarantine and named by `condafs status`, and good clients beside are not disturbed.
func TestBadPackages(t *testing.T) {
	t.Parallel()
	s, env, m := serve(t), envs(t), newMount(t)
	p := needTools(t)
	kinds := []string{
		"truncated_archive", "garbage_archive", "archive_of_another", "record_with_wrong_hash", "record_with_wrong_name",
		"record_is_garbage", "changed_file", "missing_file", "extra_file", "paths_leave_package", "paths_absolute", "paths_twice",
		"symlink_out", "bomb", "archive_with_dotdot", "archive_with_absolute",
	}
	var evils, goods []*client
	for i, kind := range kinds {
		name := fmt.Sprintf("lib%02d", i+i/5) // every sixth is no .conda
		evils = append(evils, pythonClient(t, kind, "evil.py", "--channel", p.channel, "--pkgs", m.pkgs(), "--name", name, kind))
	}
	goods = several(2, func(i int) *client { return conda(t, s, m.pkgs(), env("beside", i), "pure20,data-files") })
	atOnce(t, append(evils, goods...)...)
	mustSucceed(t, evils...)
	mustBeRight(t, goods...)
	m.settle()
	m.headMustHold("pure20,data-files")
	quarantine, packages := m.status().Quarantine, m.packages()
	for i, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			var said struct{ Path string }
			decodeLast(t, evils[i], &said)
			found := false
			for _, q := range quarantine {
				found = found || q.Path == "pkgs/"+said.Path && q.Reason != ""
			}
			if !found {
				t.Errorf("condafs status does not name %s: %+v", said.Path, quarantine)
			}
			// A good client that finds the sound archive without its directory unpacks it, as conda does, and what
			// that makes is right: the judge compares every byte in the end.
			pkg := packages["pkgs/"+strings.TrimSuffix(said.Path, ".conda")]
			if _, err := os.Lstat(filepath.Join(m.head(), said.Path)); err == nil && (!pkg.Extracted || pkg.Trust != "verified") {
				t.Errorf("%s reached the head: %+v", said.Path, pkg)
			}
		})
	}
	out := string(m.condafs("status"))
	if !strings.Contains(out, "uarantine") {
		t.Errorf("condafs status for people does not name the quarantine: %s", out)
	}
	m.mustBeIntact()
}

// Unusual names are not bad ones: they go through the overlay, the store and the head unharmed.
func TestUnusualNames(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	p := needTools(t)
	c := pythonClient(t, "odd names", "evil.py", "--channel", p.channel, "--pkgs", m.pkgs(), "odd_names")
	atOnce(t, c)
	mustSucceed(t, c)
	m.settle()
	for _, name := range []string{strings.Repeat("x", 255), "\xff\xfe\x80", "new\nline", " ", "\u202e"} {
		b, err := os.ReadFile(filepath.Join(m.head(), "odd-names", name))
		if err != nil || string(b) != name {
			t.Errorf("%q: %q, %v", name, b, err)
		}
	}
	out, err := exec.Command("find", filepath.Join(m.head(), "odd-names"), "-name", "bottom").Output()
	if err != nil || !bytes.Contains(out, []byte("/bottom")) {
		t.Errorf("the file below PATH_MAX: %v", err)
	}
	m.mustBeIntact()
}

// TestDamagedStore: damage on the disk is found by verify, which names what it affects, with exit status 3.
func TestDamagedStore(t *testing.T) {
	t.Parallel()
	s, env, m := serve(t), envs(t), newMount(t, "--scrub=off")
	c := conda(t, s, m.pkgs(), env("first", 0), "lib00")
	atOnce(t, c)
	mustBeRight(t, c)
	m.settle()
	files := query[control.PackageFiles](m, "ls", one(t, m.head(), "lib00-", "")[len(m.head())+1:])
	var damaged control.File
	for _, f := range files.Entries {
		if f.Size > 1000 && f.Blake3 != "" {
			damaged = f
		}
	}
	var object string
	err := filepath.WalkDir(filepath.Join(m.store, "objects"), func(path string, _ os.DirEntry, err error) error {
		if strings.ReplaceAll(strings.TrimPrefix(path, filepath.Join(m.store, "objects")), "/", "") == damaged.Blake3 {
			object = path
		}
		return err
	})
	if err != nil || object == "" {
		t.Fatalf("no object of %+v: %v", damaged, err)
	}
	b, err := os.ReadFile(object)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.Chmod(object, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(object, b, 0o444); err != nil {
		t.Fatal(err)
	}
	check := func(args ...string) {
		t.Helper()
		cmd := m.commandFor(append([]string{"verify"}, args...)...)
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != 3 {
			t.Errorf("condafs verify %v: %v: %s; want exit status 3", args, err, out)
		}
		if !bytes.Contains(out, []byte("lib00-")) {
			t.Errorf("condafs verify %v does not name the package: %s", args, out)
		}
	}
	check("--full")
	check("--full", "--json")
	if err := os.Truncate(object, 10); err != nil {
		t.Fatal(err)
	}
	check()
	// Mend it by hand: no other test is about this, and the end of this one verifies.
	b[len(b)/2] ^= 1
	if err := os.WriteFile(object, b, 0o444); err != nil {
		t.Fatal(err)
	}
	m.mustBeIntact()
}
