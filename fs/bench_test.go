package fs

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	loopback "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const benchFiles = 2000 // that stat and read go over, again and again

func benchFile(dir string, i int) string { return filepath.Join(dir, "f"+strconv.Itoa(i)) }

var content = bytes.Repeat([]byte("0123456789abcdef"), 512) // 8 KiB

// create does what unpacking an archive does for each file.
func create(path string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	if _, err := unix.Write(fd, content); err != nil {
		return err
	}
	if err := unix.Close(fd); err != nil {
		return err
	}
	if err := unix.Chmod(path, 0o755); err != nil {
		return err
	}
	return unix.UtimesNano(path, []unix.Timespec{{Sec: 1}, {Sec: 2}})
}

// The operations; i counts from 0 and may exceed benchFiles.
var operations = map[string]func(dir string, i int) error{
	"create": func(dir string, i int) error { return create(benchFile(dir, i)) },
	"stat": func(dir string, i int) error {
		return unix.Lstat(benchFile(dir, i%benchFiles), &unix.Stat_t{})
	},
	"read": func(dir string, i int) error {
		fd, err := unix.Open(benchFile(dir, i%benchFiles), unix.O_RDONLY, 0)
		if err != nil {
			return err
		}
		buf := make([]byte, len(content)+1)
		if n, err := unix.Read(fd, buf); err != nil || n != len(content) {
			return fmt.Errorf("read %d bytes: %w", n, err)
		}
		return unix.Close(fd)
	},
}

// benchWorker is the client: a process of its own, because one in the server's
// process would share its scheduler. It prints the nanoseconds that the operations took.
func benchWorker(args []string) error {
	name, dir := args[0], args[1]
	count, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	op := operations[name]
	if name != "create" { // once over all, so that caches are warm
		for i := range benchFiles {
			if err := create(benchFile(dir, i)); err != nil {
				return err
			}
		}
		for i := range benchFiles {
			if err := op(dir, i); err != nil {
				return err
			}
		}
	}
	start := time.Now()
	for i := range count {
		if err := op(dir, i); err != nil {
			return err
		}
	}
	fmt.Print(time.Since(start).Nanoseconds())
	return nil
}

// BenchmarkMount compares the mount with the disk below it and with the simplest
// server of the same library, and prints how many times longer than the disk each
// takes.
func BenchmarkMount(b *testing.B) {
	sides := []struct {
		name string
		dir  func(b *testing.B) string
	}{
		{"native", func(b *testing.B) string { return b.TempDir() }},
		{"loopback", mountLoopback},
		{"passthrough", func(b *testing.B) string { return newMount(b, mountOptions{}).pkg }},
		{"daemon", func(b *testing.B) string { return newMount(b, mountOptions{noPassthrough: true}).pkg }},
	}
	native := map[string]float64{}
	for _, side := range sides {
		for _, op := range []string{"create", "stat", "read"} {
			b.Run(op+"/"+side.name, func(b *testing.B) {
				dir := filepath.Join(side.dir(b), "bench")
				must(b, os.Mkdir(dir, 0o755))
				cmd := worker("bench", op, dir, strconv.Itoa(b.N))
				cmd.Stderr = os.Stderr
				out, err := cmd.Output()
				must(b, err)
				ns, err := strconv.ParseFloat(string(out), 64)
				must(b, err)
				ns /= float64(b.N)
				if side.name == "native" {
					native[op] = ns
				}
				b.ReportMetric(ns, "ns/op")
				b.ReportMetric(ns/native[op], "×native")
				must(b, os.RemoveAll(dir))
			})
		}
	}
}

func mountLoopback(b *testing.B) string {
	root, err := loopback.NewLoopbackRoot(b.TempDir())
	must(b, err)
	dir := b.TempDir()
	timeout := forever
	s, err := loopback.Mount(dir, root, &loopback.Options{
		EntryTimeout: &timeout, AttrTimeout: &timeout, NegativeTimeout: &timeout,
		MountOptions: fuse.MountOptions{DirectMount: direct(), Options: []string{"default_permissions"}},
	})
	must(b, err)
	b.Cleanup(func() { check(b, s.Unmount()) })
	return dir
}
