package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"condafs/control"
	"condafs/fault"
	"condafs/fs"
	"condafs/setup"
)

// SetUp is what `condafs setup --json` prints.
type SetUp struct {
	MountPoint string       `json:"mount_point"`
	Steps      []SetUpStep  `json:"steps"`
	Imported   []ImportedOf `json:"imported"`
}

// SetUpStep is one change of a set-up.
type SetUpStep struct {
	What  string `json:"what"`
	State string `json:"state"` // done before, planned, done, undone
}

// ImportedOf is what came of a package cache that was there.
type ImportedOf struct {
	Directory string `json:"directory"`
	Things    int    `json:"things"`
	Rejected  int    `json:"rejected"`
}

// setUpFlags are the flags of setup.
type setUpFlags struct {
	dry, undo, yes, noImport bool
}

func (a *app) setupCommand() *cobra.Command {
	var f setUpFlags
	cmd := &cobra.Command{
		Use:   "setup",
		Short: "Make this user's clients, or for root everybody's, use condafs from now on",
		Long: `Start condafs and have clients use it: after showing what is to be done, and asking.

Where systemd runs, a service is enabled that starts it from now on; else it is mounted
once. conda and mamba are told by pkgs_dirs in ~/.condarc (root: /etc/conda/.condarc),
pixi and Rattler by RATTLER_CACHE_DIR in ~/.config/environment.d, which systemd gives to
a user's services and desktop from the next login on (root: /etc/environment.d, and
/etc/profile.d for login shells). Then the packages of caches that are there are
imported; the caches themselves stay as they are.

--undo takes all of that back, and leaves the store.`,
		Example: "  condafs setup --dry-run\n  condafs setup --yes\n  condafs setup --undo",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o, err := a.configuredOptions()
			if err != nil {
				return err
			}
			s, err := a.setUp(cmd.Context(), o, f)
			if err != nil {
				return err
			}
			return a.show(s, s.print)
		},
	}
	cmd.Flags().BoolVarP(&f.dry, "dry-run", "n", false, "only show what would be done")
	cmd.Flags().BoolVar(&f.undo, "undo", false, "take it back")
	cmd.Flags().BoolVarP(&f.yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&f.noImport, "no-import", false, "leave the packages of caches that are there")
	return cmd
}

func (a *app) setUp(ctx context.Context, o *mountOptions, f setUpFlags) (*SetUp, error) {
	p, err := a.setUpPlaces(os.Geteuid())
	if err != nil {
		return nil, err
	}
	starts, err := a.starting(o)
	if err != nil {
		return nil, err
	}
	s := &SetUp{MountPoint: o.mountPoint, Steps: []SetUpStep{}, Imported: []ImportedOf{}}
	steps := append(starts, p.clients(expectedEnvironment(o))...)
	if f.undo {
		slices.Reverse(steps)
		return s, s.undo(steps, f.dry)
	}
	// Nothing is begun that cannot be ended.
	if err := fs.CheckSystem(o.allowOther); err != nil {
		return nil, err
	}
	caches := []string{}
	if !f.noImport {
		caches = a.oldCaches(o.mountPoint)
	}
	if f.dry {
		for _, c := range caches {
			s.Steps = append(s.Steps, SetUpStep{"import the packages of " + c, "planned"})
		}
		planned, err := plan(steps)
		s.Steps = append(planned, s.Steps...)
		return s, err
	}
	if !f.yes {
		if err := a.confirm(steps, caches); err != nil {
			return nil, err
		}
	}
	if err := s.do(starts); err != nil {
		return nil, err
	}
	e, err := a.environment(target{mount: o.mountPoint}, false)
	if err != nil {
		return nil, err
	}
	if err := s.do(p.clients(e)); err != nil {
		return nil, err
	}
	return s, a.importAll(ctx, s, caches)
}

// plan tells what is to be done.
func plan(steps []setup.Step) (l []SetUpStep, err error) {
	for _, step := range steps {
		done, derr := step.Done()
		err = errors.Join(err, derr)
		l = append(l, SetUpStep{step.String(), map[bool]string{true: "done before", false: "planned"}[done]})
	}
	return l, err
}

// confirm shows what is to be done, and asks.
func (a *app) confirm(steps []setup.Step, caches []string) error {
	l, err := plan(steps)
	if err != nil {
		return err
	}
	if in, ok := a.in.(*os.File); !ok || !isTerminal(in) {
		return fault.New("set up", "", fault.Usage, errors.New("there is nobody to ask")).WithHint("see `condafs setup --dry-run`, then use --yes")
	}
	for _, c := range caches {
		l = append(l, SetUpStep{"import the packages of " + c, "planned"})
	}
	if err := (&SetUp{Steps: l}).print(a.err); err != nil {
		return err
	}
	fmt.Fprint(a.err, "Go on? [y/N] ")
	answer, err := bufio.NewReader(a.in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fault.New("set up", "", fault.Other, err)
	}
	if !slices.Contains([]string{"y", "yes"}, strings.ToLower(strings.TrimSpace(answer))) {
		return fault.New("set up", "", fault.Canceled, errors.New("nothing was done"))
	}
	return nil
}

