package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"condafs/control"
)

// rebuild runs `condafs rebuild` on a store that nobody has open.
func (m *mount) rebuild() control.RebuildReport {
	m.t.Helper()
	return query[control.RebuildReport](m, "rebuild", "--store", m.store)
}

// TestRebuildAfterLostDatabase takes the database away from a daemon that was killed, or one file of it: the next mount
// says what to do, and after a rebuild `condafs ls` prints what it printed before, and clients go on.
func TestRebuildAfterLostDatabase(t *testing.T) {
	t.Parallel()
	s, env, m := serve(t), envs(t), newMount(t)
	first := conda(t, s, m.pkgs(), env("first", 0), app)
	atOnce(t, first)
	mustBeRight(t, first)
	m.settle()
	packages := m.packages()
	clean := conda(t, s, m.pkgs(), env("second", 0), "lib00", "--copy")
	atOnce(t, clean)
	mustBeRight(t, clean)
	m.settle()
	losses := []struct {
		name string
		lose func() error
	}{
		{"all of it", func() error { return os.RemoveAll(filepath.Join(m.store, "db")) }},
		{"its MANIFEST", func() error { return os.Remove(filepath.Join(m.store, "db", "MANIFEST")) }},
		{"half of its MANIFEST", func() error {
			name := filepath.Join(m.store, "db", "MANIFEST")
			b, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			b[len(b)/2] ^= 0x40
			return os.WriteFile(name, b, 0o600)
		}},
		{"its tables", func() error {
			tables, err := filepath.Glob(filepath.Join(m.store, "db", "*.sst"))
			if err != nil || len(tables) == 0 {
				return fmt.Errorf("tables %v, %v", tables, err)
			}
			return os.Truncate(tables[0], 100)
		}},
	}
	for i, l := range losses {
		t.Run(l.name, func(t *testing.T) {
			m.t = t
			want := m.packages()
			if i%2 == 0 {
				m.stop(syscall.SIGTERM) // makes tables
			} else {
				m.umount()
			}
			if err := l.lose(); err != nil {
				t.Fatal(err)
			}
			// In the foreground, so that the error is the daemon's own.
			out, err := exec.Command(m.bin, "mount", "-f", "--store", m.store, m.point).CombinedOutput()
			if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 3 || !strings.Contains(string(out), "condafs rebuild") {
				t.Fatalf("the mount of a damaged store: %v\n%s", err, out)
			}
			r := m.rebuild()
			if !r.Exact || len(r.Damage)+len(r.LostTrees)+len(r.Repair.Problems) > 0 {
				t.Errorf("%+v", r)
			}
			m.start()
			if got := m.packages(); !reflect.DeepEqual(got, want) {
				t.Errorf("the packages are\n%+v\nwere\n%+v", got, want)
			}
			s.reset()
			warm := conda(t, s, m.pkgs(), env("warm", i), app)
			atOnce(t, warm)
			mustBeRight(t, warm)
			if n := s.stats().ArchiveRequests; n > 0 {
				t.Errorf("a warm client downloaded %d archives", n)
			}
			m.settle()
		})
	}
	m.t = t
	if len(packages) == 0 {
		t.Error("there were no packages")
	}
	m.mustBeIntact()
}
