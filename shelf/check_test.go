package shelf

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"condafs/conda"
	"condafs/fault"
)

// What somebody changes on the shelf, through an environment or directly, is found and mended; who holds the changed file
// keeps it.
func TestCheck(t *testing.T) {
	edit := func(path string) error {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteString("edited")
		return errors.Join(err, f.Close())
	}
	tests := map[string]func(dir string) error{
		"edited":  func(dir string) error { return edit(filepath.Join(dir, "lib", "x.py")) },
		"touched": func(dir string) error { return os.Chtimes(filepath.Join(dir, "lib", "x.py"), time.Now(), time.Now()) },
		"mode":    func(dir string) error { return os.Chmod(filepath.Join(dir, "lib", "x.py"), 0o600) },
		"removed": func(dir string) error {
			return writable(filepath.Join(dir, "lib"), func() error { return os.Remove(filepath.Join(dir, "lib", "x.py")) })
		},
		"another link": func(dir string) error {
			return writable(dir, func() error {
				return errors.Join(os.Remove(filepath.Join(dir, "link")), os.Symlink("/etc/passwd", filepath.Join(dir, "link")))
			})
		},
		"a directory for a file": func(dir string) error {
			x := filepath.Join(dir, "lib", "x.py")
			return writable(filepath.Dir(x), func() error { return errors.Join(os.Remove(x), os.MkdirAll(filepath.Join(x, "deep"), 0o755)) })
		},
		"a stranger": func(dir string) error {
			return writable(filepath.Join(dir, "lib"), func() error { return os.WriteFile(filepath.Join(dir, "lib", "x.pyc"), nil, 0o644) })
		},
		"no directory": func(dir string) error {
			return writable(dir, func() error { return removeAll(filepath.Join(dir, "lib")) })
		},
	}
	for name, spoil := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Copy)
			w.put("a-1-0", conda.TrustVerified, then, files("a"))
			if found, err := w.shelf.Check(context.Background(), CheckOptions{}); err != nil || len(found) > 0 {
				t.Fatalf("damage on a new shelf: %+v, %v", found, err)
			}
			if err := spoil(filepath.Join(w.shelf.Path(), "a-1-0")); err != nil {
				t.Fatal(err)
			}
			found, err := w.shelf.Check(context.Background(), CheckOptions{Dry: true})
			if err != nil || len(found) == 0 || found[0].Mended {
				t.Fatalf("to look: %+v, %v", found, err)
			}
			found, err = w.shelf.Check(context.Background(), CheckOptions{})
			if err != nil || len(found) == 0 || !found[0].Mended {
				t.Fatalf("to mend: %+v, %v", found, err)
			}
			if found, err = w.shelf.Check(context.Background(), CheckOptions{Dry: true}); err != nil || len(found) > 0 {
				t.Errorf("afterwards: %+v, %v", found, err)
			}
			if got := w.read("a-1-0/lib/x.py"); got != "a" {
				t.Errorf("the file holds %q", got)
			}
		})
	}
}

// conda makes a file writable before it removes it, under all of its names. Nobody is told of that, and it is undone.
func TestReadOnlyFileOfAnEnvironmentThatGoes(t *testing.T) {
	for _, mode := range []Mode{Copy, Link} {
		w := newWorld(t, mode)
		w.put("a-1-0", conda.TrustVerified, then, files("a"))
		at := filepath.Join(w.shelf.Path(), "a-1-0", "lib", "empty")
		environment := filepath.Join(t.TempDir(), "empty")
		check := func(want fs.FileMode, damaged bool, dry bool) {
			t.Helper()
			found, err := w.shelf.Check(context.Background(), CheckOptions{Dry: dry})
			if err != nil || len(found) > 0 != damaged {
				t.Errorf("%s: %+v, %v", mode, found, err)
			}
			if fi, err := os.Stat(at); err != nil || fi.Mode() != want {
				t.Errorf("%s: it has mode %v, %v", mode, fi.Mode(), err)
			}
		}
		check(0o444, false, true)
		if err := errors.Join(os.Link(at, environment), os.Chmod(environment, 0o644), os.Remove(environment)); err != nil {
			t.Fatal(err)
		}
		check(0o644, false, true)
		check(0o444, false, false)
		if err := os.Chmod(at, 0o555); err != nil {
			t.Fatal(err)
		}
		check(0o555, true, true)
	}
}

// What a disk changes by itself shows by its bytes alone. A file that is the blob itself is the store's to look at.
func TestCheckOfBytes(t *testing.T) {
	for _, mode := range []Mode{Copy, Link} {
		w := newWorld(t, mode)
		w.put("a-1-0", conda.TrustVerified, then, files("original"))
		at := filepath.Join(w.shelf.Path(), "a-1-0", "lib", "x.py")
		was, err := os.Stat(at)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.WriteFile(at, []byte("0riginal"), 0), os.Chtimes(at, was.ModTime(), was.ModTime())); err != nil {
			t.Fatal(err)
		}
		check := func(o CheckOptions, want int, mended bool) {
			t.Helper()
			found, err := w.shelf.Check(context.Background(), o)
			if err != nil || len(found) != want || want > 0 && (found[0].Mended != mended || found[0].Path != "a-1-0/lib/x.py") {
				t.Errorf("%s, %+v: %+v, %v", mode, o, found, err)
			}
		}
		check(CheckOptions{}, 0, false)
		if mode == Link {
			check(CheckOptions{Full: true}, 0, false)
			continue
		}
		var read int
		pace := func(_ context.Context, bytes int) error {
			read += bytes
			return nil
		}
		check(CheckOptions{Dry: true, Full: true, Pace: pace}, 1, false)
		if read < len("original") {
			t.Errorf("it was told of %d bytes", read)
		}
		check(CheckOptions{Full: true}, 1, true)
		check(CheckOptions{Full: true}, 0, false)
		if got := w.read("a-1-0/lib/x.py"); got != "original" {
			t.Errorf("it holds %q", got)
		}
		stop := errors.New("enough")
		if _, err := w.shelf.Check(context.Background(), CheckOptions{Full: true, Pace: func(context.Context, int) error { return stop }}); !errors.Is(err, stop) {
			t.Error(err)
		}
	}
}

// An edit in place of a file that is the blob itself: the environment keeps it, the mount never shows it, and the package
// leaves the shelf as long as the store has no other copy of its bytes.
func TestEditOfLinkedFile(t *testing.T) {
	w := newWorld(t, Link)
	w.put("a-1-0", conda.TrustVerified, then, files("original"))
	environment := filepath.Join(t.TempDir(), "x.py")
	if err := os.Link(filepath.Join(w.shelf.Path(), "a-1-0", "lib", "x.py"), environment); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(environment, []byte("edited!!"), 0o644); err != nil {
		t.Fatal(err)
	}
	found, err := w.shelf.Check(context.Background(), CheckOptions{})
	if err != nil || len(found) != 1 || found[0].Mended {
		t.Fatalf("%+v, %v", found, err)
	}
	if err := w.shelf.Settled(); !fault.Is(err, fault.Corrupt) {
		t.Errorf("to put it back: %v", err)
	}
	if w.has("a-1-0") {
		t.Error("the shelf still offers it")
	}
	if b, err := os.ReadFile(environment); err != nil || string(b) != "edited!!" {
		t.Errorf("the environment has %q, %v", b, err)
	}
}