func (s *SetUp) do(steps []setup.Step) error {
	for _, step := range steps {
		done, err := step.Done()
		if err != nil {
			return err
		}
		state := "done before"
		if !done {
			if err := step.Do(); err != nil {
				return err
			}
			state = "done"
		}
		s.Steps = append(s.Steps, SetUpStep{step.String(), state})
	}
	return nil
}

// undo undoes all that it can: one step that fails leaves the others to be undone.
func (s *SetUp) undo(steps []setup.Step, dry bool) error {
	var failed error
	for _, step := range steps {
		state := "planned"
		if !dry {
			if err := step.Undo(); err != nil {
				failed = errors.Join(failed, err)
				continue
			}
			state = "undone"
		}
		s.Steps = append(s.Steps, SetUpStep{step.String(), state})
	}
	return failed
}

func (s *SetUp) print(w io.Writer) error {
	var rows [][]string
	for _, step := range s.Steps {
		rows = append(rows, []string{step.State, step.What})
	}
	for _, i := range s.Imported {
		rows = append(rows, []string{"imported", fmt.Sprintf("%s from %s, %d rejected", plural(i.Things, "thing"), i.Directory, i.Rejected)})
	}
	return table(w, rows)
}

// setUpPlaces are the files in which clients are told.
type setUpPlaces struct {
	condarc, environment string
	profile              string // for login shells, which systemd's environment.d does not reach; "" for a user, who has no such directory
}

func (a *app) setUpPlaces(uid int) (*setUpPlaces, error) {
	if uid == 0 {
		return &setUpPlaces{"/etc/conda/.condarc", "/etc/environment.d/90-condafs.conf", "/etc/profile.d/90-condafs.sh"}, nil
	}
	config := a.defaultConfig(uid)
	if config == "" || !filepath.IsAbs(a.getenv("HOME")) {
		return nil, fault.New("set up", "", fault.Usage, errors.New("$HOME is not set"))
	}
	return &setUpPlaces{
		condarc:     filepath.Join(a.getenv("HOME"), ".condarc"),
		environment: filepath.Join(filepath.Dir(filepath.Dir(config)), "environment.d", "90-condafs.conf"),
	}, nil
}

func (p *setUpPlaces) clients(e *Environment) []setup.Step {
	rattler := "RATTLER_CACHE_DIR=" + quoted(e.RattlerCacheDir) + "\n"
	steps := []setup.Step{
		&setup.Condarc{Path: p.condarc, Dirs: strings.Split(e.CondaPkgsDirs, ",")},
		&setup.File{Path: p.environment, Text: rattler},
	}
	if p.profile != "" {
		steps = append(steps, &setup.File{Path: p.profile, Text: "export " + rattler})
	}
	return steps
}

// expectedEnvironment is what clients will be told, before anything is mounted.
func expectedEnvironment(o *mountOptions) *Environment {
	e := &Environment{CondaPkgsDirs: o.mountPoint + "/pkgs", RattlerCacheDir: o.mountPoint + "/rattler"}
	if o.shelf != "off" {
		e.CondaPkgsDirs = pkgsDirs(o.mountPoint+"/unshelved", filepath.Join(o.store, "shelf", "pkgs"))
	}
	return e
}

// oldCaches are the package caches that clients have by default.
func (a *app) oldCaches(mountPoint string) []string {
	var l []string
	home := a.getenv("HOME")
	candidates := []string{"/opt/conda/pkgs"}
	if exe := a.getenv("CONDA_EXE"); exe != "" {
		candidates = append(candidates, filepath.Join(filepath.Dir(filepath.Dir(exe)), "pkgs"))
	}
	if filepath.IsAbs(home) {
		for _, d := range []string{"miniforge3", "miniconda3", "mambaforge", "anaconda3", "micromamba", ".conda", ".mamba"} {
			candidates = append(candidates, filepath.Join(home, d, "pkgs"))
		}
		cache := filepath.Join(home, ".cache")
		if c := a.getenv("XDG_CACHE_HOME"); filepath.IsAbs(c) {
			cache = c
		}
		candidates = append(candidates, filepath.Join(cache, "rattler", "cache", "pkgs"))
	}
	for _, c := range candidates {
		real, err := filepath.EvalSymlinks(c)
		if err != nil || slices.Contains(l, real) {
			continue // most are not there
		}
		if rel, err := filepath.Rel(mountPoint, real); err == nil && filepath.IsLocal(rel) {
			continue
		}
		if fi, err := os.Stat(real); err == nil && fi.IsDir() {
			l = append(l, real)
		}
	}
	return l
}

func (a *app) importAll(ctx context.Context, s *SetUp, caches []string) error {
	if len(caches) == 0 {
		return nil
	}
	return a.with(target{mount: s.MountPoint}, false, func(api control.API) error {
		for _, dir := range caches {
			b := a.newBar()
			r, err := api.Import(ctx, control.ImportRequest{Dir: dir}, b.Report)
			b.Close()
			if err != nil {
				return err
			}
			s.Imported = append(s.Imported, ImportedOf{dir, len(r.Imported), len(r.Rejected)})
		}
		return nil
	})
}
