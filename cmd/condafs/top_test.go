package main

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gdamore/tcell/v2"
	"golang.org/x/sys/unix"

	"condafs/control"
	"condafs/fault"
)

// looks are two of the same daemon, two seconds apart.
func looks() (before, now *Top) {
	before = &Top{Time: day, Status: &control.Status{Started: day.Add(-90 * time.Second)}, Activity: &control.Activity{
		Requests: []control.RequestCount{{Op: "lookup", Count: 100, Seconds: 1}, {Op: "read", Count: 50, Seconds: 1}}, Started: 3,
	}}
	now = &Top{Time: day.Add(2 * time.Second), Status: before.Status, Activity: &control.Activity{
		Requests: []control.RequestCount{{Op: "lookup", Count: 300, Seconds: 1.01}, {Op: "read", Count: 50, Seconds: 1}, {Op: "open", Count: 4, Seconds: 0.02}},
		Started:  5, Published: []control.PublishedCount{{Units: 7, Bytes: 1000}},
	}, Sessions: []control.Session{
		{ID: "old", Started: day.Add(-time.Hour), Dirty: true, OverlayBytes: 5000, Label: "evil\x1b[31m[red]"}, {ID: "new", Started: day},
	}}
	return before, now
}

func TestTopText(t *testing.T) {
	before, now := looks()
	text := strings.Join(topSummary(before, now), "\n")
	for _, want := range []string{"requests  102/s, 147 µs each: lookup 100/s (50 µs) open 2.0/s (5.0 ms)", "5 sessions (+2)", "7 published (+7) (1.0 kB)", "up 1m32s"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	// An upgrade begins to count anew.
	now.Activity.Requests = []control.RequestCount{{Op: "lookup", Count: 10, Seconds: 0.001}}
	if text := topRequests(before, now); text != "requests  5.0/s, 100 µs each: lookup 5.0/s (100 µs)" {
		t.Error(text)
	}
	if l := topSessions(now, false); l[1][0] != "new" || l[2][0] != "old" {
		t.Errorf("not the newest first: %v", l)
	}
	if l := topSessions(now, true); l[1][0] != "old" {
		t.Errorf("not the largest first: %v", l)
	}
}

// shown is what is on a simulated terminal.
func shown(s tcell.SimulationScreen) string {
	cells, width, _ := s.GetContents()
	var b strings.Builder
	for i, c := range cells {
		if i%width == 0 && i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(string(c.Runes))
	}
	return b.String()
}

func TestTopScreen(t *testing.T) {
	sim := tcell.NewSimulationScreen("UTF-8")
	s := newScreen()
	s.app.SetScreen(sim)
	sim.SetSize(100, 30)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.app.Run(); err != nil {
			t.Error(err)
		}
	})
	before, now := looks()
	has := func(want ...string) {
		t.Helper()
		var text string
		s.app.QueueUpdateDraw(func() {})
		s.app.QueueUpdate(func() { text = shown(sim) })
		for _, w := range want {
			if !strings.Contains(text, w) {
				t.Errorf("no %q in\n%s", w, text)
			}
		}
		if strings.ContainsRune(text, '\x1b') {
			t.Error("a name plays with the terminal")
		}
	}
	press := func(r rune) { s.app.QueueUpdateDraw(func() { s.key(tcell.NewEventKey(tcell.KeyRune, r, 0)) }) }
	s.app.QueueUpdateDraw(func() { s.show(before, nil) })
	s.app.QueueUpdateDraw(func() { s.show(now, nil) })
	has("lookup 100/s", "2 sessions, newest first", `evil\x1b[31m[red]`)
	press('s')
	has("most uncommitted first")
	s.app.QueueUpdateDraw(func() { s.show(nil, errors.New("nobody listens there")) })
	has("! nobody listens there", "lookup 100/s")
	press('p')
	s.app.QueueUpdateDraw(func() { s.show(now, nil) })
	has("paused; p goes on", "! nobody listens there")
	press('q')
	wg.Wait()
}

func TestTopNeedsADaemon(t *testing.T) {
	err := watchTop(context.Background(), &canned{err: fault.New("do", "it", fault.NotMounted, nil)}, time.Second)
	if !fault.Is(err, fault.NotMounted) {
		t.Error(err)
	}
	if code, _, err := commandLineOf(t, &canned{}, "top", "--interval", "1ms"); code != 2 || !strings.Contains(err, "--interval 1ms") {
		t.Errorf("%d %s", code, err)
	}
}

// TestTopInATerminal has it draw on a real pseudo-terminal, and end by a key.
func TestTopInATerminal(t *testing.T) {
	h := mounted(t)
	master, slave := pty(t)
	if err := unix.IoctlSetWinsize(int(slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 30, Col: 120}); err != nil {
		t.Fatal(err)
	}
	cmd := h.command("top", "--interval", "100ms")
	cmd.Env = append(cmd.Env, "TERM=xterm-256color")
	startOn(t, cmd, slave)
	drawn := make(chan string, 1)
	go func() {
		var all strings.Builder
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			all.Write(buf[:n])
			if strings.Contains(all.String(), "sessions, newest first") {
				if _, err := master.WriteString("q"); err != nil {
					t.Error(err)
				}
				break
			}
			if err != nil {
				break
			}
		}
		for { // a terminal that nobody reads would have it wait
			n, err := master.Read(buf)
			all.Write(buf[:n])
			if err != nil { // EIO: nobody has the other end open
				drawn <- all.String()
				return
			}
		}
	}()
	timeout := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Signal(os.Kill) })
	defer timeout.Stop()
	err := cmd.Wait()
	text := <-drawn
	if err != nil || !strings.Contains(text, h.mount) || !strings.Contains(text, "commits") {
		t.Errorf("%v: %q", err, text)
	}
	if !strings.Contains(text, "\x1b[?1049l") {
		t.Error("the terminal is left in its other screen")
	}
	h.must("umount", h.mount)
}
