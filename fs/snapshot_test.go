package fs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"condafs/index"
	"condafs/internal/longrun"
)

// seedTwo fills a store with two packages.
func seedTwo(t *testing.T, s *index.Store) {
	seedPackage(t, s, "one-1.0-0", map[string]string{
		"bin/tool":        "#!/bin/sh\necho tool\n",
		"lib/a.txt":       "a",
		"lib/deep/b.txt":  strings.Repeat("b", 100_000),
		"lib/link":        "-> a.txt",
		"empty/":          "",
		"info/index.json": "{}",
	})
	seedPackage(t, s, "two-2.0-0", map[string]string{"lib/a.txt": "a", "lib/c.txt": "c"})
}

func TestSnapshotBelow(t *testing.T) {
	bothWays(t, seedTwo, func(t *testing.T, m *testMount) {
		pkgs := filepath.Join(m.root, "pkgs")
		one := filepath.Join(pkgs, "one-1.0-0")
		wantContent(t, filepath.Join(one, "lib", "a.txt"), "a")
		wantContent(t, filepath.Join(one, "lib", "link"), "a")
		if got := names(t, one); !slices.Equal(got, []string{"bin", "empty", "info", "lib"}) {
			t.Errorf("got %q", got)
		}

		t.Run("rename a whole directory and back", func(t *testing.T) {
			moved := filepath.Join(pkgs, "moved")
			must(t, os.Rename(one, moved))
			_, err := os.Lstat(one)
			wantErrno(t, err, unix.ENOENT)
			wantContent(t, filepath.Join(moved, "lib", "deep", "b.txt"), strings.Repeat("b", 100_000))
			must(t, os.Rename(filepath.Join(moved, "lib"), filepath.Join(moved, "empty", "lib")))
			wantContent(t, filepath.Join(moved, "empty", "lib", "link"), "a")
			must(t, os.Rename(filepath.Join(moved, "empty", "lib"), filepath.Join(moved, "lib")))
			must(t, os.Rename(moved, one))
			wantContent(t, filepath.Join(one, "lib", "a.txt"), "a")
		})
		t.Run("write", func(t *testing.T) {
			write(t, filepath.Join(one, "lib", "a.txt"), "changed")
			wantContent(t, filepath.Join(one, "lib", "a.txt"), "changed")
			wantContent(t, filepath.Join(pkgs, "two-2.0-0", "lib", "a.txt"), "a")
			wantContent(t, filepath.Join(m.dir, ".head", "pkgs", "one-1.0-0", "lib", "a.txt"), "a")
		})
		t.Run("replace a directory", func(t *testing.T) {
			two := filepath.Join(pkgs, "two-2.0-0")
			must(t, os.RemoveAll(two))
			must(t, os.Mkdir(two, 0o755))
			if got := names(t, two); len(got) != 0 {
				t.Errorf("the new directory shows %q", got)
			}
			write(t, filepath.Join(two, "fresh"), "fresh")
			if got := names(t, two); !slices.Equal(got, []string{"fresh"}) {
				t.Errorf("got %q", got)
			}
		})
	})
}

// TestCopyUpUnderReader opens a blob for writing while it is open for reading,
// which the kernel refuses for one node id when it reads the blob itself.
func TestCopyUpUnderReader(t *testing.T) {
	changes := map[string]func(path string) error{
		"open for writing": func(path string) error {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				return err
			}
			if _, err := f.WriteAt([]byte("NEW"), 0); err != nil {
				return err
			}
			return f.Close()
		},
		"open with truncation": func(path string) error { return os.WriteFile(path, []byte("NEW"), 0o644) },
		"append": func(path string) error {
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				return err
			}
			if _, err := f.WriteString("NEW"); err != nil {
				return err
			}
			return f.Close()
		},
		"truncate": func(path string) error { return os.Truncate(path, 1) },
		"chmod":    func(path string) error { return os.Chmod(path, 0o600) },
	}
	after := map[string]string{"open for writing": "NEW", "open with truncation": "NEW", "append": "oldNEW", "truncate": "o", "chmod": "old"}
	seed := func(t *testing.T, s *index.Store) {
		files := map[string]string{}
		for name := range changes {
			files[name] = "old"
		}
		seedPackage(t, s, "one-1.0-0", files)
	}
	bothWays(t, seed, func(t *testing.T, m *testMount) {
		for name, change := range changes {
			t.Run(name, func(t *testing.T) {
				path := filepath.Join(m.root, "pkgs", "one-1.0-0", name)
				reader, err := os.Open(path)
				must(t, err)
				defer reader.Close()
				buf := make([]byte, 10)
				n, _ := reader.ReadAt(buf, 0)
				if string(buf[:n]) != "old" {
					t.Errorf("before: %q", buf[:n])
				}
				must(t, change(path))
				wantContent(t, path, after[name])
				again, err := os.OpenFile(path, os.O_RDWR, 0)
				must(t, err)
				must(t, again.Close())
				// What the old descriptor shows is the old file or the new one, but whole.
				n, _ = reader.ReadAt(buf, 0)
				if s := string(buf[:n]); s != "old" && s != after[name] {
					t.Errorf("the old descriptor reads %q", s)
				}
			})
		}
	})
}

