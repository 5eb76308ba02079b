package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"condafs/config"
)

// Configuration is what `condafs config --json` prints.
type Configuration struct {
	File     string    `json:"file"` // where it is looked for; "" for nowhere
	Read     bool      `json:"read"` // it is there
	Settings []Setting `json:"settings"`
}

func (a *app) configCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "config",
		Short: "Print what is configured, and where each value comes from",
		Long: `Print what "condafs mount" goes by when it is given no flags, and where each value
comes from: a variable of the environment, the configuration file, or the default.
The flags of mount go before all of them.

The file is of TOML: /etc/condafs/config.toml for root,
$XDG_CONFIG_HOME/condafs/config.toml (~/.config/condafs/config.toml) for others, or
that of --config or $CONDAFS_CONFIG. Its keys are the flags of mount, with "_" for "-",
and mount_point:

  mount_point = "/srv/conda"
  store       = "/srv/condafs-store"
  allow_other = true
  trust       = ["ci", 1007]
  scrub       = "50MB"

  [limit]
  bytes = "20GiB"

An unknown key is an error. The variable of a key is its name with CONDAFS_ before it,
as in CONDAFS_SCRUB_EVERY=2d, with commas between the values of a list; that of
mount_point is CONDAFS_MOUNT.`,
		Example: `  condafs config
  condafs config --json | jq '.settings[] | select(.from != "default")'
  condafs config --config ./new.toml`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			c, err := a.configuration()
			if err != nil {
				return err
			}
			return a.show(c, c.print)
		},
	}
}

// configure resolves what a mount without arguments would go by.
func (a *app) configure() (*settings, *mountOptions, error) {
	var o mountOptions
	mount := &cobra.Command{}
	o.flags(mount)
	s, err := a.settings(mount.Flags(), nil)
	if err != nil {
		return nil, nil, err
	}
	o.mountPoint = s.point
	o.foreground = true // where it would log without a file is for `condafs mount` to say
	return s, &o, a.resolveMount(&o)
}

func (a *app) configuredOptions() (*mountOptions, error) {
	_, o, err := a.configure()
	return o, err
}

func (a *app) configuration() (*Configuration, error) {
	s, o, err := a.configure()
	if err != nil {
		return nil, err
	}
	c := &Configuration{File: a.defaultConfig(os.Geteuid()), Settings: s.list}
	if s.file != nil {
		c.File, c.Read = s.file.Path, true
	}
	for i, e := range c.Settings {
		if e.From == config.Default && e.Key == "store" {
			c.Settings[i].Value = o.store // as it is found out
		}
	}
	return c, nil
}

func (c *Configuration) print(w io.Writer) error {
	file := orDash(c.File)
	if !c.Read {
		file += " (not there)"
	}
	rows := [][]string{{"file", file, ""}}
	for _, s := range c.Settings {
		value := fmt.Sprint(s.Value)
		if l, ok := s.Value.([]string); ok {
			value = strings.Join(l, " ")
		}
		from := string(s.From)
		if s.Where != "" {
			from = s.Where
		}
		rows = append(rows, []string{s.Key, orDash(value), from})
	}
	return table(w, rows)
}
