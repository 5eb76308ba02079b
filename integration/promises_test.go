package integration

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestPromisesAreTested: each promise of SECURITY.md names tests, and there are such tests.
func TestPromisesAreTested(t *testing.T) {
	b, err := os.ReadFile("../SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	promised, _, ok := strings.Cut(string(b), "## What is not promised")
	if !ok {
		t.Fatal("SECURITY.md has no such chapter")
	}
	there := make(map[string]bool)
	function := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	if err := filepath.WalkDir("..", func(p string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(p, "_test.go") {
			return err
		}
		b, err := os.ReadFile(p)
		for _, m := range function.FindAllSubmatch(b, -1) {
			there[string(m[1])] = true
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`(Test\\w+)`")
	for _, m := range named.FindAllStringSubmatch(promised, -1) {
		if !there[m[1]] {
			t.Errorf("SECURITY.md names %s, which is not there", m[1])
		}
	}
	promises := strings.Split(promised, "\n- **")[1:]
	if len(promises) < 7 {
		t.Errorf("only %d promises are found", len(promises))
	}
	for _, p := range promises {
		if !named.MatchString(p) {
			t.Errorf("no test is named for %.60q", p)
		}
	}
}
