//go:build condafs_faults

package cow

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"condafs/internal/failpoint"
)

// TestRecoveryFollowsNoLink: between the manifest of a package and the daemon's
// death its client has put links and FIFOs where directories and files were. The
// next daemon must neither take what they lead to, which has the content that the
// manifest names, nor wait.
func TestRecoveryFollowsNoLink(t *testing.T) {
	f := makePackage(t, "tool-1.0-0", nil)
	for name, swap := range map[string]func(pkg, outside string) error{
		"a link for a directory": func(pkg, outside string) error {
			return errors.Join(os.RemoveAll(filepath.Join(pkg, "lib")), os.Symlink(outside, filepath.Join(pkg, "lib")))
		},
		"a link for a file": func(pkg, outside string) error {
			return errors.Join(os.Remove(filepath.Join(pkg, "lib/data")), os.Symlink(filepath.Join(outside, "data"), filepath.Join(pkg, "lib/data")))
		},
		"a link for the package": func(pkg, outside string) error {
			return errors.Join(os.Rename(pkg, pkg+".away"), os.Symlink(filepath.Dir(outside), pkg))
		},
		"a FIFO for a file": func(pkg, _ string) error {
			return errors.Join(os.Remove(filepath.Join(pkg, "lib/data")), unix.Mkfifo(filepath.Join(pkg, "lib/data"), 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			outside := filepath.Join(t.TempDir(), "lib")
			precious := filepath.Join(outside, "data")
			if err := errors.Join(os.Mkdir(outside, 0o755), os.WriteFile(precious, []byte(f.files["lib/data"]), 0o640)); err != nil {
				t.Fatal(err)
			}
			disarm := w.death(failpoint.ManifestRenamed)
			pid, c := w.process()
			c.install(f)
			w.await()
			pkg := filepath.Join(c.s.upper(), "pkgs", f.dist)
			w.die()
			disarm()
			if err := swap(pkg, outside); err != nil {
				t.Fatal(err)
			}
			w.procs.exit(pid)
			w.open()
			w.await()
			fi, err := os.Lstat(precious)
			if err != nil || fi.Mode() != 0o640 {
				t.Errorf("what lies outside: %v, %v", fi, err)
			}
			if e := w.head(shared + f.dist); e != nil {
				t.Errorf("published: %+v", e)
			}
			w.tidy()
		})
	}
}
