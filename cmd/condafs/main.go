// Command condafs mounts a package cache that many conda clients share safely.
//
// Each command has a file of its own. Commands take their streams and environment
// from an [app], so that tests run them without a process; what they do lies in the
// packages below. A command returns its error, and main turns it into one line on
// standard error and an exit status:
//
//	0  done
//	1  failed
//	2  wrong usage
//	3  corruption found
//	4  nothing mounted, or no daemon
//
// `condafs run` returns what its command did, 128 and the signal's number if one
// killed it, 126 if it could not be executed and 127 if it was not found.
package main

import (
	"os"
	"runtime/debug"

	"condafs/internal/failpoint"
)

func main() {
	// A panic, or the signal by which a watchdog ends a daemon that hangs, would be an exit status of 2: wrong usage, which no service
	// manager tries again.
	debug.SetTraceback("crash")
	if len(os.Args) > 1 && os.Args[1] == helperName {
		os.Exit(runHelper(os.Args[2:]))
	}
	a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr, getenv: os.Getenv}
	if isMountHelper(os.Args[0]) {
		os.Exit(a.mountHelper(os.Args[1:]))
	}
	if takesOver(os.Args[1:]) {
		failpoint.Hit(failpoint.UpgradeStarted, "")
	}
	os.Exit(a.main(os.Args[1:]))
}
