package packaging

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"condafs/internal/longrun"
)

// recipe is what these tests know of nfpm.yaml.
type recipe struct {
	Contents []struct{ Src, Dst, Type, Packager string }
	Scripts  map[string]string
}

func read(t *testing.T) *recipe {
	t.Helper()
	b, err := os.ReadFile("nfpm.yaml")
	if err != nil {
		t.Fatal(err)
	}
	r := new(recipe)
	if err := yaml.Unmarshal(b, r); err != nil {
		t.Fatal(err)
	}
	return r
}

// TestRecipe: what the packages are to hold is there, or is built.
func TestRecipe(t *testing.T) {
	r := read(t)
	seen := map[string]bool{}
	for _, c := range r.Contents {
		if c.Type != "symlink" && !strings.HasPrefix(c.Src, "dist/") {
			if _, err := os.Stat(filepath.Join("..", c.Src)); err != nil {
				t.Error(err)
			}
		}
		if key := c.Packager + c.Dst; seen[key] || !filepath.IsAbs(c.Dst) {
			t.Errorf("%+v", c)
		} else {
			seen[key] = true
		}
	}
	if len(r.Contents) < 10 || len(r.Scripts) != 3 {
		t.Errorf("%+v", r)
	}
}

func TestScripts(t *testing.T) {
	scripts, err := filepath.Glob("*.sh")
	if err != nil || len(scripts) < 5 {
		t.Fatal(scripts, err)
	}
	for _, name := range scripts {
		shell := "sh"
		if name == "build.sh" {
			shell = "bash"
		}
		if out, err := exec.Command(shell, "-n", name).CombinedOutput(); err != nil {
			t.Errorf("%s: %v %s", name, err, out)
		}
	}
	for _, script := range read(t).Scripts {
		if !slices.Contains(scripts, filepath.Base(script)) {
			t.Errorf("there is no %s", script)
		}
	}
	// Where no systemd runs, a package's scripts have nothing to do.
	for _, c := range [][]string{{"postinstall.sh", "configure"}, {"preremove.sh", "remove"}, {"preremove.sh", "upgrade"}, {"preremove.sh", "0"}, {"postremove.sh", "purge"}} {
		cmd := exec.Command("sh", c...)
		cmd.Env = []string{"DPKG_ROOT=" + t.TempDir()}
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%q: %v %s", c, err, out)
		}
	}
}

func TestExamples(t *testing.T) {
	files, err := filepath.Glob("examples/*.yml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var doc map[string]any
		if err := yaml.Unmarshal(b, &doc); err != nil || len(doc) == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func run(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	var msg bytes.Buffer
	cmd.Stderr = &msg
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s%s", name, args, err, out, msg.String())
	}
	return string(out)
}

// build builds the packages in a clone of its own, and returns where they are.
func build(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "clone")
	run(t, "..", "git", "clone", "-q", "--no-hardlinks", ".", dir)
	run(t, dir, "bash", "packaging/build.sh")
	return filepath.Join(dir, "dist")
}

func only(t *testing.T, pattern string) string {
	t.Helper()
	l, err := filepath.Glob(pattern)
	if err != nil || len(l) != 1 {
		t.Fatalf("%s: %q %v", pattern, l, err)
	}
	return l[0]
}

func sum(t *testing.T, name string) [32]byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(b)
}

// TestPackages builds what HEAD is, twice in different places, and installs and removes it.
func TestPackages(t *testing.T) {
	if !longrun.Wanted() {
		t.Skip("it compiles for minutes")
	}
	one, two := build(t), build(t)
	for _, pattern := range []string{"*/condafs", "*.deb", "*.rpm"} {
		if sum(t, only(t, filepath.Join(one, pattern))) != sum(t, only(t, filepath.Join(two, pattern))) {
			t.Errorf("%s is not the same the second time", pattern)
		}
	}
	if out := run(t, ".", "file", only(t, filepath.Join(one, "*/condafs"))); !strings.Contains(out, "statically linked") {
		t.Error(out)
	}
	root := t.TempDir()
	for _, d := range []string{"var/lib/dpkg/info", "var/lib/dpkg/updates"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "var/lib/dpkg/status"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	dpkg := func(args ...string) {
		run(t, ".", "dpkg", append([]string{"--root=" + root, "--force-script-chrootless"}, args...)...)
	}
	dpkg("--install", only(t, filepath.Join(one, "*.deb")))
	if out := run(t, ".", filepath.Join(root, "usr/bin/condafs"), "version"); !strings.HasPrefix(out, "condafs 0.0.0~") {
		t.Error(out)
	}
	for _, name := range []string{"usr/lib/systemd/system/condafs@.service", "usr/lib/systemd/user/condafs.service", "etc/condafs/config.toml", "usr/share/bash-completion/completions/condafs"} {
		if _, err := os.Stat(filepath.Join(root, name)); err != nil {
			t.Error(err)
		}
	}
	if to, err := os.Readlink(filepath.Join(root, "usr/sbin/mount.fuse.condafs")); err != nil || to != "/usr/bin/condafs" {
		t.Error(to, err)
	}
	only(t, filepath.Join(root, "usr/share/man/man1/condafs-mount.1*"))
	dpkg("--purge", "condafs")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !strings.HasPrefix(path, filepath.Join(root, "var/lib/dpkg")+"/") {
			err = errors.New(path + " is left behind")
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
