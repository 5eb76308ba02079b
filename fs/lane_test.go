package fs

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func isLink(t testing.TB, path string) bool {
	t.Helper()
	st, err := os.Lstat(path)
	must(t, err)
	return st.Mode().Type() == os.ModeSymlink
}

func needLeases(t testing.TB) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	write(t, path, "")
	f, err := os.Open(path)
	must(t, err)
	_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
	must(t, f.Close())
	if err != nil {
		t.Skipf("the file system has no leases: %v", err)
	}
}

// What makes a package's directory, and unpacks the archive into it, does so on the native disk. Whatever path it goes by, it finds all
// of it, before and after the view has taken it over.
func TestLane(t *testing.T) {
	needLeases(t)
	m := newMount(t, mountOptions{lanes: true})
	pkgs := filepath.Join(m.dir, "pkgs")
	dir := filepath.Join(pkgs, "tool-1.0-0")
	write(t, dir+".conda", "an archive")
	if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err) // and the kernel remembers that
	}
	must(t, os.Mkdir(dir, 0o755))
	if !isLink(t, dir) {
		t.Fatal("the directory that was made is no link")
	}
	wantErrno(t, os.Mkdir(dir, 0o755), unix.EEXIST)
	must(t, os.MkdirAll(filepath.Join(dir, "info"), 0o755))
	lane, err := filepath.EvalSymlinks(dir)
	must(t, err)
	if rel, err := filepath.Rel(m.store.Dir(), lane); err != nil || !filepath.IsLocal(rel) {
		t.Errorf("it lies in %s", lane)
	}
	must(t, os.Mkdir(filepath.Join(lane, "lib"), 0o755))
	write(t, filepath.Join(lane, "lib", "data"), "data")
	write(t, filepath.Join(dir, "lib", "more"), "more")
	write(t, filepath.Join(dir, "info", "index.json"), "{}")
	write(t, filepath.Join(dir, "info", "paths.json"), `{"paths_version": 1, "paths": [{"_path": "lib/data", "path_type": "hardlink"}]}`)
	if !isLink(t, dir) || !slices.Contains(names(t, pkgs), "tool-1.0-0") {
		t.Error("it is not there as it was")
	}
	write(t, filepath.Join(dir, "info", "repodata_record.json"), "{}")
	if isLink(t, dir) {
		t.Error("it is complete, and a link still")
	}
	for _, by := range []string{dir, lane} {
		wantContent(t, filepath.Join(by, "lib", "data"), "data")
		wantContent(t, filepath.Join(by, "lib", "more"), "more")
	}
	write(t, filepath.Join(lane, "lib", "late"), "late")
	wantContent(t, filepath.Join(dir, "lib", "late"), "late")
	if got := names(t, filepath.Join(dir, "lib")); !slices.Equal(got, []string{"data", "late", "more"}) {
		t.Errorf("it holds %q", got)
	}
	must(t, os.RemoveAll(dir))
	if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	// Once more, and away with it before it is complete.
	must(t, os.Mkdir(dir, 0o755))
	write(t, filepath.Join(dir, "file"), "1")
	must(t, os.RemoveAll(dir))
	if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	must(t, os.Mkdir(dir, 0o755))
	if list, err := os.ReadDir(dir); err != nil || len(list) != 0 {
		t.Errorf("a new one holds %v, %v", list, err)
	}
}
