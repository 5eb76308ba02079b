package doctor

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"condafs/control"
	"condafs/fault"
)

// patient is one with nothing wrong: a mount, and clients that use it.
func patient(t *testing.T) (*Patient, map[string]string) {
	t.Helper()
	root := t.TempDir()
	env := map[string]string{"HOME": filepath.Join(root, "home"), "CONDA_PKGS_DIRS": "/m/unshelved,/s/shelf/pkgs", "RATTLER_CACHE_DIR": "/m/rattler"}
	write(t, root, "proc/7/comm", "condafs\n")
	write(t, root, "proc/sys/user/max_user_namespaces", "1000\n")
	return &Patient{
		UID: 1000, Getenv: func(k string) string { return env[k] }, MountPoint: "/m", Store: filepath.Join(root, "none"), Version: "v1", Root: root,
		Mounts: func() ([]control.Mount, error) {
			return []control.Mount{{Point: "/m", Root: "/", Type: control.FSType}}, nil
		},
		Info: func(string) (control.Info, error) {
			return control.Info{Store: root, PID: 7, Version: "v1"}, nil
		},
		System: func(bool) error { return nil }, Place: func(string, bool) error { return nil },
	}, env
}

func write(t *testing.T, root, name, text string) {
	t.Helper()
	name = filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// about returns what is found of this kind that is not fine, but the room of the store,
// which is that of the machine that tests.
func about(l []Finding) (bad []Finding) {
	for _, f := range l {
		if f.State != Fine && !strings.HasPrefix(f.Check, "store ") {
			bad = append(bad, f)
		}
	}
	return bad
}

func TestHealthy(t *testing.T) {
	p, _ := patient(t)
	if bad := about(p.Examine()); len(bad) > 0 {
		t.Errorf("%+v", bad)
	}
}

func TestFindings(t *testing.T) {
	for name, c := range map[string]struct {
		change     func(t *testing.T, p *Patient, env map[string]string)
		state      State
		what, mend string
	}{
		"no fuse": {func(_ *testing.T, p *Patient, _ map[string]string) {
			p.System = func(bool) error {
				return fault.New("mount", "/dev/fuse", fault.NotFound, errors.New("no device")).WithHint("modprobe fuse")
			}
		}, Wrong, "mount /dev/fuse: no device", "modprobe fuse"},
		"no namespaces": {func(t *testing.T, p *Patient, _ map[string]string) {
			write(t, p.Root, "proc/sys/user/max_user_namespaces", "0\n")
		}, Warning, "no namespaces", "sysctl user.max_user_namespaces=10000"},
		"a dead daemon": {func(_ *testing.T, p *Patient, _ map[string]string) {
			p.Info = func(string) (control.Info, error) {
				return control.Info{}, fault.New("", "", fault.NotMounted, control.ErrDead)
			}
		}, Wrong, "Transport endpoint is not connected", "condafs mount /m"},
		"a daemon that hangs": {func(t *testing.T, p *Patient, _ map[string]string) {
			p.Info = func(string) (control.Info, error) {
				return control.Info{}, fault.New("find", "/m", fault.NotMounted, control.ErrHangs).WithHint("condafs umount --lazy /m")
			}
			p.Place = func(string, bool) error {
				t.Error("the mount is asked once more")
				return nil
			}
		}, Wrong, "has not answered", "condafs umount --lazy /m"},
		"another user's mount": {func(_ *testing.T, p *Patient, _ map[string]string) {
			p.MountPoint = "/other"
			p.Info = func(string) (control.Info, error) {
				return control.Info{}, fault.New("find", "/m", fault.Permission, errors.New("permission denied")).WithHint("--allow-other")
			}
		}, Wrong, "find /m: permission denied", "--allow-other"},
		"a container": {func(_ *testing.T, p *Patient, _ map[string]string) {
			p.Info = func(string) (control.Info, error) { return control.Info{PID: 8, Version: "v1"}, nil }
		}, Warning, "outside of this container", "condafs run"},
		"an old daemon": {func(_ *testing.T, p *Patient, _ map[string]string) { p.Version = "v2" }, Warning, "of version v1, and this program of v2", "condafs upgrade --mount /m"},
		"nothing mounted": {func(t *testing.T, p *Patient, _ map[string]string) {
			p.MountPoint = t.TempDir()
			p.Mounts = func() ([]control.Mount, error) { return nil, nil }
		}, Warning, "nothing is mounted", "condafs mount"},
		"a full mount point": {func(t *testing.T, p *Patient, _ map[string]string) {
			p.MountPoint = t.TempDir()
			p.Place = func(string, bool) error {
				return fault.New("mount", "/x", fault.Exists, errors.New("not empty")).WithHint("give an empty one")
			}
		}, Wrong, "not empty", "give an empty one"},
		"no list of mounts": {func(_ *testing.T, p *Patient, _ map[string]string) {
			p.Mounts = func() ([]control.Mount, error) { return nil, fault.New("list mounts", "", fault.IO, errors.New("no")) }
		}, Wrong, "list mounts: no", ""},
		"conda elsewhere": {func(_ *testing.T, _ *Patient, env map[string]string) {
			env["CONDA_PKGS_DIRS"] = "/home/u/pkgs,/m/pkgs"
		}, Warning, "/home/u/pkgs, /m/pkgs, as $CONDA_PKGS_DIRS has it, which is not on the mount", "eval"},
		"conda not told": {func(_ *testing.T, _ *Patient, env map[string]string) { delete(env, "CONDA_PKGS_DIRS") }, Warning, "no pkgs_dirs is set", "condafs env --format condarc --mount /m >> ~/.condarc"},
		"conda told elsewhere": {func(t *testing.T, p *Patient, env map[string]string) {
			delete(env, "CONDA_PKGS_DIRS")
			write(t, p.Root, "home/.condarc", "channels: [x]\npkgs_dirs:\n  - ~/pkgs\n")
		}, Warning, "home/pkgs, as ", "condarc"},
		"pixi not told": {func(_ *testing.T, _ *Patient, env map[string]string) { delete(env, "RATTLER_CACHE_DIR") }, Warning, "RATTLER_CACHE_DIR is not set", "environment.d"},
		"pixi told for the next login": {func(t *testing.T, p *Patient, env map[string]string) {
			delete(env, "RATTLER_CACHE_DIR")
			write(t, p.Root, "home/.config/environment.d/90-condafs.conf", "# ours\nRATTLER_CACHE_DIR='/m/rattler'\n")
		}, Warning, "90-condafs.conf sets RATTLER_CACHE_DIR", "eval"},
		"pixi elsewhere": {func(_ *testing.T, _ *Patient, env map[string]string) { env["RATTLER_CACHE_DIR"] = "/mother" }, Warning, "/mother, which is not on the mount", "eval"},
		"a broken condarc": {func(t *testing.T, p *Patient, env map[string]string) {
			delete(env, "CONDA_PKGS_DIRS")
			write(t, p.Root, "home/.condarc", "\t: [")
		}, Warning, "no pkgs_dirs is set", "condarc"},
	} {
		t.Run(name, func(t *testing.T) {
			p, env := patient(t)
			c.change(t, p, env)
			bad := about(p.Examine())
			if len(bad) != 1 || bad[0].State != c.state || !strings.Contains(bad[0].What, c.what) || !strings.Contains(bad[0].Mend, c.mend) || strings.Contains(bad[0].What, bad[0].Mend) && bad[0].Mend != "" {
				t.Errorf("%+v", bad)
			}
			if Worst(bad) != c.state {
				t.Errorf("worst is %s", Worst(bad))
			}
		})
	}
}

func TestCondarc(t *testing.T) {
	p, env := patient(t)
	delete(env, "CONDA_PKGS_DIRS")
	write(t, p.Root, "home/.condarc", "pkgs_dirs: [/m/unshelved, /s]\n")
	if bad := about(p.Examine()); len(bad) > 0 {
		t.Errorf("%+v", bad)
	}
	write(t, p.Root, "etc/conda/.condarc", "pkgs_dirs: [/other]\n")
	env["CONDARC"] = filepath.Join(p.Root, "none")
	if bad := about(p.Examine()); len(bad) > 0 {
		t.Errorf("the user's own goes before: %+v", bad)
	}
}

func TestRoom(t *testing.T) {
	const gib = 1 << 30
	for _, c := range []struct {
		total, free, files, filesFree uint64
		state                         State
	}{
		{100 * gib, 50 * gib, 1000, 500, Fine}, {100 * gib, gib, 1000, 500, Warning}, {10 * gib, gib, 0, 0, Fine}, {10 * gib, gib / 4, 0, 0, Warning}, {100 * gib, 50 * gib, 1000, 10, Warning},
	} {
		if f := room("/s", c.total, c.free, c.files, c.filesFree); f.State != c.state || (f.Mend == "") != (f.State == Fine) {
			t.Errorf("%+v: %+v", c, f)
		}
	}
}

func TestKernel(t *testing.T) {
	p := &Patient{UID: 0}
	for release, passes := range map[string]bool{"6.1.0-18-amd64": false, "6.9.1": true, "6.18.44-x": true, "7.0-rc1": true, "5.15.0": false} {
		if f := p.kernel(release); strings.Contains(f.What, "through the daemon") == passes || f.State != Fine {
			t.Errorf("%+v", f)
		}
	}
}
