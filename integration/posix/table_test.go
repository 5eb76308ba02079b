package posix

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
)

const (
	document = "POSIX.md"
	begin    = "<!-- figures: written by go test -write -->\n"
	end      = "<!-- end of figures -->\n"
)

// exception is a line of POSIX.md: cases of a suite that condafs knowingly does not pass.
type exception struct {
	pattern string // as in path.Match
	reason  string
}

type exceptionList []exception

// exceptions reads those of a suite from the second table of POSIX.md.
func exceptions(suite string) (exceptionList, error) {
	text, err := os.ReadFile(document)
	if err != nil {
		return nil, err
	}
	_, text2, ok := strings.Cut(string(text), end)
	if !ok {
		return nil, fmt.Errorf("%s has no line %q", document, end)
	}
	var list exceptionList
	for line := range strings.Lines(text2) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 3 || strings.TrimSpace(cells[0]) != suite {
			continue
		}
		for _, p := range strings.Fields(cells[1]) {
			e := exception{strings.Trim(p, "`,"), strings.TrimSpace(cells[2])}
			if _, err := path.Match(e.pattern, ""); err != nil || e.reason == "" {
				return nil, fmt.Errorf("%s: %q: a pattern and a reason are needed", document, line)
			}
			list = append(list, e)
		}
	}
	return list, nil
}

func (e exception) matches(name string) bool {
	ok, _ := path.Match(e.pattern, name) // exceptions has tried the pattern
	return ok
}

func (l exceptionList) has(name string) bool {
	return slices.ContainsFunc(l, func(e exception) bool { return e.matches(name) })
}

// mustHold fails the test for an exception whose cases were all run and passed: it is none any more.
func (l exceptionList) mustHold(t *testing.T, native results, failed map[string]bool) {
	t.Helper()
	for _, e := range l {
		ran, needed := false, false
		for name, o := range native {
			if e.matches(name) && o.verdict == "pass" {
				ran, needed = true, needed || failed[name]
			}
		}
		if ran && !needed && !strings.HasPrefix(e.reason, "Sometimes") {
			t.Errorf("%s passes on condafs; take it out of %s", e.pattern, document)
		}
	}
}

// figures count a suite's cases.
type figures struct {
	cases, native, condafs int
	known                  map[string]bool
}

var recorded = struct {
	sync.Mutex
	of map[string]figures
}{of: map[string]figures{}}

func record(suite string, f figures) {
	recorded.Lock()
	defer recorded.Unlock()
	recorded.of[suite] = f
}

// writeFigures puts the figures of the suites that were run in the place of the old ones.
func writeFigures() error {
	text, err := os.ReadFile(document)
	if err != nil {
		return err
	}
	head, rest, ok := strings.Cut(string(text), begin)
	old, foot, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return fmt.Errorf("%s has lost the lines around its figures", document)
	}
	var b strings.Builder
	for line := range strings.Lines(old) {
		name := strings.TrimSpace(strings.Split(strings.Trim(line, "| \n")+"|", "|")[0])
		if f, ok := recorded.of[name]; ok {
			line = fmt.Sprintf("| %s | %d | %d | %d | %d |\n", name, f.cases, f.native, f.condafs, len(f.known))
		}
		b.WriteString(line)
	}
	return os.WriteFile(document, []byte(head+begin+b.String()+end+foot), 0o644)
}
