package main

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestJournal(t *testing.T) {
	var b bytes.Buffer
	text := func(w io.Writer, o *slog.HandlerOptions) slog.Handler { return slog.NewTextHandler(w, o) }
	log := slog.New(newJournal(&b, text))
	log.Info("a", "time", 1)
	log.With("k", "v").Warn("b")
	log.WithGroup("g").Error("c\nd", "x", 1)
	log.Debug("nobody wants it")
	want := "<6>msg=a time=1\n<4>msg=b k=v\n<3>msg=\"c\\nd\" g.x=1\n"
	if got := b.String(); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if priority(slog.LevelDebug) != 7 {
		t.Error("debug")
	}
}

// TestDaemonLogsToTheJournal: where standard error is the journal, as $JOURNAL_STREAM has it.
func TestDaemonLogsToTheJournal(t *testing.T) {
	h, m := newHost(t), newServiceManager(t)
	out, err := os.Create(filepath.Join(h.dir, "journal"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close() //nolint:errcheck // only others write to it
	fi, err := out.Stat()
	if err != nil {
		t.Fatal(err)
	}
	st := fi.Sys().(*syscall.Stat_t)
	cmd := h.command("mount", "--foreground", "--store", h.store, h.mount)
	cmd.Stderr = out
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+m.path, fmt.Sprintf("JOURNAL_STREAM=%d:%d", st.Dev, st.Ino))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	m.hears("READY=1")
	h.must("umount", h.mount)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	text, err := os.ReadFile(out.Name())
	if err != nil || !strings.HasPrefix(string(text), "<6>msg=mounted mount="+h.mount) || strings.Contains(string(text), "time=") {
		t.Errorf("%v %s", err, text)
	}
}
