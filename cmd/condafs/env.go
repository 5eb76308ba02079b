package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"condafs/control"
)

// envFormats are the values of --format.
var envFormats = []string{"sh", "fish", "environment.d", "condarc"}

// Environment is what `condafs env --json` prints: variables for clients.
type Environment struct {
	CondaPkgsDirs   string `json:"CONDA_PKGS_DIRS"`
	RattlerCacheDir string `json:"RATTLER_CACHE_DIR"`
}

func (a *app) envCommand() *cobra.Command {
	var t target
	var format string
	var noShelf bool
	cmd := &cobra.Command{
		Use:   "env",
		Short: "Print the variables that point clients at the mount",
		Long: `Print the variables that point conda, mamba, pixi and Rattler at the mount, for a
shell, for environment.d of systemd, or for .condarc (conda's part only).

conda and mamba get two package directories: their view on the mount, which takes
what they download, and the shelf, from which they link what others have made.`,
		Example: `  eval "$(condafs env)"
  condafs env --format fish | source
  condafs env --format environment.d > ~/.config/environment.d/condafs.conf
  condafs env --format condarc >> ~/.condarc`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if err := checkChoice("env", "format", format, envFormats); err != nil {
				return err
			}
			e, err := a.environment(t, noShelf)
			if err != nil {
				return err
			}
			return a.show(e, func(w io.Writer) error { return e.print(w, format) })
		},
	}
	t.mountFlag(cmd)
	cmd.Flags().StringVar(&format, "format", envFormats[0], strings.Join(envFormats, ", "))
	cmd.Flags().BoolVar(&noShelf, "no-shelf", false, "one package directory only, for clients that know no more")
	if err := cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(envFormats, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag is defined above
	}
	return cmd
}

func (a *app) environment(t target, noShelf bool) (*Environment, error) {
	p, err := a.locate(t)
	if err != nil {
		return nil, err
	}
	info, err := control.ReadInfo(p.mount)
	if err != nil {
		return nil, err
	}
	e := &Environment{CondaPkgsDirs: p.mount + "/pkgs", RattlerCacheDir: p.mount + "/rattler"}
	if !noShelf && readable(info.Shelf) {
		e.CondaPkgsDirs = pkgsDirs(p.mount+"/unshelved", info.Shelf)
	}
	return e, nil
}

// readable tells whether there is a shelf for this user.
func readable(shelf string) bool {
	if shelf == "" {
		return false
	}
	_, err := os.Lstat(filepath.Join(shelf, "urls.txt"))
	return err == nil
}

// pkgsDirs is a value of CONDA_PKGS_DIRS: where to write, and where to look as well.
func pkgsDirs(view, shelf string) string {
	if shelf == "" {
		return view
	}
	return view + "," + shelf
}

func (e *Environment) print(w io.Writer, format string) error {
	vars := [][2]string{{"CONDA_PKGS_DIRS", e.CondaPkgsDirs}, {"RATTLER_CACHE_DIR", e.RattlerCacheDir}}
	var b strings.Builder
	switch format {
	case "condarc":
		b.WriteString("pkgs_dirs:\n")
		for dir := range strings.SplitSeq(e.CondaPkgsDirs, ",") {
			fmt.Fprintf(&b, "  - %s\n", dir)
		}
	case "fish":
		for _, v := range vars {
			fmt.Fprintf(&b, "set -gx %s %s\n", v[0], quoted(v[1]))
		}
	case "environment.d":
		for _, v := range vars {
			fmt.Fprintf(&b, "%s=%s\n", v[0], quoted(v[1]))
		}
	default:
		for _, v := range vars {
			fmt.Fprintf(&b, "export %s=%s\n", v[0], quoted(v[1]))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// quoted quotes a value for shells.
func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
