// Package racetest is for tests that start processes with the race detector in them.
package racetest

import "os"

// Env is for the environment of such a process: a race shows in its exit status, and it does not wait a second at its end, as
// the race detector has it by default.
const Env = variable + "=" + options

const (
	variable = "GORACE"
	options  = "exitcode=66 atexit_sleep_ms=0"
)

// Children gives Env to all processes that are started from now on. Options that are set already stay, but for these.
func Children() error {
	given := os.Getenv(variable)
	if given != "" {
		given += " "
	}
	return os.Setenv(variable, given+options)
}
