package conda

import (
	"path"
	"slices"
	"strings"
)

// UnitKind says how a path in the cache is committed.
type UnitKind uint8

const (
	// None is never committed: temporary names, locks, pid files.
	None UnitKind = iota
	// Archive is a NAME.conda or NAME.tar.bz2 under its final name.
	Archive
	// Package is an extracted directory; [CompletionMarker] completes it.
	Package
	// RattlerPackage is an extracted directory in rattler's package cache. It
	// gets its name by a rename when it is complete and has no completion marker.
	RattlerPackage
	// Repodata is a group of files about one channel directory, replaced as one.
	Repodata
	// URLs is a list of addresses, merged line by line.
	URLs
	// Opaque is any other file, committed by itself.
	Opaque
	// Dir is a directory that merely holds units.
	Dir
)

// String returns the word used in logs and reports.
func (k UnitKind) String() string {
	switch k {
	case None:
		return "temporary"
	case Archive:
		return "archive"
	case Package:
		return "package"
	case RattlerPackage:
		return "rattler package"
	case Repodata:
		return "repodata"
	case URLs:
		return "url list"
	case Opaque:
		return "file"
	case Dir:
		return "directory"
	}
	return "unknown"
}

// CompletionMarker is the file of a [Package], relative to its root, that
// clients write after everything else.
const CompletionMarker = "info/repodata_record.json"

// Unit is what a path belongs to. All paths of one unit have the same Key.
type Unit struct {
	Kind UnitKind
	// Key identifies the unit within a view.
	Key string
	// Root is the unit's top path. For a repodata group, whose members are
	// siblings, it is the member that the others describe; it need not exist.
	Root string
	// Sidecars are the other paths that belong to the unit, whether they exist
	// or not.
	Sidecars []string
}

// Members returns Root and the sidecars.
func (u Unit) Members() []string {
	return append([]string{u.Root}, u.Sidecars...)
}

// Classify tells which unit a path belongs to. It is a function of the path
// alone; isDir says whether the object at the path is a directory.
//
// The name decides only in directories that hold units. Inside of a package
// every name is the package's own, also "yarn.lock" and "data.partial".
func Classify(p string, isDir bool) Unit {
	if p == "" {
		return Unit{Kind: Dir}
	}
	parts := strings.Split(p, "/")
	end := 0
	for i, name := range parts[:len(parts)-1] {
		end += len(name)
		if u, ok := classifyDir(parts[:i], name, p[:end]); ok {
			return u
		}
		end++
	}
	last := len(parts) - 1
	if isDir {
		if u, ok := classifyDir(parts[:last], parts[last], p); ok {
			return u
		}
		return Unit{Kind: Dir, Key: p, Root: p}
	}
	return classifyFile(parts[:last], parts[last], p)
}

// classifyDir decides about a directory called name in the container parent.
// It reports false when the directory is itself a container.
func classifyDir(parent []string, name, at string) (Unit, bool) {
	switch {
	case IsTemporary(name), isEnvironments(parent, name):
		return Unit{Kind: None, Key: at, Root: at}, true
	case isRattlerPkgs(parent) && isRattlerDist(name):
		return rattlerUnit(at), true
	case holdsPackages(parent) && isDist(name):
		return Unit{Kind: Package, Key: at, Root: at}, true
	}
	return Unit{}, false
}

// classifyFile decides about a file called name in the container parent.
func classifyFile(parent []string, name, at string) Unit {
	if isRattlerPkgs(parent) {
		if stem, ok := strings.CutSuffix(name, ".lock"); ok && isRattlerDist(stem) {
			return rattlerUnit(strings.TrimSuffix(at, ".lock"))
		}
	}
	switch {
	case IsTemporary(name), isLockName(name):
		return Unit{Kind: None, Key: at, Root: at}
	case holdsRepodata(parent):
		if u, ok := repodataUnit(at); ok {
			return u
		}
	case holdsPackages(parent):
		if name == "urls" || name == "urls.txt" {
			return Unit{Kind: URLs, Key: at, Root: at}
		}
		if stem, ok := CutArchiveExt(name); ok && isDist(stem) {
			return Unit{Kind: Archive, Key: at, Root: at}
		}
	}
	return Unit{Kind: Opaque, Key: at, Root: at}
}

