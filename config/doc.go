// Package config finds out what somebody has set, and where: in the environment or in a
// file of TOML. It knows no settings by itself; the caller says which [Key] there are, and
// what is set on the command line, which goes before both.
package config
