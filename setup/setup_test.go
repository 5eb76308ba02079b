package setup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"condafs/fault"
)

func text(t *testing.T, path string) string {
	t.Helper()
	b, err := read(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func put(t *testing.T, path, s string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(s), mode); err != nil {
		t.Fatal(err)
	}
}

// doAndUndo does a step twice, and undoes it twice.
func doAndUndo(t *testing.T, s Step, check func()) {
	t.Helper()
	if done, err := s.Done(); done || err != nil {
		t.Errorf("%v: done before: %v %v", s, done, err)
	}
	for range 2 {
		if err := s.Do(); err != nil {
			t.Fatal(err)
		}
	}
	if done, err := s.Done(); !done || err != nil {
		t.Errorf("%v: not done: %v %v", s, done, err)
	}
	check()
	for range 2 {
		if err := s.Undo(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFile(t *testing.T) {
	f := &File{filepath.Join(t.TempDir(), "a", "b"), "X=1\n"}
	doAndUndo(t, f, func() {
		if got := text(t, f.Path); got != Header+"X=1\n" {
			t.Errorf("%q", got)
		}
	})
	if _, err := os.Lstat(f.Path); !os.IsNotExist(err) {
		t.Error(err)
	}
	put(t, f.Path, "theirs", 0o600)
	if err := f.Do(); !fault.Is(err, fault.Exists) {
		t.Error(err)
	}
	if err := f.Undo(); err != nil || text(t, f.Path) != "theirs" {
		t.Errorf("%v %q", err, text(t, f.Path))
	}
}

func TestCondarc(t *testing.T) {
	dir := t.TempDir()
	c := &Condarc{filepath.Join(dir, ".condarc"), []string{"/m/unshelved", "/s/shelf: x"}}
	const block = begin + "pkgs_dirs:\n    - /m/unshelved\n    - '/s/shelf: x'\n" + end
	doAndUndo(t, c, func() {
		if got := text(t, c.Path); got != block {
			t.Errorf("%q", got)
		}
	})
	if _, err := os.Lstat(c.Path); !os.IsNotExist(err) {
		t.Error(err)
	}
	// What is there stays, byte for byte, and so do its mode and the link to it.
	for _, old := range []string{"channels:\n  - x # mine\n", "channels: [x]"} {
		put(t, filepath.Join(dir, "dotfile"), old, 0o600)
		if err := os.Symlink("dotfile", c.Path); err != nil {
			t.Fatal(err)
		}
		doAndUndo(t, c, func() {
			if got := text(t, c.Path); got != strings.TrimSuffix(old, "\n")+"\n"+block {
				t.Errorf("%q", got)
			}
		})
		fi, err := os.Lstat(filepath.Join(dir, "dotfile"))
		if err != nil || fi.Mode().Perm() != 0o600 || strings.TrimSuffix(text(t, c.Path), "\n") != strings.TrimSuffix(old, "\n") {
			t.Errorf("%v %v %q", fi, err, text(t, c.Path))
		}
		if to, err := os.Readlink(c.Path); err != nil || to != "dotfile" {
			t.Error(to, err)
		}
		if err := os.Remove(c.Path); err != nil {
			t.Fatal(err)
		}
	}
	for old, kind := range map[string]fault.Kind{"pkgs_dirs: [/old]\n": fault.Exists, "\t: [": fault.Usage, begin + "pkgs_dirs: [/x]\n": fault.Exists} {
		put(t, c.Path, old, 0o600)
		if err := c.Do(); !fault.Is(err, kind) || text(t, c.Path) != old {
			t.Errorf("%q: %v", old, err)
		}
		if err := c.Undo(); err != nil || text(t, c.Path) != old {
			t.Errorf("%q: %v", old, err)
		}
	}
	// An older block is replaced.
	put(t, c.Path, begin+"pkgs_dirs: [/old]\n"+end+"a: b\n", 0o600)
	if err := c.Do(); err != nil || text(t, c.Path) != "a: b\n"+block {
		t.Errorf("%v %q", err, text(t, c.Path))
	}
}
