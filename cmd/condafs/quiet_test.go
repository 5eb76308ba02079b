package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestQuiet(t *testing.T) {
	for args, silent := range map[string]bool{
		"discard abc -q": true, "gc --quiet": true, "gc": false, "gc -q --dry-run": false, "gc -q --json": false, "status -q": false, "upgrade -q --binary /b": true, "ls -q": false,
		"scrub -q": false, "import -q /d": false, // what did not hold is no confirmation
	} {
		code, out, err := commandLineOf(t, &canned{}, strings.Fields(args)...)
		if code != 0 || (out == "") != silent || err != "" {
			t.Errorf("%s: %d %q %q", args, code, out, err)
		}
	}
	// What goes wrong is told all the same.
	if code, _, err := commandLineOf(t, &canned{}, "discard", "-q", "nobody"); code != 1 || !strings.HasPrefix(err, "condafs: ") {
		t.Errorf("%d %q", code, err)
	}
}

func TestVerbose(t *testing.T) {
	for verbose, want := range map[bool]int{false: 1, true: 2} {
		for _, file := range []string{"", filepath.Join(t.TempDir(), "log")} {
			var b bytes.Buffer
			log, done, err := (&app{err: &b}).logger(file, "text", verbose)
			if err != nil {
				t.Fatal(err)
			}
			log.Debug("a")
			log.Info("b")
			if err := done(); err != nil {
				t.Error(err)
			}
			text := b.String()
			if file != "" {
				f, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				text = string(f)
			}
			if got := strings.Count(text, "\n"); got != want {
				t.Errorf("%v, %q: %q", verbose, file, text)
			}
		}
	}
}