// TestPassthroughIsUsed looks whether the kernel reads and writes native files.
func TestPassthroughIsUsed(t *testing.T) {
	asRoot(t)
	m := newMount(t, mountOptions{seed: seedTwo})
	lower := filepath.Join(m.root, "pkgs", "one-1.0-0", "lib", "a.txt")
	upper := filepath.Join(m.pkg, "upper")
	write(t, upper, "upper")
	for _, path := range []string{lower, upper} {
		a, err := os.Open(path)
		must(t, err)
		if !m.passedThrough(t, path) {
			t.Errorf("%s is not passed through", path)
		}
		b, err := os.Open(path)
		must(t, err)
		must(t, a.Close())
		must(t, b.Close())
	}
}

// TestExecute runs a program that was written through the mount, by both its names.
func TestExecute(t *testing.T) {
	bothWays(t, nil, func(t *testing.T, m *testMount) {
		script := fmt.Sprintf("cd %s && cp /bin/sh copy && ln copy hard && ./copy -c 'echo ran' && ./hard -c 'echo ran'", m.pkg)
		out, err := exec.Command("/bin/sh", "-c", script).CombinedOutput()
		if err != nil || string(out) != "ran\nran\n" {
			t.Errorf("%v: %s", err, out)
		}
	})
}

// TestManyNames lists a directory that needs many replies, plain and with attributes.
func TestManyNames(t *testing.T) {
	count := 20_000
	if !longrun.Wanted() {
		count = 1_500
	}
	bothWays(t, nil, func(t *testing.T, m *testMount) {
		want := make(map[string]bool, count)
		for i := range count {
			name := fmt.Sprintf("file-with-some-name-%05d", i)
			must(t, unix.Mknod(filepath.Join(m.pkg, name), unix.S_IFREG|0o644, 0))
			want[name] = true
		}
		for range 3 {
			got := names(t, m.pkg)
			if len(got) != count {
				t.Fatalf("got %d names, want %d", len(got), count)
			}
			for _, name := range got {
				if !want[name] {
					t.Fatalf("got %q", name)
				}
			}
		}
		must(t, os.RemoveAll(m.pkg))
	})
}

// TestNodesAreForgotten checks that the node table follows the kernel's counts:
// when the kernel has dropped its caches, the nodes are gone.
func TestNodesAreForgotten(t *testing.T) {
	asRoot(t)
	m := newMount(t, mountOptions{seed: seedTwo})
	for i := range 500 {
		write(t, filepath.Join(m.pkg, fmt.Sprint(i)), "x")
	}
	for range 2 {
		entries, err := os.ReadDir(m.pkg)
		must(t, err)
		for _, e := range entries {
			_, err := e.Info()
			must(t, err)
		}
	}
	if n := m.server.fs.nodes.len(); n < 500 {
		t.Errorf("only %d nodes are known", n)
	}
	must(t, os.RemoveAll(m.pkg))
	eventually(t, "nodes of removed files are forgotten", func() bool { return m.server.fs.nodes.len() < 20 })
	m.server.fs.files.mu.Lock()
	defer m.server.fs.files.mu.Unlock()
	if n := len(m.server.fs.files.m); n != 0 {
		t.Errorf("%d handles are left", n)
	}
}
