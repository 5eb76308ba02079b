package main

import (
	"io"
	"os"
	"strings"
	"testing"

	"condafs/bench"
	"condafs/control"
	"condafs/internal/longrun"
)

// slow leaves a test to long runs.
func slow(t *testing.T) {
	t.Helper()
	if !longrun.Wanted() {
		t.Skip("measures what nobody looks at here")
	}
}

// TestBench runs the whole benchmark, small, and looks at what it says and leaves.
func TestBench(t *testing.T) {
	slow(t)
	h := newHost(t)
	t.Setenv(envBenchPython, "")
	t.Setenv("PATH", h.mkdir("no-python")+":"+os.Getenv("PATH"))
	if err := os.WriteFile(h.dir+"/no-python/python3", []byte("#!/bin/sh\necho none here; exit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	scratch := h.mkdir("scratch")
	var r bench.Report
	h.json(&r, "bench", "--quick", "-n", "2", "--dir", scratch)
	seen := map[bench.Place]int{}
	for _, f := range r.Figures {
		seen[f.Place]++
		if f.Broken != 0 || f.Seconds <= 0 || len(f.Samples) != 1 || f.Ratio <= 0 || f.CacheBytes <= 0 || f.TotalBytes <= f.CacheBytes || f.Client != bench.Conda {
			t.Errorf("%+v", f)
		}
		// A full cache serves packages, so that the channel serves none.
		least := r.ArchiveBytes
		if f.Warm && f.Served > least/10 || !f.Warm && f.Served < least {
			t.Errorf("%d bytes were served: %+v", f.Served, f)
		}
	}
	if seen[bench.Native] != 5 || seen[bench.Each] != 2 || seen[bench.Mount] != 5 || seen[bench.Run] != 5 || r.Rounds != 1 {
		t.Errorf("figures of places: %v", seen)
	}
	leavesNothing(t, scratch)
}

func TestBenchFiles(t *testing.T) {
	slow(t)
	h := newHost(t)
	scratch := h.mkdir("scratch")
	var r bench.FilesReport
	h.json(&r, "bench", "files", "--files", "50", "--bytes", "100000", "--repeat", "1", "--dir", scratch)
	if len(r.Figures) < 15 {
		t.Errorf("%d figures", len(r.Figures))
	}
	for _, f := range r.Figures {
		if f.Seconds <= 0 || f.Ratio <= 0 || len(f.Samples) != 1 {
			t.Errorf("%+v", f)
		}
	}
	leavesNothing(t, scratch)
}

func TestBenchStore(t *testing.T) {
	slow(t)
	h := newHost(t)
	scratch := h.mkdir("scratch")
	var r bench.StoreReport
	h.json(&r, "bench", "store", "--sizes", "3,20", "--repeat", "2", "--dir", scratch)
	if len(r.Stores) != 2 || r.Stores[1].Packages != 20 {
		t.Fatalf("%+v", r)
	}
	for _, f := range r.Stores {
		if f.MountSeconds <= 0 || f.ListSeconds <= 0 || f.LookSeconds <= 0 || f.CommitSeconds <= 0 || f.StoreBytes <= 0 ||
			f.Mounted.Resident <= f.Mounted.Anonymous || f.Looked.Anonymous <= 0 {
			t.Errorf("%+v", f)
		}
	}
	leavesNothing(t, scratch)
}

// TestBenchInterrupted stops the benchmark while something is mounted.
func TestBenchInterrupted(t *testing.T) {
	slow(t)
	h := newHost(t)
	scratch := h.mkdir("scratch")
	cmd := h.command("bench", "store", "--sizes", "5", "--repeat", "10", "--dir", scratch)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	eventually(t, "a mount below "+scratch, func() bool { return mountedBelow(t, scratch) })
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil {
		t.Error("exit status 0 after ^C")
	}
	leavesNothing(t, scratch)
}

func mountedBelow(t *testing.T, dir string) bool {
	t.Helper()
	mounts, err := control.Mounts()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mounts {
		if strings.HasPrefix(m.Point, dir+"/") {
			return true
		}
	}
	return false
}

func leavesNothing(t *testing.T, dir string) {
	t.Helper()
	if mountedBelow(t, dir) {
		t.Error("a mount was left behind")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestBenchRefuses(t *testing.T) {
	dir := t.TempDir()
	for args, want := range map[string]string{
		"-n 0": "at least 1", "--repeat 0": "at least 1", "--dir " + dir + "/none": "no directory", "store --sizes 0": "no size",
	} {
		code, _, msg := commandLineOf(t, &canned{}, append([]string{"bench"}, strings.Fields(args)...)...)
		if code != 2 || !strings.Contains(msg, want) {
			t.Errorf("bench %s: exit status %d, %s", args, code, msg)
		}
	}
	var msg strings.Builder
	a := &app{out: io.Discard, err: &msg, getenv: func(name string) string {
		return map[string]string{envBenchPython: dir + "/none"}[name]
	}}
	if code := a.main([]string{"bench", "--dir", dir}); code != 2 || !strings.Contains(msg.String(), envBenchPython) {
		t.Errorf("exit status %d, %s", code, &msg)
	}
}
