package systemd

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// install copies the units of a kind, with a program that is there in place of ours.
func install(t *testing.T, kind string) (files []string) {
	t.Helper()
	dir := t.TempDir()
	l, err := fs.ReadDir(Units, kind)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range l {
		if e.Name() == "fstab" {
			continue
		}
		b, err := fs.ReadFile(Units, kind+"/"+e.Name())
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, e.Name())
		if err := os.WriteFile(name, []byte(strings.ReplaceAll(string(b), Program, "/bin/true")), 0o644); err != nil {
			t.Fatal(err)
		}
		files = append(files, name)
	}
	return files
}

func analyze(t *testing.T, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Fatalf("%v: install it (on Debian: apt-get install systemd), or run ./test.sh once, which does", err)
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	return string(out), err
}

func TestVerify(t *testing.T) {
	for kind, flag := range map[string]string{"system": "--system", "user": "--user", "examples": "--system"} {
		t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
		files := install(t, kind)
		if out, err := analyze(t, append([]string{"verify", flag, "--man=no"}, files...)...); err != nil || out != "" {
			t.Errorf("%s: %v %s", kind, err, out)
		}
	}
}

// TestExposure holds what is reached: a new unit, or a line less, shows.
func TestExposure(t *testing.T) {
	for name, most := range map[string]string{"condafs.service": "49", "condafs@.service": "49", "condafs-gc.service": "40", "condafs-gc@.service": "40"} {
		for _, f := range install(t, "system") {
			if filepath.Base(f) != name {
				continue
			}
			if out, err := analyze(t, "security", "--offline=true", "--threshold="+most, f); err != nil {
				t.Errorf("%s: %v\n%s", name, err, out)
			}
		}
	}
}

// settings returns the lines of a unit that say something.
func settings(t *testing.T, name string) (lines []string) {
	t.Helper()
	b, err := fs.ReadFile(Units, name)
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(b)) {
		if l = strings.TrimSpace(l); l != "" && !strings.HasPrefix(l, "#") {
			lines = append(lines, l)
		}
	}
	return lines
}

// TestNoMountNamespace: in one of its own, a daemon's mount would be seen by nobody else.
func TestNoMountNamespace(t *testing.T) {
	makesOne := []string{"PrivateMounts", "PrivateTmp", "PrivateDevices", "PrivateIPC", "PrivateUsers", "ProtectSystem", "ProtectHome", "ProtectProc", "ProcSubset",
		"ProtectKernelTunables", "ProtectKernelModules", "ProtectKernelLogs", "ProtectControlGroups", "ProtectHostname", "ReadOnlyPaths", "ReadWritePaths",
		"InaccessiblePaths", "ExecPaths", "NoExecPaths", "BindPaths", "BindReadOnlyPaths", "TemporaryFileSystem", "RootDirectory", "RootImage", "MountImages",
		"ExtensionImages", "MountFlags", "DynamicUser", "LogNamespace", "NetworkNamespacePath", "PrivateNetwork"}
	for _, unit := range []string{"system/condafs.service", "system/condafs@.service", "user/condafs.service", "system/condafs-gc.service", "system/condafs-gc@.service", "user/condafs-gc.service"} {
		for _, l := range settings(t, unit) {
			for _, s := range makesOne {
				if strings.HasPrefix(l, s+"=") {
					t.Errorf("%s has %s", unit, l)
				}
			}
		}
	}
}

// TestTemplates: the templates are the units, but for what they are about.
func TestTemplates(t *testing.T) {
	same := strings.NewReplacer(
		"ExecStartPre=-/usr/bin/mkdir -p -m 0555 %f\n", "", " --store ${STATE_DIRECTORY} %f", "", " --mount %f", "", ", at %f", "", " at %f", "", " %f", "",
		"StateDirectory=condafs-%i", "StateDirectory=condafs", "condafs@%i.service", "condafs.service",
		"RequiresMountsFor=/var/lib\n", "RequiresMountsFor=/var/lib/condafs /var/cache\n")
	for _, of := range []string{"condafs%s.service", "condafs-gc%s.service", "condafs-gc%s.timer"} {
		unit := strings.Join(settings(t, "system/"+strings.Replace(of, "%s", "", 1)), "\n")
		template := same.Replace(strings.Join(settings(t, "system/"+strings.Replace(of, "%s", "@", 1)), "\n"))
		if unit != template {
			t.Errorf("%s: the unit is\n%s\nand the template\n%s", of, unit, template)
		}
	}
}
