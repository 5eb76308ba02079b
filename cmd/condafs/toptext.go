package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"condafs/control"
)

// topSummary is what top shows above its lists.
func topSummary(before, now *Top) []string {
	s := now.Status
	lines := []string{
		fmt.Sprintf("%s  %s, pid %d, up %s", printable(s.MountPoint), s.Version, s.PID, short(now.Time.Sub(s.Started))),
		fmt.Sprintf("store     %s on disk, for %s of content; %s, %s; snapshot %d%s", size(s.StoredBytes), size(s.LogicalBytes),
			plural(s.Packages, "package"), plural(s.Archives, "archive"), s.Head, topFree(now.Activity)),
	}
	if a := now.Activity; a != nil {
		lines = append(lines, topRequests(before, now), topDone(before.Activity, a))
	}
	return append(lines, topHealth(s))
}

func topFree(a *control.Activity) string {
	if a == nil {
		return ""
	}
	return fmt.Sprintf("; %s of %s free", size(a.FreeBytes), size(a.SizeBytes))
}

// topRequests tells what the kernel has asked for between two looks: the most frequent operations with their mean time.
func topRequests(before, now *Top) string {
	took := now.Time.Sub(before.Time).Seconds()
	type rate struct {
		op           string
		count, total float64
	}
	var all rate
	var ops []rate
	for _, r := range now.Activity.Requests {
		d := rate{op: r.Op, count: float64(r.Count), total: r.Seconds}
		for _, old := range before.Activity.Requests {
			// Fewer than before: another program has begun to count.
			if old.Op == r.Op && old.Count <= r.Count {
				d.count -= float64(old.Count)
				d.total -= old.Seconds
			}
		}
		if d.count > 0 {
			ops = append(ops, d)
			all.count += d.count
			all.total += d.total
		}
	}
	if took <= 0 || all.count == 0 {
		return "requests  none"
	}
	slices.SortFunc(ops, func(a, b rate) int { return cmp.Or(cmp.Compare(b.count, a.count), strings.Compare(a.op, b.op)) })
	var b strings.Builder
	fmt.Fprintf(&b, "requests  %s/s, %s each:", number(all.count/took), mean(all.total, all.count))
	for i, r := range ops {
		if i == 5 {
			b.WriteString(" …")
			break
		}
		fmt.Fprintf(&b, " %s %s/s (%s)", r.op, number(r.count/took), mean(r.total, r.count))
	}
	return b.String()
}

// topDone tells what was done since the mount or the last upgrade, and in brackets since the last look.
func topDone(before, now *control.Activity) string {
	var units, bytes, newUnits int64
	for _, p := range now.Published {
		units += p.Units
		bytes += p.Bytes
		newUnits += p.Units
	}
	for _, p := range before.Published {
		newUnits -= p.Units
	}
	plus := func(n int64) string {
		if n <= 0 {
			return ""
		}
		return fmt.Sprintf(" (+%d)", n)
	}
	return fmt.Sprintf("since %s: %d sessions%s, %d published%s (%s), %d waits for others' downloads%s, %d quarantined%s", when(now.Since), now.Started,
		plus(now.Started-before.Started), units, plus(newUnits), size(bytes), now.Waits, plus(now.Waits-before.Waits), now.Quarantined,
		plus(now.Quarantined-before.Quarantined))
}

func topHealth(s *control.Status) string {
	parts := []string{"nothing in quarantine"}
	if n := len(s.Quarantine); n > 0 {
		parts[0] = fmt.Sprintf("%d in quarantine (%s)", n, size(s.QuarantinedBytes))
	}
	switch p := s.Scrub.Pass; {
	case s.Scrub.Running && p != nil && p.Total > 0:
		parts = append(parts, fmt.Sprintf("scrub: %d %% read", min(100, p.Bytes*100/p.Total)))
	case s.Scrub.Last != nil:
		parts = append(parts, "last scrub "+when(s.Scrub.Last.Finished))
	default:
		parts = append(parts, "not scrubbed yet")
	}
	if l := s.Scrub.Last; l != nil && l.Lost+l.Left > 0 {
		parts = append(parts, fmt.Sprintf("%d lost and %d left by the last scrub", l.Lost, l.Left))
	}
	return "health    " + strings.Join(parts, "; ")
}

// topSessions are the live sessions, the newest or those with the most uncommitted first.
func topSessions(now *Top, byBytes bool) [][]string {
	l := slices.Clone(now.Sessions)
	slices.SortFunc(l, func(a, b control.Session) int {
		if byBytes && a.OverlayBytes != b.OverlayBytes {
			return cmp.Compare(b.OverlayBytes, a.OverlayBytes)
		}
		return cmp.Or(b.Started.Compare(a.Started), strings.Compare(a.ID, b.ID))
	})
	rows := [][]string{{"SESSION", "USER", "STATE", "AGE", "PROCESSES", "UNCOMMITTED", "LABEL OR COMMAND"}}
	for _, s := range l {
		bytes := "-"
		if s.Dirty {
			bytes = size(s.OverlayBytes)
		}
		rows = append(rows, []string{s.ID, who(s.UID), s.State, short(now.Time.Sub(s.Started)), strconv.Itoa(len(s.Members)), bytes, orDash(cmp.Or(s.Label, s.Command))})
	}
	return rows
}

// topLog are the newest commits, each with the first of its changes.
func topLog(now *Top) [][]string {
	rows := [][]string{{"SNAPSHOT", "USER", "WHEN", "BY", "WHAT"}}
	for _, c := range now.Commits {
		what := "-"
		if len(c.What) > 0 {
			what = c.What[0]
		}
		if n := len(c.What) - 1; n > 0 {
			what += fmt.Sprintf(" and %d more", n)
		}
		rows = append(rows, []string{strconv.FormatUint(c.Seq, 10), who(c.UID), short(now.Time.Sub(c.Time)) + " ago", orDash(cmp.Or(c.Label, c.Command, c.Session)), what})
	}
	return rows
}

// short is a time in one or two units.
func short(d time.Duration) string {
	s := int64(max(d, 0) / time.Second)
	switch {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm%02ds", s/60, s%60)
	case s < 48*3600:
		return fmt.Sprintf("%dh%02dm", s/3600, s/60%60)
	}
	return fmt.Sprintf("%dd", s/86400)
}

// number is a rate with two digits at least.
func number(f float64) string {
	if f < 10 {
		return strconv.FormatFloat(f, 'f', 1, 64)
	}
	return strconv.FormatFloat(f, 'f', 0, 64)
}

// mean is how long each of so many took.
func mean(seconds, count float64) string {
	switch s := seconds / count; {
	case s < 1e-3:
		return fmt.Sprintf("%.0f µs", s*1e6)
	case s < 1:
		return fmt.Sprintf("%.1f ms", s*1e3)
	default:
		return fmt.Sprintf("%.1f s", s)
	}
}
