package main

import (
	"io"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"condafs/control"
)

// barAfter is how long work may take before a bar says how far it has come.
const barAfter = 2 * time.Second

// bar shows progress on a terminal, once work takes long enough to wonder. It is
// safe for concurrent use.
type bar struct {
	w     io.Writer // nil: not on a terminal
	begun time.Time

	mu    sync.Mutex
	bar   *progressbar.ProgressBar
	phase string
}

// newBar makes a bar on standard error, if that is a terminal and nobody wants quiet.
func (a *app) newBar() *bar {
	b := &bar{begun: time.Now()}
	if isTerminal(a.err) && !a.quiet {
		b.w = a.err
	}
	return b
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Report shows p.
func (b *bar) Report(p control.Progress) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.w == nil || time.Since(b.begun) < barAfter {
		return
	}
	if b.bar == nil || b.phase != p.Phase {
		b.clear()
		b.phase = p.Phase
		total := p.Total
		if total <= 0 {
			total = -1 // a spinner
		}
		b.bar = progressbar.NewOptions64(total,
			progressbar.OptionSetWriter(b.w), progressbar.OptionSetDescription(p.Phase), progressbar.OptionShowCount(),
			progressbar.OptionShowBytes(p.Unit == "bytes"), progressbar.OptionSetPredictTime(true), progressbar.OptionFullWidth(),
			progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish(), progressbar.OptionSetRenderBlankState(true))
	}
	if p.Total > 0 && p.Total != b.bar.GetMax64() {
		b.bar.ChangeMax64(p.Total)
	}
	// A terminal that is gone shows no progress; the work goes on.
	_ = b.bar.Set64(p.Done)
}

// Close takes the bar off the terminal.
func (b *bar) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.clear()
}

func (b *bar) clear() {
	if b.bar != nil {
		_ = b.bar.Clear()
		b.bar = nil
	}
}
