package posix

import (
	"fmt"
	"maps"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// outcome is what became of a case. What failed has a message.
type outcome struct {
	verdict string // pass, fail or skip
	message string
}

// results are the outcomes of a suite's cases at one place.
type results map[string]outcome

func (r results) passed() (n int) {
	for _, o := range r {
		if o.verdict == "pass" {
			n++
		}
	}
	return n
}

// compare runs a suite at all places at once, and demands of condafs what the native file system passes.
func compare(t *testing.T, suite string, run func(p *place) (results, error)) {
	t.Helper()
	all, err := places()
	if err != nil {
		t.Fatal(err)
	}
	got, errs := make([]results, len(all)), make([]error, len(all))
	var wg sync.WaitGroup
	for i, p := range all {
		wg.Go(func() { got[i], errs[i] = run(p) })
	}
	wg.Wait()
	for i, p := range all {
		if errs[i] != nil {
			t.Errorf("%s on %s: %v", suite, p.name, errs[i])
		} else if len(got[i]) == 0 {
			t.Errorf("%s on %s ran nothing", suite, p.name)
		}
	}
	if t.Failed() {
		return
	}
	known, err := exceptions(suite)
	if err != nil {
		t.Fatal(err)
	}
	native, f := got[0], figures{cases: len(got[0]), native: got[0].passed(), known: map[string]bool{}}
	for name, o := range native {
		// What only makes sense on FUSE, or asks for more than POSIX, fails on local file systems, too.
		if o.verdict == "fail" && suite != "posixtest" && suite != "pjdfstest" && suite != "python" {
			t.Errorf("%s: %s fails natively, so that it proves nothing: %s", suite, name, o.message)
		}
	}
	f.condafs = f.cases
	for i, r := range got[1:] {
		for _, name := range slices.Sorted(maps.Keys(native)) {
			if native[name].verdict != "pass" || r[name].verdict == "pass" {
				continue
			}
			if !known.has(name) {
				t.Errorf("%s on %s: %s passes natively, and is %q here: %s", suite, all[i+1].name, name, r[name].verdict, r[name].message)
			} else {
				f.known[name] = true
			}
		}
		f.condafs = min(f.condafs, r.passed())
	}
	known.mustHold(t, native, f.known)
	t.Logf("%s: %d cases, %d pass natively, %d on condafs, %d knowingly not", suite, f.cases, f.native, f.condafs, len(f.known))
	record(suite, f)
}

// output runs a command and returns what it prints. That it fails is an error only if the output says nothing of cases.
func output(cmd *exec.Cmd, parse func(out string) results) (results, error) {
	b, err := cmd.CombinedOutput()
	out := escapes.ReplaceAllString(string(b), "")
	r := parse(out)
	said := slices.ContainsFunc(slices.Collect(maps.Values(r)), func(o outcome) bool { return o.verdict == "fail" })
	if err != nil && !said {
		return r, fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, tail(out))
	}
	return r, nil
}

// escapes are the colours of terminals.
var escapes = regexp.MustCompile("\x1b\\[[0-9;]*m")

func tail(s string) string {
	const most = 4000
	if len(s) > most {
		return "…" + s[len(s)-most:]
	}
	return s
}

// tabbed parses what our Python programs print: a case, a tab, the verdict, a tab, a message.
func tabbed(out string) results {
	r := results{}
	for line := range strings.Lines(out) {
		if f := strings.SplitN(strings.TrimSuffix(line, "\n"), "\t", 4); len(f) == 4 && f[0] == "case" {
			r[f[1]] = outcome{f[2], f[3]}
		}
	}
	return r
}

// lines finds the cases and verdicts that a pattern names in what a suite prints. What follows a line is its message.
func lines(out string, pattern *regexp.Regexp, verdicts map[string]string) results {
	r := results{}
	found := pattern.FindAllStringSubmatchIndex(out, -1)
	for i, at := range found {
		group := func(name string) string { g := 2 * pattern.SubexpIndex(name); return out[at[g]:at[g+1]] }
		next := len(out)
		if i+1 < len(found) {
			next = found[i+1][0]
		}
		message, _, _ := strings.Cut(out[at[1]:next], "Backtrace")
		r[group("case")] = outcome{verdicts[group("verdict")], strings.TrimSpace(message[:min(len(message), 1000)])}
	}
	return r
}
