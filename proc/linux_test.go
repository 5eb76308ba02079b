package proc

import (
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"condafs/fault"

	"golang.org/x/sys/unix"
)

func newTable(t *testing.T) *Linux {
	t.Helper()
	table, err := NewLinux()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := table.Close(); err != nil {
			t.Error(err)
		}
	})
	return table
}

// start runs a child that lives until its input is closed.
func start(t *testing.T) (cmd *exec.Cmd, end func()) {
	t.Helper()
	cmd = exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	end = func() {
		if ended {
			return
		}
		ended = true
		if err := in.Close(); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(end)
	return cmd, end
}

func await(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(30 * time.Second):
		t.Fatalf("%s did not happen", what)
	}
}

func TestIdentifySelf(t *testing.T) {
	table := newTable(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	byThread, err := table.Identify(unix.Gettid())
	if err != nil {
		t.Fatal(err)
	}
	if byThread.PID != os.Getpid() || byThread.PPID != os.Getppid() || byThread.Start == 0 ||
		byThread.UID != uint32(os.Geteuid()) || byThread.GID != uint32(os.Getegid()) {
		t.Errorf("this thread is identified as %+v", byThread)
	}
	byPid, err := table.Identify(os.Getpid())
	if err != nil || byPid != byThread {
		t.Errorf("by pid: %+v, %v; by thread: %+v", byPid, err, byThread)
	}
	byProc, err := identifyByProc(unix.Gettid())
	if err != nil || byProc != byThread {
		t.Errorf("by /proc: %+v, %v; by pidfd: %+v", byProc, err, byThread)
	}
	if !table.Alive(byThread.ID) {
		t.Error("this process is said to be dead")
	}
}

func TestIdentifyNobody(t *testing.T) {
	table := newTable(t)
	cmd, end := start(t)
	end()
	for _, pid := range []int{0, -1, cmd.Process.Pid, 1 << 30} {
		if _, err := table.Identify(pid); !fault.Is(err, fault.NotFound) {
			t.Errorf("Identify(%d): %v", pid, err)
		}
		if _, err := identifyByProc(pid); !fault.Is(err, fault.NotFound) {
			t.Errorf("identifyByProc(%d): %v", pid, err)
		}
	}
}

func TestReusedPidIsAnotherProcess(t *testing.T) {
	table := newTable(t)
	cmd, _ := start(t)
	info, err := table.Identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	before := info.ID
	before.Start--
	for _, watch := range []bool{false, true} {
		if watch {
			cancel, err := table.Watch(info.ID, func(Exit) {})
			if err != nil {
				t.Fatal(err)
			}
			defer cancel()
		}
		if !table.Alive(info.ID) || table.Alive(before) {
			t.Errorf("watched %t: alive %t, its predecessor %t", watch, table.Alive(info.ID), table.Alive(before))
		}
	}
	called := make(chan struct{})
	cancel, err := table.Watch(before, func(Exit) { close(called) })
	if err != nil {
		t.Fatal(err)
	}
	defer cancel()
	await(t, "the exit of a process that was replaced", called)
}

func TestWatch(t *testing.T) {
	table := newTable(t)
	cmd, end := start(t)
	info, err := table.Identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	first, second := make(chan struct{}), make(chan struct{})
	for _, c := range []chan struct{}{first, second} {
		if _, err := table.Watch(info.ID, func(Exit) { close(c) }); err != nil {
			t.Fatal(err)
		}
	}
	cancel, err := table.Watch(info.ID, func(Exit) { t.Error("a cancelled watch was called") })
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	cancel()
	again, err := table.Identify(cmd.Process.Pid)
	if err != nil || again != info {
		t.Errorf("watched: %+v, %v; before: %+v", again, err, info)
	}
	select {
	case <-first:
		t.Error("called while the process lives")
	default:
	}
	end()
	await(t, "the exit", first)
	await(t, "the exit, for the second watcher", second)
	if table.Alive(info.ID) {
		t.Error("alive after its exit")
	}
	late := make(chan struct{})
	if _, err := table.Watch(info.ID, func(Exit) { close(late) }); err != nil {
		t.Fatal(err)
	}
	await(t, "the exit that was before", late)
	table.mu.Lock()
	defer table.mu.Unlock()
	if len(table.byFD) != 0 || len(table.byPID) != 0 {
		t.Errorf("%d pidfds are left", len(table.byFD))
	}
}

func TestZombieIsDead(t *testing.T) {
	table := newTable(t)
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	info, err := table.Identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	exit := make(chan struct{})
	if _, err := table.Watch(info.ID, func(Exit) { close(exit) }); err != nil {
		t.Fatal(err)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	await(t, "the exit", exit)
	if table.Alive(info.ID) {
		t.Error("a process that waits to be reaped is said to live")
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// TestExit reaps the child at once in one half of the runs, so that both ways of
// asking how it ended are taken.
func TestExit(t *testing.T) {
	table := newTable(t)
	for _, test := range []struct {
		script string
		want   Exit
	}{
		{"read x; exit 0", Exit{Known: true}},
		{"read x; exit 7", Exit{Known: true, Code: 7}},
		{"read x; kill -9 $$", Exit{Known: true, Signal: 9}},
	} {
		for _, reap := range []bool{true, false} {
			cmd := exec.Command("sh", "-c", test.script)
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			info, err := table.Identify(cmd.Process.Pid)
			if err != nil {
				t.Fatal(err)
			}
			exit := make(chan Exit, 1)
			if _, err := table.Watch(info.ID, func(e Exit) { exit <- e }); err != nil {
				t.Fatal(err)
			}
			if err := in.Close(); err != nil {
				t.Fatal(err)
			}
			var got Exit
			if reap {
				_ = cmd.Wait() // the exit status is what the watch is to tell
				got = <-exit
			} else {
				got = <-exit
				_ = cmd.Wait()
			}
			if got != test.want && !(reap && got == Exit{}) { // kernels before 6.15 cannot tell after the reaping
				t.Errorf("%q, reaped at once %t: %+v, want %+v", test.script, reap, got, test.want)
			}
		}
	}
}

func TestWatchAfterClose(t *testing.T) {
	table := newTable(t)
	info, err := table.Identify(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := table.Watch(info.ID, func(Exit) { t.Error("called for this process") }); err != nil {
		t.Fatal(err)
	}
	if err := table.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := table.Watch(info.ID, func(Exit) {}); !fault.Is(err, fault.Stale) {
		t.Errorf("Watch after Close: %v", err)
	}
}

func BenchmarkIdentify(b *testing.B) {
	table, err := NewLinux()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := table.Close(); err != nil {
			b.Error(err)
		}
	})
	pid := os.Getpid()
	b.Run("unknown", func(b *testing.B) {
		for b.Loop() {
			if _, err := table.Identify(pid); err != nil {
				b.Fatal(err)
			}
		}
	})
	info, err := table.Identify(pid)
	if err != nil {
		b.Fatal(err)
	}
	cancel, err := table.Watch(info.ID, func(Exit) {})
	if err != nil {
		b.Fatal(err)
	}
	defer cancel()
	b.Run("watched", func(b *testing.B) {
		for b.Loop() {
			if _, err := table.Identify(pid); err != nil {
				b.Fatal(err)
			}
		}
	})
}
