package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/gdamore/tcell/v2"
	"github.com/rivo/tview"

	"condafs/fault"
)

// screen is top in a terminal.
type screen struct {
	app      *tview.Application
	head     *tview.TextView
	sessions *tview.Table
	commits  *tview.Table

	// Used by the terminal's goroutine alone.
	before, now *Top
	err         error
	byBytes     bool
	paused      bool
}

func newScreen() *screen {
	s := &screen{app: tview.NewApplication(), head: tview.NewTextView(), sessions: tview.NewTable(), commits: tview.NewTable()}
	s.head.SetWrap(false).SetText("")
	s.sessions.SetFixed(1, 0).SetSelectable(true, false).SetBorder(true).SetTitle(" sessions ")
	s.commits.SetFixed(1, 0).SetBorder(true).SetTitle(" commits ")
	// The terminal's own colours: it may be a light one.
	for _, p := range []interface {
		SetBackgroundColor(tcell.Color) *tview.Box
	}{s.head, s.sessions, s.commits} {
		p.SetBackgroundColor(tcell.ColorDefault)
	}
	s.head.SetTextColor(tcell.ColorDefault)
	s.app.SetRoot(tview.NewFlex().SetDirection(tview.FlexRow).
		AddItem(s.head, 6, 0, false).AddItem(s.sessions, 0, 3, true).AddItem(s.commits, 0, 2, false), true)
	s.app.SetInputCapture(s.key)
	return s
}

// key takes what concerns all of the screen.
func (s *screen) key(e *tcell.EventKey) *tcell.EventKey {
	switch {
	case e.Key() == tcell.KeyCtrlC, e.Rune() == 'q':
		s.app.Stop()
	case e.Rune() == 's':
		s.byBytes = !s.byBytes
		s.draw()
	case e.Rune() == 'p':
		s.paused = !s.paused
		s.draw()
	default:
		return e
	}
	return nil
}

// show takes a new look, or why there is none.
func (s *screen) show(now *Top, err error) {
	if s.paused {
		return
	}
	if s.err = err; err == nil {
		s.before, s.now = s.now, now
	}
	s.draw()
}

func (s *screen) draw() {
	var lines []string
	if s.now != nil {
		before := s.before
		if before == nil || (before.Activity == nil) != (s.now.Activity == nil) {
			before = s.now
		}
		lines = topSummary(before, s.now)
		fill(s.sessions, topSessions(s.now, s.byBytes))
		fill(s.commits, topLog(s.now))
		order := "newest first"
		if s.byBytes {
			order = "most uncommitted first"
		}
		s.sessions.SetTitle(fmt.Sprintf(" %s, %s ", plural(len(s.now.Sessions), "session"), order))
	}
	if s.err != nil {
		lines = append([]string{"! " + printable(oneLine(s.err.Error()))}, lines...)
	}
	if s.paused {
		lines = append([]string{"paused; p goes on"}, lines...)
	}
	s.head.SetText(strings.Join(lines, "\n"))
}

// fill puts rows into a table, the first of them as its head.
func fill(t *tview.Table, rows [][]string) {
	row, column := t.GetSelection()
	t.Clear()
	for y, r := range rows {
		for x, text := range r {
			c := tview.NewTableCell(tview.Escape(printable(text)) + " ").SetTextColor(tcell.ColorDefault).SetBackgroundColor(tcell.ColorDefault)
			if y == 0 {
				c.SetAttributes(tcell.AttrBold).SetSelectable(false)
			}
			t.SetCell(y, x, c)
		}
	}
	t.Select(max(1, min(row, len(rows)-1)), column)
}

// watchTop shows the daemon in the terminal until the user or a signal ends it.
func watchTop(ctx context.Context, c topAPI, every time.Duration) error {
	now, err := lookAt(ctx, c)
	if err != nil {
		return err
	}
	s := newScreen()
	s.show(now, nil)
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-time.After(every):
			case <-ctx.Done():
				s.app.Stop()
				return
			}
			now, err := lookAt(ctx, c)
			if ctx.Err() == nil {
				s.app.QueueUpdateDraw(func() { s.show(now, err) })
			}
		}
	}()
	err = s.app.Run()
	cancel()
	// The last update may wait for a terminal that takes none any more; it ends with this process.
	select {
	case <-ended:
	case <-time.After(time.Second):
	}
	if err != nil {
		return fault.New("top", "", fault.Other, err).WithHint("`condafs top --once` needs no terminal")
	}
	return nil
}
