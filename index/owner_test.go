package index

import (
	"os"
	"path/filepath"
	"testing"

	"condafs/fault"
)

// TestStoreIsItsOwnersAlone: a directory that others could put something into is
// closed to them, or refused.
func TestStoreIsItsOwnersAlone(t *testing.T) {
	for _, tt := range []struct {
		name  string
		uid   int
		mode  os.FileMode
		kind  fault.Kind // Other: it opens
		after os.FileMode
	}{
		{"closed", -1, 0o700, fault.Other, 0o700},
		{"others may pass", -1, 0o711, fault.Other, 0o711},
		{"a umask of the group's", -1, 0o775, fault.Other, 0o755},
		{"open to all", -1, 0o777 | os.ModeSticky, fault.Other, 0o755 | os.ModeSticky},
		{"another user's", 12345, 0o777, fault.Permission, 0o777},
		{"another user's, closed", 12345, 0o700, fault.Permission, 0o700},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.uid >= 0 && os.Geteuid() != 0 {
				t.Skip("only root can give a directory away")
			}
			dir := filepath.Join(t.TempDir(), "store")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(dir, tt.mode); err != nil {
				t.Fatal(err)
			}
			if tt.uid >= 0 {
				if err := os.Chown(dir, tt.uid, tt.uid); err != nil {
					t.Fatal(err)
				}
			}
			s, err := Open(dir, Options{})
			switch {
			case err == nil:
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				if tt.kind != fault.Other {
					t.Error("it was opened")
				}
			case !fault.Is(err, tt.kind):
				t.Error(err)
			}
			if fi, err := os.Stat(dir); err != nil || fi.Mode()&^os.ModeDir != tt.after {
				t.Errorf("%v, %v; want mode %v", fi.Mode(), err, tt.after)
			}
			// Nothing was made in what was refused.
			if l, err := os.ReadDir(dir); err != nil || tt.kind != fault.Other && len(l) != 0 {
				t.Errorf("%v, %v", l, err)
			}
			if tt.kind != fault.Other {
				return
			}
			for _, name := range []string{objectsName, stagingName, sessionsName, quarantineName, dbName} {
				if fi, err := os.Stat(filepath.Join(dir, name)); err != nil || fi.Mode().Perm() != 0o700 {
					t.Errorf("%s: %v, %v", name, fi, err)
				}
			}
		})
	}
}
