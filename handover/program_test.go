package handover

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"condafs/fault"
)

// Tests start this program again as what $HANDOVER_TEST says.
func TestMain(m *testing.M) {
	if f := programs[os.Getenv("HANDOVER_TEST")]; f != nil {
		if err := f(); err != nil {
			fmt.Fprintln(os.Stderr, "condafs:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

var programs = map[string]func() error{
	"rehearse": func() error {
		img, err := Load(os.NewFile(3, "image"))
		if err != nil {
			return err
		}
		var sessions int
		if err := img.Get("sessions", &sessions); err != nil {
			return err
		}
		return Rehearsed{Version: "next", Sessions: sessions}.Answer(os.Stdout)
	},
	// replace writes to a pipe before and after it has become another program.
	"replace": func() error {
		_, w, err := os.Pipe()
		if err != nil {
			return err
		}
		self, err := Self()
		if err != nil {
			return err
		}
		if err := os.Setenv("HANDOVER_TEST", "replaced"); err != nil {
			return err
		}
		return self.Replace([]string{strconv.Itoa(int(w.Fd())), strconv.Itoa(os.Getpid())}, []int{int(w.Fd())})
	},
	"replaced": func() error {
		fd, err := strconv.Atoi(os.Args[1])
		if err != nil {
			return err
		}
		if os.Args[2] != strconv.Itoa(os.Getpid()) {
			return errors.New("it is another process")
		}
		if err := Own([]int{fd}); err != nil {
			return err
		}
		fmt.Println("replaced")
		return nil
	},
	"guard": func() error {
		pid, err := strconv.Atoi(os.Args[2])
		if err != nil {
			return err
		}
		ended, err := watch(3, pid, 50*time.Millisecond)
		if err != nil || !ended {
			return err
		}
		return os.WriteFile(os.Args[1], nil, 0o600)
	},
	// guarded starts a guard and ends as it is told.
	"guarded": func() error {
		self, err := Self()
		if err != nil {
			return err
		}
		if err := os.Setenv("HANDOVER_TEST", "guard"); err != nil {
			return err
		}
		g, err := self.StartGuard([]string{os.Args[1], strconv.Itoa(os.Getpid())}, os.Stderr)
		if err != nil {
			return err
		}
		if os.Args[2] == "hang" {
			if err := g.Begin(); err != nil {
				return err
			}
		}
		fmt.Println("guarded")
		if os.Args[2] == "dismiss" {
			return InheritGuard(g.FD(), g.PID()).Dismiss()
		}
		for {
			time.Sleep(time.Hour)
		}
	},
	// signals holds them, and tells whether one has come before.
	"signals": func() error {
		s := Catch(syscall.SIGTERM)
		fmt.Println("caught")
		<-s.Context().Done()
		err := s.Hold()
		fmt.Println("held:", err)
		return s.Hold()
	},
}

// as makes a command of this program.
func as(t *testing.T, what string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), "HANDOVER_TEST="+what)
	cmd.Stderr = os.Stderr
	return cmd
}

func image(t *testing.T) *os.File {
	t.Helper()
	img := &Image{}
	if err := img.Put("sessions", 4); err != nil {
		t.Fatal(err)
	}
	f, err := img.Store()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func TestRehearse(t *testing.T) {
	self, err := Self()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("HANDOVER_TEST", "rehearse")
	r, err := self.Rehearse(t.Context(), nil, image(t))
	if err != nil || r.Version != "next" || r.Sessions != 4 {
		t.Errorf("%+v, %v", r, err)
	}
	empty, err := (&Image{}).Store()
	if err != nil {
		t.Fatal(err)
	}
	defer empty.Close()
	if _, err := self.Rehearse(t.Context(), nil, empty); !fault.Is(err, fault.Version) || !strings.Contains(err.Error(), "read the image sessions") {
		t.Errorf("an image without a part: %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := self.Rehearse(gone, nil, image(t)); !fault.Is(err, fault.Canceled) {
		t.Errorf("given up: %v", err)
	}
	if err := self.Close(); err != nil {
		t.Error(err)
	}
}

// TestBadPrograms refuses each with one line that says why, within a bounded time.
func TestBadPrograms(t *testing.T) {
	dir := t.TempDir()
	answer := func(image int, more string) string {
		return fmt.Sprintf(`echo '{"takes":"a condafs mount","version":"2","image":%d}%s'`, image, more)
	}
	for _, c := range []struct {
		name, script string
		mode         os.FileMode
		kind         fault.Kind
		says         string
	}{
		{"not executable", "", 0o644, fault.Usage, "it is not executable"},
		{"not a program", "\x00\x01", 0o755, fault.Version, "it is no program"},
		{"without its interpreter", "#!/nonexistent/sh", 0o755, fault.Version, "no such file"},
		{"fails", "#!/bin/sh\necho hello >&2; echo 'condafs: take over: it has format 9' >&2; exit 3", 0o755, fault.Version, "it cannot take over (exit status 3): take over: it has format 9"},
		{"fails in silence", "#!/bin/sh\nexit 7", 0o755, fault.Version, "it cannot take over: exit status 7"},
		{"is killed", "#!/bin/sh\nkill -SEGV $$", 0o755, fault.Version, "segmentation fault"},
		{"hangs", "#!/bin/sh\nsleep 77", 0o755, fault.Version, "it did not answer within 500ms"},
		{"says nothing", "#!/bin/sh\nexit 0", 0o755, fault.Version, "it is not condafs"},
		{"is another program", "#!/bin/sh\nhead -c 200000 /dev/zero", 0o755, fault.Version, "it is not condafs"},
		{"says something else", "#!/bin/sh\necho '{\"takes\":\"the cake\"}'", 0o755, fault.Version, "it is not condafs"},
		{"says more", "#!/bin/sh\n" + answer(Version, "{}"), 0o755, fault.Version, "it is not condafs"},
		{"reads another image", "#!/bin/sh\n" + answer(9, ""), 0o755, fault.Version, "images of version 9, and this daemon writes version 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			name := filepath.Join(dir, "program")
			if err := errors.Join(os.RemoveAll(name), os.WriteFile(name, []byte(c.script), c.mode)); err != nil {
				t.Fatal(err)
			}
			p, err := OpenProgram(name)
			if err == nil {
				defer p.Close()
				patience := rehearsalTime
				if c.name == "hangs" {
					patience = 500 * time.Millisecond
				}
				_, err = p.rehearse(t.Context(), []string{"takeover"}, image(t), patience)
			}
			if !fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), name) {
				t.Errorf("got %q, of kind %v", err, fault.KindOf(err))
			}
		})
	}
	for _, name := range []string{dir, filepath.Join(dir, "none")} {
		if _, err := OpenProgram(name); !fault.Is(err, fault.Usage) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestReplace(t *testing.T) {
	out, err := as(t, "replace").Output()
	if err != nil || string(out) != "replaced\n" {
		t.Errorf("%q, %v", out, err)
	}
	// What fails changes nothing.
	name := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(name, []byte("nothing"), 0o755); err != nil {
		t.Fatal(err)
	}
	p, err := OpenProgram(name)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Replace(nil, []int{p.FD()}); !errors.Is(err, syscall.ENOEXEC) {
		t.Errorf("got %v", err)
	}
	if err := p.Replace(nil, []int{1 << 20}); !errors.Is(err, syscall.EBADF) {
		t.Errorf("got %v", err)
	}
	for _, fd := range []int{p.FD()} {
		flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFD, 0)
		if errno != 0 || flags&syscall.FD_CLOEXEC == 0 {
			t.Errorf("descriptor %d would go to other programs: %v", fd, errno)
		}
	}
}

// TestGuard ends a process that has a guard by a signal, and without, or has it hang.
func TestGuard(t *testing.T) {
	for _, how := range []string{"dismiss", "kill", "hang"} {
		t.Run(how, func(t *testing.T) {
			mark := filepath.Join(t.TempDir(), "mark")
			cmd := as(t, "guarded", mark, how)
			out, err := cmd.StdoutPipe()
			if err == nil {
				err = cmd.Start()
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := fmt.Fscanln(out, new(string)); err != nil {
				t.Fatal(err)
			}
			if how == "dismiss" {
				if err := cmd.Wait(); err != nil {
					t.Fatal(err)
				}
				if _, err := os.Stat(mark); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("the guard has done something: %v", err)
				}
				return
			}
			want := syscall.SIGKILL
			if how == "kill" {
				want = syscall.SIGTERM
				if err := cmd.Process.Signal(want); err != nil {
					t.Fatal(err)
				}
			}
			for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
				if _, err := os.Stat(mark); err == nil {
					break
				}
				if time.Now().After(end) {
					t.Fatal("the guard has done nothing")
				}
			}
			var exit *exec.ExitError
			if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != want {
				t.Errorf("it ended with %v, want %v", err, want)
			}
		})
	}
}

func TestSignals(t *testing.T) {
	cmd := as(t, "signals")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	var word, why string
	if _, err := fmt.Fscanln(out, &word); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fscan(out, &word, &why); err != nil || word != "held:" || why != "got" {
		t.Errorf("%q %q %v", word, why, err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("Hold has forgotten the signal")
	}
	s := Catch(syscall.SIGUSR1)
	if err := s.Hold(); err != nil {
		t.Errorf("nothing has come: %v", err)
	}
	s.Let()
	if err := syscall.Kill(os.Getpid(), syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	<-s.Context().Done()
	if err := s.Hold(); err == nil || !strings.Contains(err.Error(), "user defined signal 1") {
		t.Errorf("got %v", err)
	}
}
