package lossyfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/posixtest"
	"golang.org/x/sys/unix"
)

// mounted mounts a file system until the end of the test.
func mounted(t *testing.T, f *FS) string {
	t.Helper()
	dir := t.TempDir()
	m, err := f.Mount(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Unmount(); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func syncPath(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	must(t, f.Sync(), f.Close())
}

// It is a file system like others.
func TestPosix(t *testing.T) {
	for name, test := range posixtest.All {
		t.Run(name, func(t *testing.T) {
			switch name {
			case "MmapWrite", "MmapExtend", "MmapReadWrite":
				t.Skip("maps a file in the process that serves it")
			case "FcntlFlockLocksFile", "FcntlFlockSetLk", "LockContention":
				t.Skip("locks are the kernel's")
			}
			dir := filepath.Join(mounted(t, New(Strict)), "dir")
			must(t, os.Mkdir(dir, 0o755))
			test(t, dir)
		})
	}
}

// outcomes lists what power failures leave of what make does, each once.
func outcomes(t *testing.T, m Model, describe func(dir string) string, make func(dir string)) map[string]int {
	t.Helper()
	found := map[string]int{}
	for seed := range uint64(60) {
		f := New(m)
		dir := t.TempDir()
		mnt, err := f.Mount(dir)
		must(t, err)
		make(dir)
		after := f.AfterPowerLoss(rand.New(rand.NewPCG(seed, 1)))
		must(t, mnt.Unmount())
		out := t.TempDir()
		must(t, after.Export(out))
		found[describe(out)]++
	}
	return found
}

// contents describes some files.
func contents(names ...string) func(dir string) string {
	return func(dir string) string {
		s := ""
		for _, name := range names {
			b, err := os.ReadFile(filepath.Join(dir, name))
			switch {
			case errors.Is(err, fs.ErrNotExist):
				s += "-"
			case err != nil:
				s += err.Error()
			case len(b) == 0:
				s += "0"
			case len(bytes.Trim(b, "\x00")) == 0:
				s += "z" // zeros only
			default:
				s += string(b[:1])
			}
		}
		return s
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(text), 0o644))
}

func TestPowerLoss(t *testing.T) {
	tests := []struct {
		name    string
		files   []string
		make    func(t *testing.T, dir string)
		strict  string // what must come, and nothing else
		ordered string
	}{
		{
			name: "nothing synced", files: []string{"a"},
			make:   func(t *testing.T, dir string) { write(t, dir+"/a", "A") },
			strict: "- 0 A z", ordered: "- 0 A",
		},
		{
			name: "file synced", files: []string{"a"},
			make:   func(t *testing.T, dir string) { write(t, dir+"/a", "A"); syncPath(t, dir+"/a") },
			strict: "A", ordered: "A",
		},
		{
			name: "all synced", files: []string{"a"},
			make:   func(t *testing.T, dir string) { write(t, dir+"/a", "A"); syncPath(t, dir) },
			strict: "A", ordered: "A",
		},
		{
			name: "names synced, contents not", files: []string{"d/a"},
			make: func(t *testing.T, dir string) {
				must(t, os.Mkdir(dir+"/d", 0o755))
				syncPath(t, dir)
				write(t, dir+"/d/a", "A")
				syncPath(t, dir+"/d")
			},
			strict: "0 A z", ordered: "0 A",
		},
		{
			name: "a directory's own name is its parent's", files: []string{"d/e/a"},
			make: func(t *testing.T, dir string) {
				must(t, os.Mkdir(dir+"/d", 0o755))
				syncPath(t, dir)
				must(t, os.Mkdir(dir+"/d/e", 0o755))
				write(t, dir+"/d/e/a", "A")
				syncPath(t, dir+"/d/e/a")
				syncPath(t, dir+"/d/e")
			},
			strict: "- A", ordered: "A",
		},
		{
			name: "replaced by rename", files: []string{"a", "b"},
			make: func(t *testing.T, dir string) {
				write(t, dir+"/a", "A")
				syncPath(t, dir)
				write(t, dir+"/b", "B")
				syncPath(t, dir+"/b")
				must(t, os.Rename(dir+"/b", dir+"/a"))
			},
			strict: "AB B-", ordered: "AB B-",
		},
		{
			name: "renamed to another directory", files: []string{"d/a", "e/a"},
			make: func(t *testing.T, dir string) {
				must(t, os.Mkdir(dir+"/d", 0o755), os.Mkdir(dir+"/e", 0o755))
				write(t, dir+"/d/a", "A")
				syncPath(t, dir)
				must(t, os.Rename(dir+"/d/a", dir+"/e/a"))
			},
			strict: "A- -A", ordered: "A- -A",
		},
		{
			name: "removed", files: []string{"a", "b"},
			make: func(t *testing.T, dir string) {
				write(t, dir+"/a", "A")
				write(t, dir+"/b", "B")
				syncPath(t, dir)
				must(t, os.Remove(dir+"/a"), os.Remove(dir+"/b"))
			},
			strict: "AB A- -B --", ordered: "AB -B --",
		},
		{
			name: "written in place", files: []string{"a"},
			make: func(t *testing.T, dir string) {
				write(t, dir+"/a", "A")
				syncPath(t, dir)
				f, err := os.OpenFile(dir+"/a", os.O_WRONLY, 0)
				must(t, err)
				for _, text := range []string{"B", "C"} {
					_, err = f.WriteAt([]byte(text), 0)
					must(t, err)
				}
				must(t, f.Close())
			},
			strict: "A B C", ordered: "A B C",
		},
	}
	for _, tt := range tests {
		for m, want := range map[Model]string{Strict: tt.strict, Journaled: tt.ordered} {
			t.Run(fmt.Sprint(tt.name, m), func(t *testing.T) {
				got := outcomes(t, m, contents(tt.files...), func(dir string) { tt.make(t, dir) })
				for _, w := range bytes.Fields([]byte(want)) {
					if got[string(w)] == 0 {
						t.Errorf("%s never came", w)
					}
					delete(got, string(w))
				}
				for g, n := range got {
					t.Errorf("%s came %d times", g, n)
				}
			})
		}
	}
}

// The same seed gives the same file system.
func TestSeed(t *testing.T) {
	describe := func(seed uint64) string {
		f := New(Strict)
		dir := mounted(t, f)
		for i := range 40 {
			write(t, fmt.Sprintf("%s/%02d", dir, i), "x")
		}
		out := t.TempDir()
		must(t, f.AfterPowerLoss(rand.New(rand.NewPCG(seed, 0))).Export(out))
		s := ""
		for i := range 40 {
			s += contents(fmt.Sprintf("%02d", i))(out)
		}
		return s
	}
	if a, b := describe(3), describe(3); a != b {
		t.Errorf("%s\n%s", a, b)
	}
}

func TestExportKeepsEverything(t *testing.T) {
	f := New(Strict)
	dir := mounted(t, f)
	must(t, os.Mkdir(dir+"/d", 0o750))
	write(t, dir+"/d/file", "text")
	must(t, os.Link(dir+"/d/file", dir+"/second"), os.Symlink("nowhere", dir+"/link"))
	must(t, unix.Setxattr(dir+"/d/file", "user.x", []byte("y"), 0))
	must(t, os.Chmod(dir+"/d/file", 0o444), os.Chtimes(dir+"/d/file", time.Unix(5, 0), time.Unix(6, 7)))
	syncPath(t, dir)
	out := t.TempDir()
	must(t, f.AfterPowerLoss(rand.New(rand.NewPCG(1, 1))).Export(out))
	fi, err := os.Stat(out + "/d/file")
	must(t, err)
	second, err := os.Stat(out + "/second")
	must(t, err)
	if !os.SameFile(fi, second) || fi.Mode() != 0o444 || !fi.ModTime().Equal(time.Unix(6, 7)) || fi.Size() != 4 {
		t.Errorf("%v, %v", fi, second)
	}
	buf := make([]byte, 8)
	if n, err := unix.Getxattr(out+"/d/file", "user.x", buf); err != nil || string(buf[:n]) != "y" {
		t.Errorf("xattr %q, %v", buf[:max(n, 0)], err)
	}
	if to, err := os.Readlink(out + "/link"); err != nil || to != "nowhere" {
		t.Errorf("link to %q, %v", to, err)
	}
}

func TestInject(t *testing.T) {
	f := New(Strict)
	dir := mounted(t, f)
	write(t, dir+"/a", "before")
	f.Inject(func(o Op) Verdict {
		switch {
		case o.Kind == Write && o.Path == "a":
			return Verdict{Short: 2}
		case o.Kind == Create && o.Path == "full":
			return Verdict{Errno: unix.ENOSPC}
		case o.Kind == Rename:
			return Verdict{PowerOff: true}
		}
		return Verdict{}
	})
	fd, err := unix.Open(dir+"/a", unix.O_WRONLY, 0)
	must(t, err)
	if n, err := unix.Pwrite(fd, []byte("AFTER"), 0); n != 2 || err != nil {
		t.Errorf("wrote %d bytes, %v", n, err)
	}
	must(t, unix.Close(fd))
	if b, err := os.ReadFile(dir + "/a"); err != nil || string(b) != "AFfore" {
		t.Errorf("%q, %v", b, err)
	}
	if err := os.WriteFile(dir+"/full", nil, 0o644); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("create: %v", err)
	}
	if err := os.Rename(dir+"/a", dir+"/b"); !errors.Is(err, unix.EIO) {
		t.Errorf("rename: %v", err)
	}
	if err := os.Mkdir(dir+"/d", 0o755); !errors.Is(err, unix.EIO) || !f.Off() {
		t.Errorf("after the power failure: %v", err)
	}
	if names := f.root.names; len(names) != 1 || names["a"] == nil {
		t.Errorf("%v", names)
	}
}
