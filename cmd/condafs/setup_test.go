package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"condafs/conda/condatest"
	"condafs/fault"
	"condafs/setup"
)

// states are what became of each step.
func (s *SetUp) states() (l []string) {
	for _, step := range s.Steps {
		l = append(l, step.State)
	}
	s.Steps = nil
	return l
}

func TestSetUp(t *testing.T) {
	h := mounted(t)
	home := h.mkdir("home")
	env := map[string]string{"HOME": home, "CONDA_EXE": filepath.Join(home, "conda", "bin", "conda"), "XDG_CACHE_HOME": filepath.Join(home, "c")}
	a := &app{in: strings.NewReader("y\n"), out: &bytes.Buffer{}, err: &bytes.Buffer{}, getenv: func(k string) string { return env[k] }}
	p := condatest.Package{Name: "a", Version: "1", Build: "0", Files: []condatest.File{{Path: "bin/a", Body: "x"}}}
	h.write("home/conda/pkgs/"+p.Dist()+".conda", string(p.Conda()))
	h.write("home/c/rattler/cache/pkgs/broken-1-0/info/index.json", "{}")
	if err := os.Symlink(h.mount+"/pkgs", filepath.Join(h.mkdir("home/.conda"), "pkgs")); err != nil {
		t.Fatal(err)
	}
	caches := a.oldCaches(h.mount)
	if want := []string{home + "/conda/pkgs", home + "/c/rattler/cache/pkgs"}; !slices.Equal(slices.DeleteFunc(caches, func(c string) bool { return !strings.HasPrefix(c, home) }), want) {
		t.Errorf("%q, want %q", caches, want)
	}
	places, err := a.setUpPlaces(1000)
	if err != nil || places.condarc != home+"/.condarc" || places.environment != home+"/.config/environment.d/90-condafs.conf" {
		t.Fatalf("%+v %v", places, err)
	}
	if root, err := a.setUpPlaces(0); err != nil || !strings.HasPrefix(root.profile, "/etc/profile.d/") || places.profile != "" {
		t.Errorf("%+v %v", root, err)
	}
	places.profile = filepath.Join(home, "profile.sh")
	h.write("home/.condarc", "channels: [x]\n")
	e, err := a.environment(target{mount: h.mount}, false)
	if err != nil {
		t.Fatal(err)
	}
	if expected := expectedEnvironment(&mountOptions{mountPoint: h.mount, store: h.store, shelf: "auto"}); *expected != *e {
		t.Errorf("%+v was expected, and is %+v", expected, e)
	}
	steps := append([]setup.Step{&mountStep{h.mount}}, places.clients(e)...)
	s := &SetUp{MountPoint: h.mount}
	for _, want := range [][]string{{"done before", "done", "done", "done"}, {"done before", "done before", "done before", "done before"}} {
		if err := s.do(steps); err != nil {
			t.Fatal(err)
		}
		if got := s.states(); !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
	rc, err := os.ReadFile(places.condarc)
	if err != nil || !strings.Contains(string(rc), h.mount+"/unshelved\n") || !strings.HasPrefix(string(rc), "channels: [x]\n") {
		t.Errorf("%v %s", err, rc)
	}
	if err := a.importAll(context.Background(), s, caches); err != nil || len(s.Imported) != 2 || s.Imported[0].Things != 1 || s.Imported[1].Rejected != 1 {
		t.Errorf("%+v %v", s.Imported, err)
	}
	slices.Reverse(steps)
	if out, err := exec.Command("sh", "-c", ". "+places.profile+"; env").Output(); err != nil || !strings.Contains(string(out), "RATTLER_CACHE_DIR="+e.RattlerCacheDir+"\n") {
		t.Errorf("%v %s", err, out)
	}
	if err := s.undo(steps[:3], false); err != nil {
		t.Error(err)
	}
	if rc, err := os.ReadFile(places.condarc); err != nil || string(rc) != "channels: [x]\n" {
		t.Errorf("%v %s", err, rc)
	}
	for _, file := range []string{places.environment, places.profile} {
		if _, err := os.Lstat(file); !os.IsNotExist(err) {
			t.Error(err)
		}
	}
	if err := a.confirm(steps, nil); !fault.Is(err, fault.Usage) || !strings.Contains(err.Error(), "--yes") {
		t.Errorf("there is no terminal: %v", err)
	}
}

func TestSetUpIsPlannedFirst(t *testing.T) {
	h := newHost(t)
	for _, args := range [][]string{{"setup", "--dry-run"}, {"setup", "--dry-run", "--undo"}} {
		var s SetUp
		h.json(&s, args...)
		if s.MountPoint != h.mount || len(s.Steps) < 3 || slices.Contains(s.states(), "done") {
			t.Errorf("%+v", s)
		}
	}
	h.fails(2, "there is nobody to ask", "setup", "--no-import")
	if l, err := os.ReadDir(h.mount); err != nil || len(l) > 0 {
		t.Errorf("%v %v", l, err)
	}
}

// TestSetUpService has a systemctl that notes what it is asked.
func TestSetUpService(t *testing.T) {
	dir := t.TempDir()
	units, packaged := filepath.Join(dir, "units"), filepath.Join(dir, "packaged")
	script := "#!/bin/sh\necho \"$@\" >> " + dir + "/asked\ncase \"$*\" in *enable*--now*condafs.service*) touch " + dir + "/on;; *disable*) rm " + dir + "/on;; *is-*) test -e " + dir + "/on;; esac\n"
	script = strings.Replace(script, "*enable*--now*", "*\" enable --now \"*", 1)
	if err := os.WriteFile(filepath.Join(dir, "systemctl"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	steps, err := serviceSteps("user", "--user", units, packaged, "/opt/my condafs/100%")
	if err != nil || len(steps) != 4 {
		t.Fatal(steps, err)
	}
	s := &SetUp{}
	for _, want := range []string{"done", "done before"} {
		if err := s.do(steps); err != nil {
			t.Fatal(err)
		}
		if got := s.states(); slices.ContainsFunc(got, func(s string) bool { return s != want }) {
			t.Errorf("%q, want %s", got, want)
		}
	}
	unit, err := os.ReadFile(filepath.Join(units, "condafs.service"))
	if err != nil || !strings.Contains(string(unit), `ExecStart=/opt/my\x20condafs/100%% mount --foreground`) {
		t.Errorf("%v %s", err, unit)
	}
	slices.Reverse(steps)
	for range 2 {
		if err := s.undo(steps, false); err != nil {
			t.Error(err)
		}
	}
	if l, err := os.ReadDir(units); err != nil || len(l) > 0 {
		t.Errorf("%v %v", l, err)
	}
	asked, err := os.ReadFile(filepath.Join(dir, "asked"))
	if err != nil || !strings.Contains(string(asked), "--user daemon-reload\n--user enable --now condafs.service condafs-gc.timer\n") || !strings.Contains(string(asked), "--user disable --now condafs.service condafs-gc.timer\n") {
		t.Errorf("%v %s", err, asked)
	}
	// A package's units are used as they are.
	if err := os.MkdirAll(filepath.Join(packaged, "user"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(packaged, "user", "condafs.service"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if steps, err := serviceSteps("user", "--user", units, packaged, "/x"); err != nil || len(steps) != 1 {
		t.Errorf("%v %v", steps, err)
	}
}
