package main

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"condafs/control"
	"condafs/fault"
	"condafs/setup"
	"condafs/systemd"
)

// booted is there where systemd manages the system.
const booted = "/run/systemd/system"

// packaged is where packages put their units.
const packaged = "/usr/lib/systemd"

// starting are the steps after which something is mounted: a service where there is
// systemd, or only a mount.
func (a *app) starting(o *mountOptions) ([]setup.Step, error) {
	kind, flag, dir := "system", "--system", "/etc/systemd/system"
	if os.Geteuid() != 0 {
		kind, flag, dir = "user", "--user", filepath.Join(filepath.Dir(filepath.Dir(a.defaultConfig(os.Geteuid()))), "systemd", "user")
	}
	// A user's has a bus of its own.
	if _, err := os.Stat(booted); err != nil || kind == "user" && a.getenv("XDG_RUNTIME_DIR") == "" {
		return []setup.Step{&mountStep{o.mountPoint}}, nil
	}
	exe, err := program("")
	if err != nil {
		return nil, err
	}
	return serviceSteps(kind, flag, dir, packaged, exe)
}

// serviceSteps write the units, unless a package has, and enable them.
func serviceSteps(kind, flag, dir, packaged, exe string) ([]setup.Step, error) {
	var steps []setup.Step
	units := []string{"condafs.service", "condafs-gc.service", "condafs-gc.timer"}
	if _, err := os.Stat(filepath.Join(packaged, kind, units[0])); err != nil {
		for _, u := range units {
			b, err := fs.ReadFile(systemd.Units, kind+"/"+u)
			if err != nil {
				return nil, fault.New("set up", u, fault.Other, err)
			}
			steps = append(steps, &setup.File{Path: filepath.Join(dir, u), Text: strings.ReplaceAll(string(b), systemd.Program, unitPath(exe))})
		}
	}
	return append(steps, &enableStep{flag, []string{units[0], units[2]}}), nil
}

// unitPath writes a path as units have it.
func unitPath(path string) string {
	return strings.NewReplacer("%", "%%", `\`, `\\`, " ", `\x20`, "$", "$$").Replace(path)
}

// enableStep starts units, now and from now on.
type enableStep struct {
	flag  string // --system or --user
	units []string
}

func (e *enableStep) String() string {
	return "enable and start " + strings.Join(e.units, " and ") + " (systemctl " + e.flag + ")"
}

func (e *enableStep) Done() (bool, error) {
	for _, ask := range []string{"is-enabled", "is-active"} {
		err := exec.Command("systemctl", append([]string{e.flag, "--quiet", ask}, e.units...)...).Run()
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return false, nil // it says so by its exit status
		}
		if err != nil {
			return false, fault.New("ask systemctl", "", fault.Other, err)
		}
	}
	return true, nil
}

func (e *enableStep) Do() error {
	if err := e.systemctl("daemon-reload"); err != nil {
		return err
	}
	return e.systemctl("enable", "--now")
}

func (e *enableStep) Undo() error {
	if done, err := e.Done(); !done {
		return err
	}
	return e.systemctl("disable", "--now")
}

func (e *enableStep) systemctl(args ...string) error {
	all := append([]string{e.flag}, args...)
	if len(args) > 1 {
		all = append(all, e.units...)
	}
	if out, err := exec.Command("systemctl", all...).CombinedOutput(); err != nil {
		said := strings.TrimSpace(string(out))
		return fault.New("systemctl "+strings.Join(all, " "), "", fault.Other, errors.Join(err, errors.New(said))).WithHint("see: journalctl " + e.flag + " -u " + e.units[0])
	}
	return nil
}

// mountStep mounts once, where nothing does it from now on.
type mountStep struct{ point string }

func (m *mountStep) String() string {
	return "mount at " + m.point + " (there is no systemd that would do it at each start)"
}

func (m *mountStep) Done() (bool, error) {
	_, err := control.ReadInfo(m.point)
	return err == nil, nil // what else is there, mounting says
}

func (m *mountStep) Do() error { return m.self("mount") }

func (m *mountStep) Undo() error {
	if done, err := m.Done(); !done {
		return err
	}
	return m.self("umount")
}

// self runs this program without arguments, so that what is configured holds.
func (m *mountStep) self(command string) error {
	cmd := exec.Command("/proc/self/exe", command)
	cmd.Env = append(os.Environ(), envMount+"="+m.point)
	if out, err := cmd.CombinedOutput(); err != nil {
		said := strings.TrimPrefix(strings.TrimSpace(string(out)), "condafs: ")
		return fault.New("set up", "", fault.Other, errors.New(said))
	}
	return nil
}
