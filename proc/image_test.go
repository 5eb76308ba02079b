package proc

import (
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestInherit gives a table's pidfds to another table, as one program gives them to the next. A process that ends in between
// is still known, with how it has ended.
func TestInherit(t *testing.T) {
	cmd := exec.Command("sh", "-c", "read line; exit 7")
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	other, endOther := start(t)
	before, after := newTable(t), newTable(t)
	ids := make([]ID, 0, 2)
	for _, pid := range []int{cmd.Process.Pid, other.Process.Pid} {
		info, err := before.Identify(pid)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := before.Watch(info.ID, func(Exit) {}); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, info.ID)
	}
	held, err := before.Draw()
	if err != nil || len(held) != 2 {
		t.Fatalf("%d processes are held: %v, %v", len(held), held, err)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != 7 {
		t.Fatalf("it ended with %v", err)
	}
	after.Inherit(held)
	exits := make(chan Exit, 1)
	if _, err := after.Watch(ids[0], func(e Exit) { exits <- e }); err != nil {
		t.Fatal(err)
	}
	select {
	case e := <-exits:
		// Older kernels do not tell of a process that was waited for.
		if e.Known && e.Code != 7 || !e.Known && knows(t) {
			t.Errorf("it ended with %+v", e)
		}
	case <-time.After(time.Minute):
		t.Fatal("nobody is told of its end")
	}
	// What nobody asks for is let go of, and can be watched all the same.
	after.Disown()
	gone := make(chan struct{})
	if _, err := after.Watch(ids[1], func(Exit) { close(gone) }); err != nil {
		t.Fatal(err)
	}
	endOther()
	await(t, "the other's end", gone)
}

// knows reports whether this kernel tells how a process has ended that was waited for.
func knows(t *testing.T) bool {
	t.Helper()
	cmd, end := start(t)
	fd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	end()
	return pidfdExit(fd).Known
}
