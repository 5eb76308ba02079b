package bench

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// Machine is what was measured on.
type Machine struct {
	CPUs   int     `json:"cpus"`
	Memory int64   `json:"memory"`
	Kernel string  `json:"kernel"`
	Load   float64 `json:"load"` // of the last minute before; much above 0 spoils the figures
}

// Link is what lay between the channel and its clients.
type Link struct {
	BytesPerSecond int     `json:"bytes_per_second"` // for all clients together; 0: no limit
	LatencySeconds float64 `json:"latency_seconds"`  // before each answer
}

// String is empty if nothing did.
func (l Link) String() string {
	switch {
	case l == Link{}:
		return ""
	case l.BytesPerSecond == 0:
		return fmt.Sprintf("; the channel is %.3g ms away", l.LatencySeconds*1e3)
	}
	return fmt.Sprintf("; the channel is %.3g ms away and sends %.3g Mbit/s", l.LatencySeconds*1e3, float64(l.BytesPerSecond)*8/1e6)
}

// Report is what a benchmark found.
type Report struct {
	Machine      Machine  `json:"machine"`
	N            int      `json:"n"`
	Rounds       int      `json:"rounds"`
	Link         Link     `json:"link"`
	Packages     int      `json:"packages"` // of the channel, all of which each client installs
	Files        int      `json:"files"`
	ArchiveBytes int64    `json:"archive_bytes"`
	Figures      []Figure `json:"figures"`
}

// Sound says whether condafs broke nothing.
func (r *Report) Sound() bool {
	return !slices.ContainsFunc(r.Figures, func(f Figure) bool { return f.Broken > 0 && f.Place.condafs() })
}

func (m *Machine) String() string {
	return fmt.Sprintf("%d CPUs, %.0f GB of memory, Linux %s, load %.1f at the start", m.CPUs, float64(m.Memory)/1e9, m.Kernel, m.Load)
}

// WriteTable prints a table for each kind of work.
func (r *Report) WriteTable(w io.Writer) error {
	fmt.Fprintf(w, "%d packages, %d files, %.0f MB of archives; medians of %d; %s%s\n", r.Packages, r.Files, float64(r.ArchiveBytes)/1e6, r.Rounds, &r.Machine, r.Link)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	type kind struct {
		client  Client
		clients int
		warm    bool
	}
	var seen []kind
	for _, f := range r.Figures {
		k := kind{f.Client, f.Clients, f.Warm}
		if slices.Contains(seen, k) {
			continue
		}
		seen = append(seen, k)
		fmt.Fprintf(t, "\n%-42s\tseconds\trange\tratio\tat once\tcommit\tserved MB\tcache MB\tin all MB\t\n", title(f))
		for _, g := range r.Figures {
			if k == (kind{g.Client, g.Clients, g.Warm}) {
				g.writeRow(t)
			}
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, f := range r.Figures {
		for _, e := range f.Errors {
			fmt.Fprintf(w, "broken: %s, %s: %s\n", f.Client, f.label(), e)
		}
	}
	_, err := io.WriteString(w, `
ratio: to the native directory, one client at a time; at once: to the native directory, all at once
commit: seconds after the clients' end until all is in the head; in all: the cache and the environments on disk
`)
	return err
}

func title(f Figure) string {
	state, s := "cold", "s"
	if f.Warm {
		state = "warm"
	}
	if f.Clients == 1 {
		s = ""
	}
	return fmt.Sprintf("%d %s client%s, %s", f.Clients, f.Client, s, state)
}

// label names the row.
func (f *Figure) label() string {
	switch {
	case f.Clients == 1:
		return f.Place.String()
	case f.AtOnce:
		return f.Place.String() + ", at once"
	}
	return f.Place.String() + ", one at a time"
}

func (f *Figure) writeRow(w io.Writer) {
	if len(f.Samples) == 0 {
		fmt.Fprintf(w, "  %-40s\tbroken\t\t\t\t\t\t\t\t\n", f.label())
		return
	}
	times := func(x float64) string {
		if x == 0 {
			return "-"
		}
		return fmt.Sprintf("%.2f×", x)
	}
	mb := func(n int64) string { return fmt.Sprintf("%.0f", float64(n)/1e6) }
	fmt.Fprintf(w, "  %-40s\t%.2f\t%.2f–%.2f\t%s\t%s\t%.2f\t%s\t%s\t%s\t\n", f.label(), f.Seconds, slices.Min(f.Samples), slices.Max(f.Samples),
		times(f.Ratio), times(f.RatioAtOnce), f.CommitSeconds, mb(f.Served), mb(f.CacheBytes), mb(f.TotalBytes))
}
