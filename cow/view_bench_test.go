package cow

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

func BenchmarkLookupBelow(b *testing.B) {
	r := newRig(b)
	dir, err := r.node("pkgs/a-1-0/lib")
	check(b, err)
	for b.Loop() {
		n, _, err := r.v.Lookup(dir, "libz.so.1")
		check(b, err)
		r.v.Forget(n, 1)
	}
	r.v.Forget(dir, 1)
}

func BenchmarkLookupAbsent(b *testing.B) {
	r := newRig(b)
	check(b, r.create("pkgs/x", "", 0o644))
	dir, err := r.node("pkgs")
	check(b, err)
	for b.Loop() {
		if _, _, err := r.v.Lookup(dir, "y"); err != unix.ENOENT {
			b.Fatal(err)
		}
	}
	r.v.Forget(dir, 1)
}

func BenchmarkLookupInOverlay(b *testing.B) {
	r := newRig(b)
	check(b, r.create("pkgs/x", "", 0o644))
	dir, err := r.node("pkgs")
	check(b, err)
	for b.Loop() {
		n, _, err := r.v.Lookup(dir, "x")
		check(b, err)
		r.v.Forget(n, 1)
	}
	r.v.Forget(dir, 1)
}

// What a client does for each file that it extracts.
func BenchmarkCreate(b *testing.B) {
	r := newRig(b)
	check(b, r.mkdir("pkgs/c-1-0", 0o755))
	dir, err := r.node("pkgs/c-1-0")
	check(b, err)
	i := 0
	for b.Loop() {
		n, _, h, err := r.v.Create(dir, fmt.Sprintf("file%07d", i), unix.O_WRONLY, 0o644)
		check(b, err)
		check(b, h.Release())
		r.v.Forget(n, 1)
		i++
	}
	r.v.Forget(dir, 1)
}

func BenchmarkReadDir(b *testing.B) {
	r := newRig(b)
	files := map[string]string{}
	for i := range 5000 {
		files[fmt.Sprintf("f%d", i)] = ""
	}
	r.src.tree(b, "shared/pkgs/big-1-0", files)
	for _, overlay := range []bool{false, true} {
		if overlay {
			check(b, r.create("pkgs/big-1-0/new", "", 0o644))
		}
		b.Run(fmt.Sprintf("5000 names, overlay=%v", overlay), func(b *testing.B) {
			dir, err := r.node("pkgs/big-1-0")
			check(b, err)
			for b.Loop() {
				_, err := r.v.ReadDir(dir)
				check(b, err)
			}
			r.v.Forget(dir, 1)
		})
	}
}

func BenchmarkHarvestAndSeal(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		r := newRig(b)
		check(b, r.mkdir("pkgs/c-1-0", 0o755))
		for i := range 1000 {
			check(b, r.create(fmt.Sprintf("pkgs/c-1-0/f%d", i), "x", 0o644))
		}
		b.StartTimer()
		h, err := r.v.Harvest("pkgs/c-1-0")
		check(b, err)
		b.StopTimer()
		entry, err := r.entryOf(h)
		check(b, err)
		b.StartTimer()
		check(b, r.v.Seal("pkgs/c-1-0", h.Gen, entry, moveFunc(func(string, int, string) error { return nil })))
	}
}

// The same system calls without a view.
func BenchmarkCreateNative(b *testing.B) {
	fd, err := openat(unix.AT_FDCWD, b.TempDir(), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	check(b, err)
	defer unix.Close(fd)
	i := 0
	for b.Loop() {
		f, err := openat(fd, fmt.Sprintf("file%07d", i), unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o644)
		check(b, err)
		var st unix.Stat_t
		check(b, unix.Fstat(f, &st))
		check(b, unix.Close(f))
		i++
	}
}
