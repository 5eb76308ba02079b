package daemon

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"condafs/proc"
)

// halfDead is set for a process whose first thread is to end, as that of one that was killed and cannot end.
const halfDead = "CONDAFS_TEST_HALF_DEAD"

func init() {
	if os.Getenv(halfDead) == "" {
		return
	}
	runtime.LockOSThread() // the process's first thread
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0)
}

func TestWitness(t *testing.T) {
	for _, test := range []struct {
		name   string
		half   bool
		aborts bool
	}{{"of one that cannot end", true, true}, {"of one that lives", false, false}} {
		t.Run(test.name, func(t *testing.T) {
			control := filepath.Join(t.TempDir(), "abort")
			if err := os.WriteFile(control, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			pid := os.Getpid()
			if test.half {
				cmd := exec.Command(os.Args[0])
				cmd.Env = append(os.Environ(), halfDead+"=1")
				in, err := cmd.StdinPipe()
				if err != nil {
					t.Fatal(err)
				}
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				pid = cmd.Process.Pid
				t.Cleanup(func() {
					in.Close()     //nolint:errcheck // it ends by that
					_ = cmd.Wait() // however it ends
				})
			}
			r, w := io.Pipe()
			ended := make(chan error, 1)
			go func() { ended <- Witness(control, pid, r) }()
			if !test.aborts {
				time.Sleep(3 * witnessTick)
				w.Close() //nolint:errcheck // it never fails
			}
			select {
			case err := <-ended:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(time.Minute):
				t.Fatal("it waits for ever")
			}
			if b, err := os.ReadFile(control); err != nil || (string(b) == "1") != test.aborts {
				t.Errorf("the connection's control file holds %q, %v", b, err)
			}
		})
	}
}

func TestWitnessOfNothing(t *testing.T) {
	if err := Witness(filepath.Join(t.TempDir(), "none"), 1, strings.NewReader("")); err == nil {
		t.Error("it watches over nothing")
	}
	// A process that is not there is not one that cannot end.
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if proc.Zombie(cmd.Process.Pid) || proc.Zombie(os.Getpid()) {
		t.Error("who has ended, or lives, is taken for one that cannot end")
	}
}
