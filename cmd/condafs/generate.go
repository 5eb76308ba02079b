package main

import (
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"condafs/fault"
)

// generateCommand is for who makes packages.
func (a *app) generateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "generate DIR",
		Short: "Write man pages and shell completion to a directory",
		Long: `Write what packages of condafs install beside the program, all of it made from the
commands themselves: man pages to DIR/man1, and completion for bash, zsh and fish
to DIR/bash, DIR/zsh and DIR/fish under the names that these look for.`,
		Example: "  condafs generate dist/share",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := generate(cmd.Root(), args[0]); err != nil {
				return fault.New("generate", args[0], fault.Other, err)
			}
			return nil
		},
	}
}

func generate(root *cobra.Command, dir string) error {
	for _, d := range []string{"man1", "bash", "zsh", "fish"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	root.DisableAutoGenTag = true // no dates: the same source makes the same files
	date := built()
	header := &doc.GenManHeader{Section: "1", Source: "condafs " + version(), Manual: "condafs", Date: &date}
	if err := doc.GenManTree(root, header, filepath.Join(dir, "man1")); err != nil {
		return err
	}
	if err := root.GenBashCompletionFileV2(filepath.Join(dir, "bash", "condafs"), true); err != nil {
		return err
	}
	if err := root.GenZshCompletionFile(filepath.Join(dir, "zsh", "_condafs")); err != nil {
		return err
	}
	return root.GenFishCompletionFile(filepath.Join(dir, "fish", "condafs.fish"), true)
}

// built is the time of the release.
func built() time.Time {
	t, err := time.Parse(time.RFC3339, releaseTime)
	if err != nil {
		return time.Unix(0, 0).UTC() // none: the pages have a date all the same
	}
	return t
}
