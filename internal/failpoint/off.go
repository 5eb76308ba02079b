//go:build !condafs_faults

package failpoint

// Hit does nothing in this build.
func Hit(Point, string) {}

// Err does nothing in this build.
func Err(Point, string) error { return nil }
