package fs

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// eventually waits for what another goroutine or the kernel does on its own.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// TestGain lets a view take a package in whose absence the kernel has cached.
func TestGain(t *testing.T) {
	bothWays(t, nil, func(t *testing.T, m *testMount) {
		pkgs := filepath.Join(m.root, "pkgs")
		pkg := filepath.Join(pkgs, "late-1.0-0")
		_, err := os.Lstat(pkg)
		wantErrno(t, err, unix.ENOENT)
		if got := names(t, pkgs); slices.Contains(got, "late-1.0-0") {
			t.Fatalf("got %q", got)
		}
		seedPackage(t, m.store, "late-1.0-0", map[string]string{"lib/a.txt": "a"})
		snap := m.store.PinHead()
		defer snap.Release()
		entry, ok, err := snap.Get("shared/pkgs/late-1.0-0")
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		ok, err = m.session.View().Gain("pkgs/late-1.0-0", entry)
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		eventually(t, "the name is there", func() bool {
			_, err := os.Lstat(pkg)
			return !errors.Is(err, unix.ENOENT)
		})
		wantContent(t, filepath.Join(pkg, "lib", "a.txt"), "a")
		eventually(t, "the listing has it", func() bool { return slices.Contains(names(t, pkgs), "late-1.0-0") })
	})
}
