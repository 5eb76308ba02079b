package config

import "strings"

// Source is where a value comes from; what comes later here goes before.
type Source string

// Sources.
const (
	Default     Source = "default"
	FromFile    Source = "file"
	Environment Source = "environment"
	Command     Source = "command line"
)

// Lookup returns what the environment or else the file, which may be nil, sets a key to,
// and where: the variable's or the file's name. Without either it is the default's turn.
func Lookup(k Key, f *File, getenv func(string) string) (values []string, from Source, where string) {
	if v := getenv(k.Env); v != "" {
		if k.Kind == List {
			return strings.Split(v, ","), Environment, "$" + k.Env
		}
		return []string{v}, Environment, "$" + k.Env
	}
	if f != nil {
		if v, ok := f.values[k.Name]; ok {
			return v, FromFile, f.Path
		}
	}
	return nil, Default, ""
}
