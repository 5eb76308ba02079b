package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"condafs/config"
	"condafs/control"
	"condafs/fault"
)

// settingsOf resolves a command line of mount.
func settingsOf(t *testing.T, file string, env map[string]string, args ...string) (*settings, *mountOptions, error) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "c.toml")
	if err := os.WriteFile(name, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	a := &app{configFile: name, configSaid: true, getenv: func(k string) string { return env[k] }}
	var o mountOptions
	cmd := &cobra.Command{}
	o.flags(cmd)
	if err := cmd.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	s, err := a.settings(cmd.Flags(), cmd.Flags().Args())
	if err == nil {
		o.mountPoint = s.point
		err = a.resolveMount(&o)
	}
	return s, &o, err
}

func (s *settings) of(key string) Setting {
	for _, e := range s.list {
		if e.Key == key {
			e.Where = strings.TrimPrefix(e.Where, filepath.Dir(e.Where)+"/")
			return e
		}
	}
	return Setting{}
}

func TestSettings(t *testing.T) {
	const file = "mount_point = '/f/m'\nstore = '/f/s'\nallow_other = true\nscrub = '1M'\nscrub_every = '1d'\nshare = 'none'\nlimit = {open = 7}\ntrust = ['1', 2]\noptions = ['noatime', 'ro,nodev']\n"
	env := map[string]string{"CONDAFS_SCRUB": "2M", "CONDAFS_TRUST": "3,4", "CONDAFS_SHARE": "all", "CONDAFS_LOG_FORMAT": "json"}
	s, o, err := settingsOf(t, file, env, "--scrub", "3M", "-o", "share=trusted,exec", "--log-file", "/x")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []Setting{
		{"mount_point", "/f/m", config.FromFile, "c.toml"}, {"store", "/f/s", config.FromFile, "c.toml"}, {"allow_other", true, config.FromFile, "c.toml"},
		{"scrub", "3M", config.Command, "--scrub"}, {"scrub_every", "1d", config.FromFile, "c.toml"}, {"trust", []string{"3", "4"}, config.Environment, "$CONDAFS_TRUST"},
		{"limit", []string{"open=7"}, config.FromFile, "c.toml"}, {"log_format", "json", config.Environment, "$CONDAFS_LOG_FORMAT"}, {"shelf", "auto", config.Default, ""},
		{"share", "trusted", config.Command, "-o share"}, {"log_file", "/x", config.Command, "--log-file"},
	} {
		if got := s.of(want.Key); want.Key == "share" {
			if got.From != want.From || got.Where != want.Where {
				t.Errorf("%+v, want %+v", got, want)
			}
		} else if !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	if o.mountPoint != "/f/m" || o.store != "/f/s" || !o.allowOther || o.scrub.rate != "3M" || o.policy.share != "trusted" || !slices.Equal(o.policy.trust, []string{"3", "4"}) ||
		!slices.Equal(o.policy.limits, []string{"open=7"}) || !slices.Equal(o.options, []string{"exec"}) {
		t.Errorf("%+v", o)
	}
	// The daemon in the background need not find anything out again, and must not.
	o.policy.trust, o.policy.limits, o.options = nil, nil, nil
	var child mountOptions
	cmd := &cobra.Command{}
	child.flags(cmd)
	cmd.Flags().String("config", "x", "")
	if err := cmd.ParseFlags(o.daemonArgs()[1:]); err != nil {
		t.Fatal(err)
	}
	env = map[string]string{"CONDAFS_TRUST": "9", "CONDAFS_LIMIT": "open=9", "CONDAFS_OPTIONS": "sync"}
	a := &app{configSaid: true, getenv: func(k string) string { return env[k] }}
	if _, err := a.settings(cmd.Flags(), cmd.Flags().Args()); err != nil {
		t.Fatal(err)
	}
	if len(child.policy.trust) > 0 || len(child.policy.limits) > 0 || strings.Join(child.options, "") != "" {
		t.Errorf("%+v", child)
	}
}

func TestSettingsRefused(t *testing.T) {
	for _, c := range []struct{ file, env, want string }{
		{"stor = '/s'", "", "did you mean store?"}, {"foreground = true", "", "unknown key"}, {"options = ['noatime,store=/x']", "", "store is a key of its own"},
		{"shelf = 'bogus'", "", "bogus"}, {"", "CONDAFS_ALLOW_OTHER=perhaps", "allow_other in $CONDAFS_ALLOW_OTHER"}, {"limit = {memory = 1}", "", "memory"},
	} {
		name, value, _ := strings.Cut(c.env, "=")
		if _, _, err := settingsOf(t, c.file, map[string]string{name: value}, "/m"); !fault.Is(err, fault.Usage) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestDefaultConfig(t *testing.T) {
	env := map[string]string{"HOME": "/home/u"}
	a := &app{getenv: func(k string) string { return env[k] }}
	point, err := a.defaultMountPoint(1000)
	if a.defaultConfig(0) != "/etc/condafs/config.toml" || a.defaultConfig(1000) != "/home/u/.config/condafs/config.toml" || point != "/home/u/conda-cache" || err != nil {
		t.Errorf("%s %s %v", a.defaultConfig(1000), point, err)
	}
	env["XDG_CONFIG_HOME"] = "/c"
	if got := a.defaultConfig(1000); got != "/c/condafs/config.toml" {
		t.Error(got)
	}
	env = nil
	if _, err := a.defaultMountPoint(1000); a.defaultConfig(1000) != "" || !fault.Is(err, fault.Usage) {
		t.Error(err)
	}
}

func TestMountByConfiguration(t *testing.T) {
	h := newHost(t)
	point := filepath.Join(h.dir, "new", "m")
	file := filepath.Join(h.dir, "c.toml")
	h.write("c.toml", "mount_point = '"+point+"'\nstore = '"+h.store+"'\nlog_file = '"+h.log()+"'\nscrub = 'off'\n")
	h.write("bad.toml", "strore = '/s'\n")
	h.write("extra/x", "")
	t.Setenv(envConfig, file)
	unset := func(args ...string) (int, string) {
		cmd := h.command(args...)
		cmd.Env = slices.DeleteFunc(cmd.Env, func(v string) bool { return strings.HasPrefix(v, envMount+"=") })
		out, _ := cmd.Output() // the exit status says it
		return cmd.ProcessState.ExitCode(), string(out)
	}
	code, out := unset("config", "--json")
	var c Configuration
	if err := json.Unmarshal([]byte(out), &c); code != 0 || err != nil || !c.Read || c.File != file || c.Settings[0] != (Setting{"mount_point", point, config.FromFile, file}) {
		t.Errorf("%d %v %s", code, err, out)
	}
	if code, out := unset("config"); code != 0 || !strings.Contains(out, "scrub_every") || !strings.Contains(out, file) {
		t.Errorf("%d %s", code, out)
	}
	h.fails(2, "did you mean store?", "config", "--config", filepath.Join(h.dir, "bad.toml"))
	h.fails(1, "no such file", "mount", "--config", filepath.Join(h.dir, "none.toml"))
	if code, out := unset("mount"); code != 0 || !strings.Contains(out, point) {
		t.Errorf("%d %s", code, out)
	}
	info, err := control.ReadInfo(point)
	if err != nil || info.Store != h.store {
		t.Errorf("%+v %v", info, err)
	}
	if code, _ := unset("umount"); code != 0 {
		t.Errorf("umount: %d", code)
		h.must("umount", "--lazy", point)
	}
	if fi, err := os.Stat(point); err != nil || os.Geteuid() == 0 && fi.Mode().Perm() != 0o555 {
		t.Errorf("%v %v", fi, err)
	}
	_ = exec.Command("chattr", "-i", point).Run() // root's mount has made it immutable, where it can
}