func rattlerUnit(root string) Unit {
	return Unit{Kind: RattlerPackage, Key: root, Root: root, Sidecars: []string{root + ".lock"}}
}

// isRattlerPkgs reports whether dir is rattler's package cache.
func isRattlerPkgs(dir []string) bool {
	return len(dir) == 2 && dir[0] == "rattler" && dir[1] == "pkgs"
}

// isEnvironments recognises the directories in which rattler and pixi keep
// environments for commands to run. Environments hold absolute paths, those of
// the session that made them too, and can be made again from the packages.
func isEnvironments(parent []string, name string) bool {
	return len(parent) == 1 && parent[0] == "rattler" && (name == "exec" || strings.HasPrefix(name, "cached-envs-"))
}

// holdsPackages reports whether packages and archives lie directly in dir.
//
// conda and older mambas put all of them into pkgs. Newer mambas make a
// directory from the address, "pkgs/https/conda.anaconda.org/conda-forge/noarch";
// there the last component is the platform, and only that tells a channel
// called "my-own-channel" from a package.
func holdsPackages(dir []string) bool {
	if len(dir) == 0 || dir[0] != "pkgs" {
		return false
	}
	return len(dir) == 1 || len(dir) > 2 && dir[1] != "cache" && isSubdir(dir[len(dir)-1])
}

// holdsRepodata reports whether repodata caches lie in dir.
func holdsRepodata(dir []string) bool {
	return len(dir) >= 2 && (dir[0] == "pkgs" && dir[1] == "cache" || dir[0] == "rattler" && dir[1] == "repodata")
}

// isSubdir recognises a channel's platform directories.
func isSubdir(name string) bool {
	if name == "noarch" {
		return true
	}
	os, arch, ok := strings.Cut(name, "-")
	return ok && arch != "" && slices.Contains(platforms, os)
}

var platforms = []string{"linux", "osx", "win", "freebsd", "emscripten", "wasi", "zos"}

// repodataSuffixes are the files that clients keep about one channel directory
// under a common stem; the first is the one that the others describe. They are
// tried in order, so longer ones come before ".json".
var repodataSuffixes = []string{
	".info.json", ".state.json", // conda and rattler; mamba: validators, size and mtime of the .json
	".json",            // the repodata itself
	".solv",            // mamba's compiled form of it
	".q",               // old condas' pickled form of it
	".msgpack.zst",     // index of a sharded channel, or one shard
	".msgpack",         // rattler's shards
	".shards-cache-v1", // rattler's index of a sharded channel
}

// sqliteSuffixes are the companions of an SQLite database: conda keeps shards
// in one.
var sqliteSuffixes = []string{"-wal", "-shm", "-journal"}

// repodataUnit finds the group of a file in a repodata directory.
func repodataUnit(at string) (Unit, bool) {
	base := at
	for _, s := range sqliteSuffixes {
		base = strings.TrimSuffix(base, s)
	}
	if strings.HasSuffix(base, ".db") {
		u := Unit{Kind: Repodata, Key: base, Root: base}
		for _, s := range sqliteSuffixes {
			u.Sidecars = append(u.Sidecars, base+s)
		}
		return u, true
	}
	for _, s := range repodataSuffixes {
		stem, ok := strings.CutSuffix(at, s)
		if !ok || path.Base(at) == s {
			continue
		}
		u := Unit{Kind: Repodata, Key: stem, Root: stem + ".json"}
		for _, s := range repodataSuffixes {
			if s != ".json" {
				u.Sidecars = append(u.Sidecars, stem+s)
			}
		}
		return u, true
	}
	return Unit{}, false
}
