package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"condafs/config"
	"condafs/fault"
)

// Setting is a line of what `condafs config` prints.
type Setting struct {
	Key   string        `json:"key"`
	Value any           `json:"value"` // as the file has it
	From  config.Source `json:"from"`
	Where string        `json:"where,omitempty"` // the file, the variable or the flag
}

// mountPointKey is the one setting that is no flag of mount.
const mountPointKey = "mount_point"

// envConfig names the file in place of --config.
const envConfig = "CONDAFS_CONFIG"

// Flags of mount that say what to do now, and not how things are.
var notSettings = []string{"help", "foreground", "ready-fd"}

// settings are what holds for a mount, and where it comes from.
type settings struct {
	file  *config.File // nil: there is none
	list  []Setting
	point string // the mount point
}

// keyOf is the key of a flag.
func keyOf(f *pflag.Flag) config.Key {
	name := strings.ReplaceAll(f.Name, "-", "_")
	k := config.Key{Name: name, Env: "CONDAFS_" + strings.ToUpper(name)}
	if _, list := f.Value.(pflag.SliceValue); list {
		k.Kind = config.List
	} else if f.Value.Type() == "bool" {
		k.Kind = config.Flag
	}
	return k
}

// eachSetting calls f for each flag that is a setting.
func eachSetting(flags *pflag.FlagSet, f func(*pflag.Flag, config.Key)) {
	flags.VisitAll(func(flag *pflag.Flag) {
		if !slices.Contains(notSettings, flag.Name) {
			f(flag, keyOf(flag))
		}
	})
}

// settings gives mount's flags the values that the environment or the file has for them,
// unless the command line, -o on it too, says otherwise.
func (a *app) settings(flags *pflag.FlagSet, args []string) (*settings, error) {
	point := config.Key{Name: mountPointKey, Env: envMount}
	keys := []config.Key{point}
	eachSetting(flags, func(_ *pflag.Flag, k config.Key) { keys = append(keys, k) })
	s := &settings{}
	var err error
	if s.file, err = a.readConfig(keys); err != nil {
		return nil, err
	}
	v, from, where := config.Lookup(point, s.file, a.getenv)
	switch {
	case len(args) > 0:
		s.point, from, where = args[0], config.Command, ""
	case from == config.Default:
		s.point, err = a.defaultMountPoint(os.Geteuid())
	default:
		s.point = v[0]
	}
	if err != nil {
		return nil, err
	}
	s.list = []Setting{{mountPointKey, s.point, from, where}}
	said, err := optionNames(flags)
	if err != nil {
		return nil, err
	}
	eachSetting(flags, func(f *pflag.Flag, k config.Key) {
		if err == nil {
			err = s.take(f, k, said[k.Name], a.getenv)
		}
	})
	return s, err
}

// take gives a flag its value.
func (s *settings) take(f *pflag.Flag, k config.Key, option string, getenv func(string) string) error {
	set := Setting{Key: k.Name, From: config.Command, Where: "--" + f.Name}
	switch {
	case option != "":
		set.Where = "-o " + option
	case !f.Changed:
		var values []string
		values, set.From, set.Where = config.Lookup(k, s.file, getenv)
		if set.From == config.Default {
			break
		}
		if err := assign(f, k, values); err != nil {
			return fault.New("", "", fault.Usage, fmt.Errorf("%s in %s: %w", k.Name, set.Where, err))
		}
	}
	set.Value = f.Value.String()
	switch k.Kind {
	case config.List:
		set.Value = f.Value.(pflag.SliceValue).GetSlice()
	case config.Flag:
		set.Value = f.Value.String() == "true"
	}
	s.list = append(s.list, set)
	return nil
}

func assign(f *pflag.Flag, k config.Key, values []string) error {
	if k.Kind != config.List {
		return f.Value.Set(values[0])
	}
	if k.Name == "options" {
		for _, list := range values {
			for opt := range strings.SplitSeq(list, ",") {
				if name := ownOption(opt); name != "" {
					return fmt.Errorf("%s is a key of its own", name)
				}
			}
		}
	}
	return f.Value.(pflag.SliceValue).Replace(values)
}

// optionNames are the keys that -o on the command line says something about.
func optionNames(flags *pflag.FlagSet) (map[string]string, error) {
	lists, err := flags.GetStringArray("options")
	if err != nil {
		return nil, fault.New("read -o", "", fault.Other, err)
	}
	said := make(map[string]string)
	for _, list := range lists {
		for opt := range strings.SplitSeq(list, ",") {
			if name := ownOption(opt); name != "" {
				said[name], _, _ = strings.Cut(opt, "=")
			}
		}
	}
	return said, nil
}

// ownOption returns the key of an option of -o that is condafs's own, or "".
func ownOption(opt string) string {
	name, _, _ := strings.Cut(opt, "=")
	switch name {
	case "log":
		return "log_file"
	case "allow_other":
		return name
	}
	if slices.Contains(valuedOptions, name) {
		return name
	}
	return ""
}

// readConfig reads the file of --config, of $CONDAFS_CONFIG, or the usual one if it is there.
// An empty --config is none at all.
func (a *app) readConfig(keys []config.Key) (*config.File, error) {
	path, said := a.configFile, a.configSaid
	if !said {
		path = a.getenv(envConfig)
		said = path != ""
	}
	if said {
		if path == "" {
			return nil, nil
		}
		path, err := absolute(path)
		if err != nil {
			return nil, err
		}
		return config.Read(path, keys)
	}
	path = a.defaultConfig(os.Geteuid())
	if path == "" {
		return nil, nil
	}
	return config.ReadIfThere(path, keys)
}

// defaultConfig is where the configuration is looked for; "" if that is nowhere.
func (a *app) defaultConfig(uid int) string {
	if uid == 0 {
		return "/etc/condafs/config.toml"
	}
	if dir := a.getenv("XDG_CONFIG_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "condafs", "config.toml")
	}
	if home := a.getenv("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".config", "condafs", "config.toml")
	}
	return ""
}

// defaultMountPoint is where to mount unless somebody says otherwise.
func (a *app) defaultMountPoint(uid int) (string, error) {
	if uid == 0 {
		return "/var/cache/condafs", nil
	}
	home := a.getenv("HOME")
	if !filepath.IsAbs(home) {
		return "", fault.New("find the mount point", "", fault.Usage, errors.New("$HOME is not set")).WithHint("name it")
	}
	return filepath.Join(home, "conda-cache"), nil
}

// makeMountPoint makes one that is configured, where a typing mistake is unlikely, if it
// is missing: for root so that users cannot write to it while nothing is mounted.
func makeMountPoint(path string) error {
	mode := os.FileMode(0o755) // fusermount3 wants to see that the user can write there
	if os.Geteuid() == 0 {
		mode = 0o555
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fault.New("make the mount point", path, fault.Other, err)
	}
	if err := os.Mkdir(path, mode); err != nil && !errors.Is(err, os.ErrExist) {
		return fault.New("make the mount point", path, fault.Other, err)
	}
	return nil
}

// configuredMount is where a mount without arguments would be.
func (a *app) configuredMount() (string, error) {
	o, err := a.configuredOptions()
	if err != nil {
		return "", err
	}
	return o.mountPoint, nil
}
