// Package systemd holds condafs's units: for a machine, for a user, and examples. Packages
// install them as they are; `condafs setup` writes them with the path of its own program.
package systemd

import "embed"

// Program is the path of condafs in the units.
const Program = "/usr/bin/condafs"

// Units are the files below system/, user/ and examples/.
//
//go:embed system user examples
var Units embed.FS
