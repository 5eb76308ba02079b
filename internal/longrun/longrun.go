// Package longrun says whether tests are to run their longest cases too.
package longrun

import "os"

// Wanted reports whether CONDAFS_LONG is set to anything but the empty string. Without it, each test keeps to what finds most
// mistakes for its time, so that `go test -race ./...` ends within minutes and is run often.
func Wanted() bool { return os.Getenv("CONDAFS_LONG") != "" }
