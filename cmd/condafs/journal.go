package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"strconv"
	"sync"
)

// journal hands lines to systemd's journal by standard error: each begins with its
// priority, as sd-daemon(3) has it, and has no time, which the journal knows.
type journal struct {
	slog.Handler // writes to line's buffer
	line         *journalLine
}

type journalLine struct {
	mu  sync.Mutex
	buf bytes.Buffer
	w   io.Writer
}

// newJournal writes what a handler of the kind of plain writes.
func newJournal(w io.Writer, plain func(io.Writer, *slog.HandlerOptions) slog.Handler) *journal {
	line := &journalLine{w: w}
	noTime := func(groups []string, a slog.Attr) slog.Attr {
		_, level := a.Value.Any().(slog.Level)
		if len(groups) == 0 && (a.Key == slog.TimeKey && a.Value.Kind() == slog.KindTime || a.Key == slog.LevelKey && level) {
			return slog.Attr{}
		}
		return a
	}
	return &journal{plain(&line.buf, &slog.HandlerOptions{ReplaceAttr: noTime}), line}
}

func (j *journal) Handle(ctx context.Context, r slog.Record) error {
	j.line.mu.Lock()
	defer j.line.mu.Unlock()
	j.line.buf.Reset()
	j.line.buf.WriteString("<" + strconv.Itoa(priority(r.Level)) + ">")
	if err := j.Handler.Handle(ctx, r); err != nil {
		return err
	}
	_, err := j.line.w.Write(j.line.buf.Bytes())
	return err
}

func (j *journal) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &journal{j.Handler.WithAttrs(attrs), j.line}
}

func (j *journal) WithGroup(name string) slog.Handler {
	return &journal{j.Handler.WithGroup(name), j.line}
}

// priority is syslog's number for a level.
func priority(l slog.Level) int {
	switch {
	case l >= slog.LevelError:
		return 3
	case l >= slog.LevelWarn:
		return 4
	case l >= slog.LevelInfo:
		return 6
	}
	return 7
}
