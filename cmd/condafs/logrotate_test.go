package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Many write at once; each line is whole, the newest are there, and no more files than
// are to be kept.
func TestRotatedLog(t *testing.T) {
	name := filepath.Join(t.TempDir(), "dir", "a.log")
	const lines, limit = 400, 1000
	l, err := openRotatedLog(name, limit)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range lines / 4 {
				if _, err := fmt.Fprintf(l, "line %d %03d of some length\n", w, i); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(name + "*")
	if err != nil || len(files) != keptLogs+1 {
		t.Errorf("%v, %v", files, err)
	}
	all := ""
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) > limit || len(b) == 0 {
			t.Errorf("%s has %d bytes", f, len(b))
		}
		for line := range strings.Lines(string(b)) {
			if !strings.HasPrefix(line, "line ") || !strings.HasSuffix(line, "length\n") {
				t.Errorf("%s has %q", f, line)
			}
		}
		all += string(b)
	}
	if !strings.Contains(all, fmt.Sprintf(" %03d of", lines/4-1)) {
		t.Error("the last line of none is there")
	}
}

// A log of an earlier daemon counts, and one that cannot be rotated is still written.
func TestRotatedLogGoesOn(t *testing.T) {
	name := filepath.Join(t.TempDir(), "a.log")
	if err := os.WriteFile(name, []byte(strings.Repeat("x", 100)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := openRotatedLog(name, 110)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := errors.Join(os.WriteFile(name+".2", nil, 0o600), os.MkdirAll(filepath.Join(name+".3", "in the way"), 0o755)); err != nil {
		t.Fatal(err)
	}
	if n, err := l.Write([]byte("a line that is too long\n")); n != 24 || err == nil {
		t.Errorf("%d, %v", n, err)
	}
	if err := os.RemoveAll(name + ".3"); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Write([]byte(strings.Repeat("y", 100))); err != nil {
		t.Error(err)
	}
	old, err := os.ReadFile(name + ".1")
	if err != nil || !strings.HasPrefix(string(old), "xxx") || !strings.HasSuffix(string(old), "too long\n") {
		t.Errorf("%q, %v", old, err)
	}
}
