package bench

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 2, 9}, 3}} {
		before := slices.Clone(c.values)
		if got := median(c.values); got != c.want || !slices.Equal(c.values, before) {
			t.Errorf("median of %v is %v", before, got)
		}
	}
}

// ofTwo is a made-up benchmark of two rounds.
func ofTwo() []Figure {
	one := work{clients: 4}
	once := work{clients: 4, atOnce: true}
	keys := []key{{Conda, Native, one}, {Conda, Native, once}, {Conda, Mount, once}, {Rattler, Mount, once}, {Conda, Run, once}}
	return figures(keys, map[key][]sample{
		keys[0]: {{seconds: 8, served: 100}, {seconds: 12, served: 300}},
		keys[1]: {{seconds: 5}, {seconds: 5}},
		keys[2]: {{seconds: 1, err: errors.New("3 files are missing")}, {seconds: 20, commit: 0.5, cache: 7, total: 9}},
		keys[3]: {{seconds: 3}},
		keys[4]: {{seconds: 1, err: errors.New("x")}, {seconds: 1, err: errors.New("y")}},
	})
}

func TestFigures(t *testing.T) {
	f := ofTwo()
	if f[0].Seconds != 10 || f[0].Ratio != 1 || f[0].RatioAtOnce != 2 || f[0].Served != 200 {
		t.Errorf("one at a time: %+v", f[0])
	}
	// A broken run's time is not used, however short it was.
	if f[2].Seconds != 20 || f[2].Ratio != 2 || f[2].RatioAtOnce != 4 || f[2].Broken != 1 || f[2].CommitSeconds != 0.5 || f[2].CacheBytes != 7 || f[2].TotalBytes != 9 {
		t.Errorf("at once: %+v", f[2])
	}
	if f[3].Ratio != 0 || f[3].RatioAtOnce != 0 {
		t.Errorf("compared with another client: %+v", f[3])
	}
	if f[4].Seconds != 0 || f[4].Ratio != 0 || f[4].Broken != 2 || !slices.Equal(f[4].Errors, []string{"x", "y"}) {
		t.Errorf("all broken: %+v", f[4])
	}
}

func TestLinkIsSaid(t *testing.T) {
	for link, want := range map[Link]string{
		{}: "", {LatencySeconds: 0.02}: "; the channel is 20 ms away",
		{BytesPerSecond: 12_500_000, LatencySeconds: 0.02}: "; the channel is 20 ms away and sends 100 Mbit/s",
	} {
		if got := link.String(); got != want {
			t.Errorf("%+v is %q, want %q", link, got, want)
		}
	}
}

func TestColdOnly(t *testing.T) {
	all := plan(8, true)
	cold := coldOnly(all)
	for _, p := range cold {
		for _, w := range p.works {
			if w.warm {
				t.Errorf("%s, %s: %v", p.client, p.place, w)
			}
		}
	}
	if len(cold) != len(all) || len(cold[0].works) != 1 || len(all[0].works) != 2 {
		t.Errorf("%d of %d: %+v of %+v", len(cold), len(all), cold[0], all[0])
	}
}

func TestTable(t *testing.T) {
	r := &Report{N: 4, Rounds: 2, Figures: ofTwo()}
	if r.Sound() || !(&Report{Figures: r.Figures[:2]}).Sound() {
		t.Error("Sound is wrong")
	}
	var b strings.Builder
	if err := r.WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for l := range strings.Lines(b.String()) {
		lines = append(lines, strings.Join(strings.Fields(l), " "))
	}
	for _, want := range []string{
		"4 conda clients, cold seconds range ratio at once commit served MB cache MB in all MB",
		"native directory, one at a time 10.00 8.00–12.00 1.00× 2.00× 0.00 0 0 0",
		"condafs mount, at once 20.00 20.00–20.00 2.00× 4.00× 0.50 0 0 0",
		"condafs mount, at once 3.00 3.00–3.00 - - 0.00 0 0 0",
		"condafs run, at once broken",
		"broken: conda, condafs mount, at once: 3 files are missing",
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("no line %q in\n%s", want, b.String())
		}
	}
	if strings.Count(b.String(), "4 conda clients, cold") != 1 {
		t.Error("a title twice")
	}
}

// Every figure needs the native one that it is compared with, and a cache is filled before clients find it warm.
func TestPlan(t *testing.T) {
	for _, n := range []int{1, 8} {
		var keys []key
		for _, p := range plan(n, true) {
			if p.works[0].warm {
				t.Errorf("%v begins on a cache that nobody has filled", p)
			}
			for _, w := range p.works {
				k := key{p.client, p.place, w}
				if slices.Contains(keys, k) {
					t.Errorf("%v twice", k)
				}
				keys = append(keys, k)
			}
		}
		for _, k := range keys {
			if !slices.Contains(keys, key{k.client, Native, work{k.work.clients, k.work.warm, false}}) {
				t.Errorf("%v has nothing to be compared with", k)
			}
		}
	}
	if len(plan(8, false)) != 11 || len(plan(1, false)) != 5 {
		t.Error("passes that were not asked for")
	}
}

func TestTurns(t *testing.T) {
	a, b := pass{place: Native}, pass{place: Mount}
	var got []Place
	for _, p := range turns([]pass{a, b}, 3) {
		got = append(got, p.place)
	}
	if want := []Place{Native, Mount, Mount, Native, Native, Mount}; !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

func TestDiskUse(t *testing.T) {
	dir := t.TempDir()
	one, other := filepath.Join(dir, "a", "one"), filepath.Join(dir, "b", "other")
	for _, d := range []string{one, other} {
		if err := os.MkdirAll(filepath.Dir(d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(one, make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	before, err := diskUse(dir)
	if err != nil || before < 1<<20 || before > 1<<20+64<<10 {
		t.Errorf("1 MiB uses %d bytes: %v", before, err)
	}
	if err := os.Link(one, other); err != nil {
		t.Fatal(err)
	}
	after, err := diskUse(filepath.Dir(one), filepath.Dir(other))
	if err != nil || after > before {
		t.Errorf("with a hard link %d, without %d: %v", after, before, err)
	}
	if none, err := diskUse(filepath.Join(dir, "none")); none != 0 || err != nil {
		t.Errorf("nothing uses %d bytes: %v", none, err)
	}
}

func TestParseMemory(t *testing.T) {
	got, err := parseMemory([]byte("Name:\tcondafs\nVmRSS:\t   2048 kB\nRssAnon:\t    1024 kB\nThreads:\t9\n"))
	if err != nil || got != (Memory{2 << 20, 1 << 20}) {
		t.Errorf("%+v %v", got, err)
	}
	for _, bad := range []string{"", "Name: x\n", "VmRSS: x kB\n"} {
		if _, err := parseMemory([]byte(bad)); err == nil {
			t.Errorf("%q is no status", bad)
		}
	}
}

func TestFindPython(t *testing.T) {
	dir := t.TempDir()
	for name, script := range map[string]string{"good": "exit 0", "bad": "echo Traceback; echo ModuleNotFoundError; exit 1", "silent": "exit 1"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := FindPython(t.Context(), filepath.Join(dir, "good")); err != nil || got != filepath.Join(dir, "good") {
		t.Errorf("%q %v", got, err)
	}
	for name, want := range map[string]string{"bad": ": ModuleNotFoundError", "silent": "cannot import", "none": "no such file"} {
		if _, err := FindPython(t.Context(), filepath.Join(dir, name)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
