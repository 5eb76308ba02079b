package service

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"condafs/internal/notifytest"
)

// manager makes this process one that a manager listens to, which wants to hear of it at
// least this often.
func manager(t *testing.T, watchdog time.Duration) (next func() string) {
	t.Helper()
	l, name := notifytest.Listen(t)
	t.Setenv("NOTIFY_SOCKET", name)
	t.Setenv("WATCHDOG_USEC", "")
	if watchdog > 0 {
		t.Setenv("WATCHDOG_USEC", microseconds(watchdog))
		t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	}
	if err := l.SetReadDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	return func() string {
		t.Helper()
		b := make([]byte, 4096)
		n, err := l.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
}

func TestWhatIsSaid(t *testing.T) {
	next := manager(t, 0)
	m := Started(slog.New(slog.DiscardHandler))
	m.Ready("serves\nREADY=0")
	if got := next(); got != "READY=1\nSTATUS=serves; READY=0" {
		t.Errorf("%q", got)
	}
	m.Reloading("changes")
	if got := next(); !regexp.MustCompile(`^RELOADING=1\nMONOTONIC_USEC=[1-9][0-9]*\nSTATUS=changes$`).MatchString(got) {
		t.Errorf("%q", got)
	}
	m.Ready("changes") // nothing new
	if got := next(); got != "READY=1" {
		t.Errorf("%q", got)
	}
	m.Failed("changes") // nothing at all
	m.Stopping("ends")
	if got := next(); got != "STOPPING=1\nSTATUS=ends" {
		t.Errorf("%q", got)
	}
	m.Failed("no disk")
	if got := next(); got != "STATUS=no disk" {
		t.Errorf("%q", got)
	}
	m.Watch(func() error { t.Error("nobody wants to know"); return nil }, nil)()
}

func TestWatchdogHearsOnlyOfWhatWorks(t *testing.T) {
	next := manager(t, 2*time.Millisecond)
	var log bytes.Buffer
	m := Started(slog.New(slog.NewTextHandler(&log, nil)))
	works := make(chan error)
	asked, hangs := make(chan int), make(chan int)
	defer close(hangs)
	go func() {
		works <- nil
		works <- errors.New("it hangs")
		works <- nil
		close(asked)
	}()
	n := 0
	stop := m.Watch(func() error {
		select {
		case err := <-works:
			return err
		case <-asked:
			<-hangs // and says nothing meanwhile
			return nil
		}
	}, func() string { n++; return strconv.Itoa(n) })
	for _, want := range []string{"WATCHDOG=1\nSTATUS=1", "WATCHDOG=1\nSTATUS=2"} {
		if got := next(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	stop()
	m.Failed("done")
	next()
	if n := strings.Count(log.String(), "it hangs"); n != 1 {
		t.Errorf("%d in the log: %s", n, log.String())
	}
}

func TestNobodyToTell(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	t.Setenv("WATCHDOG_USEC", "10")
	m := Started(slog.New(slog.DiscardHandler))
	m.Ready("x")
	m.Watch(func() error { t.Error("asked for nobody"); return nil }, nil)()
}

// TestManagerThatIsGone: it is logged once, and nothing else happens.
func TestManagerThatIsGone(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "none"))
	t.Setenv("WATCHDOG_USEC", "often")
	var log bytes.Buffer
	m := Started(slog.New(slog.NewTextHandler(&log, nil)))
	m.Ready("x")
	m.Stopping("y")
	if got := log.String(); strings.Count(got, "does not listen") != 1 || strings.Count(got, "no watchdog") != 1 {
		t.Errorf("%s", got)
	}
}
