package conda

import (
	"path"
	"strings"
)

// RattlerCacheLock is the file that rattler's clients lock before they look at their
// package directory.
const RattlerCacheLock = ".cache.lock"

// Fetching returns the package that a client has begun to bring when it makes what is
// at p: a download, an archive, the package's directory, or rattler's lock of it.
func Fetching(p string, isDir bool) (root string, ok bool) {
	for _, suffix := range []string{".partial", ".part"} {
		if !isDir {
			p = strings.TrimSuffix(p, suffix)
		}
	}
	u := Classify(p, isDir)
	switch u.Kind {
	case Archive:
		dir, name := path.Split(u.Root)
		stem, _ := CutArchiveExt(name)
		return dir + stem, true
	case Package:
		return u.Root, u.Root == p
	case RattlerPackage:
		return u.Root, u.Root == p || p == u.Root+".lock"
	}
	return "", false
}

// Archives are the names that the archive of the package root has beside it.
func Archives(root string) []string { return []string{root + ".conda", root + ".tar.bz2"} }

// Downloads are the names, beside a package, under which clients download its archive.
func Downloads(root string) []string {
	var names []string
	for _, archive := range Archives(root) {
		names = append(names, archive+".partial", archive+".part")
	}
	return names
}
