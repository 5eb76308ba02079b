package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestGenerate(t *testing.T) {
	var trees [2]map[string]string
	for i := range trees {
		dir := t.TempDir()
		if code, _, err := commandLineOf(t, &canned{}, "generate", dir); code != 0 {
			t.Fatal(err)
		}
		trees[i] = map[string]string{}
		if err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			trees[i][strings.TrimPrefix(path, dir+"/")] = string(b)
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range trees[0] {
		if trees[1][name] != text {
			t.Errorf("%s is not the same the second time", name)
		}
	}
	a := &app{getenv: os.Getenv}
	for _, c := range a.root().Commands() {
		if page := trees[0]["man1/condafs-"+c.Name()+".1"]; c.IsAvailableCommand() && (!strings.Contains(page, ".SH SYNOPSIS") || c.HasFlags() && !strings.Contains(page, ".SH OPTIONS")) {
			t.Errorf("%s has no man page: %q", c.Name(), page)
		}
	}
	for name, with := range map[string]string{
		"bash/condafs": "__start_condafs", "zsh/_condafs": "#compdef condafs", "fish/condafs.fish": "complete -c condafs", "man1/condafs.1": "condafs-mount(1)", "man1/condafs-mount.1": "--allow-other",
	} {
		if !strings.Contains(trees[0][name], with) {
			t.Errorf("%s does not have %q", name, with)
		}
	}
	// The shells themselves say whether it is theirs.
	for shell, name := range map[string]string{"bash": "bash/condafs", "zsh": "zsh/_condafs", "fish": "fish/condafs.fish"} {
		path, err := exec.LookPath(shell)
		if err != nil {
			continue
		}
		cmd := exec.Command(path, "-n")
		cmd.Stdin = strings.NewReader(trees[0][name])
		var msg bytes.Buffer
		cmd.Stderr = &msg
		if err := cmd.Run(); err != nil || msg.Len() > 0 {
			t.Errorf("%s: %v %s", shell, err, msg.String())
		}
	}
	if code, _, err := commandLineOf(t, &canned{}, "generate", "/dev/null/x"); code != 1 || !strings.Contains(err, "condafs: generate /dev/null/x: ") {
		t.Errorf("%d %s", code, err)
	}
}
