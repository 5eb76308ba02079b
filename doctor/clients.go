package doctor

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"condafs/control"
)

// clients looks where conda, mamba, pixi and Rattler keep their packages.
func (p *Patient) clients(mounted map[string]control.Info) []Finding {
	points := slices.Sorted(maps.Keys(mounted))
	if len(points) == 0 {
		return nil
	}
	point := p.MountPoint
	if !slices.Contains(points, point) {
		point = points[0]
	}
	return []Finding{p.conda(point, points), p.rattler(points)}
}

// conda names the mount at point as the one to use.
func (p *Patient) conda(point string, points []string) Finding {
	f := Finding{Check: "conda, mamba", State: Fine}
	dirs, where := p.pkgsDirs()
	f.What = fmt.Sprintf("packages go to %s, as %s has it", strings.Join(dirs, ", "), where)
	switch {
	case len(dirs) == 0:
		f.State, f.What = Warning, "no pkgs_dirs is set: they keep packages in a directory of their own"
	case !on(dirs[0], points):
		f.State = Warning
		f.What += ", which is not on the mount"
	default:
		return f
	}
	f.Mend = "condafs env --format condarc --mount " + point + " >> ~/.condarc (or for this shell: eval \"$(condafs env)\")"
	if strings.HasPrefix(where, "$") {
		f.Mend = "eval \"$(condafs env)\""
	}
	return f
}

func (p *Patient) rattler(points []string) Finding {
	f := Finding{Check: "pixi, Rattler", State: Fine}
	dir := p.Getenv("RATTLER_CACHE_DIR")
	switch {
	case dir == "":
		f.State, f.What = Warning, "RATTLER_CACHE_DIR is not set: they keep packages in a directory of their own"
		if file := p.environmentFile("RATTLER_CACHE_DIR"); file != "" {
			f.What = file + " sets RATTLER_CACHE_DIR for services and desktops, but this shell does not have it"
			f.Mend = "eval \"$(condafs env)\", in ~/.profile for each login"
			return f
		}
	case !on(dir, points):
		f.State, f.What = Warning, "RATTLER_CACHE_DIR is "+dir+", which is not on the mount"
	default:
		f.What = "packages go to " + dir
		return f
	}
	f.Mend = "condafs env --format environment.d > ~/.config/environment.d/condafs.conf (or for this shell: eval \"$(condafs env)\")"
	return f
}

// environmentFile returns the file of environment.d(5) that sets a variable, or "".
func (p *Patient) environmentFile(name string) string {
	config := p.Getenv("XDG_CONFIG_HOME")
	if config == "" {
		config = filepath.Join(p.Getenv("HOME"), ".config")
	}
	for _, dir := range []string{config, filepath.Join(p.Root, "etc")} {
		files, _ := filepath.Glob(filepath.Join(dir, "environment.d", "*.conf")) // the pattern is right
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err == nil && strings.Contains("\n"+string(b), "\n"+name+"=") {
				return file
			}
		}
	}
	return ""
}

// on tells whether a directory is on one of the mounts. Their own files are not looked at:
// that would begin a session.
func on(dir string, points []string) bool {
	return slices.ContainsFunc(points, func(point string) bool {
		rel, err := filepath.Rel(point, filepath.Clean(dir))
		return err == nil && filepath.IsLocal(rel)
	})
}

// pkgsDirs is what conda takes for pkgs_dirs, and where that is said.
func (p *Patient) pkgsDirs() (dirs []string, where string) {
	for _, name := range []string{"CONDA_PKGS_DIRS", "MAMBA_PKGS_DIRS"} {
		if v := p.Getenv(name); v != "" {
			return strings.Split(v, ","), "$" + name
		}
	}
	for _, file := range p.condarcs() {
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		var rc struct {
			Dirs []string `yaml:"pkgs_dirs"`
		}
		// What conda itself does not understand is for conda to say.
		if err := yaml.Unmarshal(b, &rc); err == nil && len(rc.Dirs) > 0 {
			for i, d := range rc.Dirs {
				if rest, ok := strings.CutPrefix(d, "~/"); ok {
					rc.Dirs[i] = filepath.Join(p.Getenv("HOME"), rest)
				}
			}
			return rc.Dirs, file
		}
	}
	return nil, ""
}

// condarcs are the files that conda reads, those first that go before.
func (p *Patient) condarcs() []string {
	var l []string
	if rc := p.Getenv("CONDARC"); rc != "" {
		l = append(l, rc)
	}
	if prefix := p.Getenv("CONDA_PREFIX"); prefix != "" {
		l = append(l, filepath.Join(prefix, ".condarc"), filepath.Join(prefix, "condarc"))
	}
	if home := p.Getenv("HOME"); home != "" {
		l = append(l, filepath.Join(home, ".condarc"), filepath.Join(home, ".conda/.condarc"), filepath.Join(home, ".conda/condarc"), filepath.Join(home, ".mambarc"))
	}
	if config := p.Getenv("XDG_CONFIG_HOME"); config != "" {
		l = append(l, filepath.Join(config, "conda/.condarc"), filepath.Join(config, "conda/condarc"))
	}
	return append(l, filepath.Join(p.Root, "etc/conda/.condarc"), filepath.Join(p.Root, "etc/conda/condarc"), filepath.Join(p.Root, "var/lib/conda/.condarc"))
}
