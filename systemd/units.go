// Package systemd holds condafs's units: for a machine, and for a user. Packages install
// them as they are; `condafs setup` writes them with the path of its own program.
package systemd

import "embed"

// Program is the path of condafs in the units.
const Program = "/usr/bin/condafs"

// Units are the files below system/ and user/.
//
//go:embed system user
var Units embed.FS
