package conda

import "strings"

// CutArchiveExt removes ".conda" or ".tar.bz2" from a file name and reports
// whether it was there.
func CutArchiveExt(name string) (string, bool) {
	if stem, ok := strings.CutSuffix(name, ".conda"); ok {
		return stem, true
	}
	return strings.CutSuffix(name, ".tar.bz2")
}

// SplitDist splits "name-version-build". The name may hold dashes itself.
func SplitDist(dist string) (name, version, build string, ok bool) {
	i := strings.LastIndexByte(dist, '-')
	if i < 0 {
		return "", "", "", false
	}
	j := strings.LastIndexByte(dist[:i], '-')
	if j < 0 {
		return "", "", "", false
	}
	name, version, build = dist[:j], dist[j+1:i], dist[i+1:]
	if name == "" || version == "" || build == "" || name[0] == '.' || len(dist) > maxName {
		return "", "", "", false
	}
	for i := range len(dist) {
		if !isDistByte(dist[i]) {
			return "", "", "", false
		}
	}
	return name, version, build, true
}

func isDistByte(c byte) bool {
	return isAlnum(c) || strings.IndexByte("_.-+!~", c) >= 0
}

func isAlnum(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// isDist reports whether name is the directory name of a package.
func isDist(name string) bool {
	if _, archive := CutArchiveExt(name); archive {
		return false
	}
	_, _, _, ok := SplitDist(name)
	return ok
}

// cutOrigin removes the "-SHA256" of the package's address that rattler appends
// to the directory's name when it is told to tell origins apart.
func cutOrigin(name string) string {
	i := strings.LastIndexByte(name, '-')
	if i < 0 || len(name)-i-1 != 64 || !isHex(name[i+1:]) {
		return name
	}
	return name[:i]
}

func isRattlerDist(name string) bool { return isDist(cutOrigin(name)) }

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; !('0' <= c && c <= '9' || 'a' <= c && c <= 'f') {
			return false
		}
	}
	return s != ""
}

// temporarySuffixes end the names of files that are being written or thrown away.
var temporarySuffixes = []string{
	".partial", // conda: a download
	".part",    // mamba: a download
	".c~",      // conda: the previous archive or directory, until the new one is there
	".trash",   // conda, before 4.7
	".tmp",     // conda: repodata before its rename
}

// IsTemporary reports whether name, in a directory that holds units, is that
// of a file or directory that no client means to keep. Names inside of a
// package are the package's own: use [Classify] for a whole path.
func IsTemporary(name string) bool {
	for _, s := range temporarySuffixes {
		if strings.HasSuffix(name, s) {
			return true
		}
	}
	switch {
	case strings.Contains(name, ".conda_trash"), strings.HasSuffix(name, ".mamba_trash"),
		name == "conda_trash.txt", name == "mamba_trash.txt":
		return true
	case name == ".empty": // conda's rmtree makes one in the working directory
		return true
	case strings.HasPrefix(name, ".tmp"): // Rust's tempfile; conda's link tests
		return true
	case strings.HasPrefix(name, ".nfs"), strings.HasPrefix(name, ".fuse_hidden"):
		return true
	}
	return isRandom(name, "tmp", 8) || // Python's tempfile
		isRandom(name, "mambaf", 10) || isRandom(name, "mambashard", 10) || isRandom(name, "mambad", 6) ||
		isRattlerTemp(name)
}

// isRandom reports whether name is prefix and n letters, digits or underscores.
func isRandom(name, prefix string, n int) bool {
	rest, ok := strings.CutPrefix(name, prefix)
	if !ok || len(rest) != n {
		return false
	}
	for i := range len(rest) {
		if !isAlnum(rest[i]) && rest[i] != '_' {
			return false
		}
	}
	return true
}

// isRattlerTemp recognises the directory that rattler extracts into.
func isRattlerTemp(name string) bool {
	_, ok := cutRattlerTemp(name)
	return ok
}

// cutRattlerTemp returns the final name of a directory that rattler extracts into: it is between a dot and six random
// letters.
func cutRattlerTemp(name string) (dist string, ok bool) {
	const random = 6
	if len(name) < 1+random || name[0] != '.' {
		return "", false
	}
	dist = name[1 : len(name)-random]
	return dist, isRattlerDist(dist) && isRandom(name[len(name)-random:], "", random)
}

// RattlerTarget returns the path of the package that rattler extracts into the directory at p, and renames when that is done; or
// false if it does not look like such a one.
func RattlerTarget(p string) (pkg string, ok bool) {
	i := strings.LastIndexByte(p, '/') + 1
	dist, ok := cutRattlerTemp(p[i:])
	if !ok || !isRattlerPkgs(strings.Split(p[:max(i-1, 0)], "/")) {
		return "", false
	}
	return p[:i] + dist, true
}

// IsLock reports whether path is a lock or pid file. Such a file lives in the
// overlay and is never committed. rattler's NAME.lock beside a package is no
// lock, despite its name: it holds the package's revision and hash.
func IsLock(path string) bool {
	i := strings.LastIndexByte(path, '/')
	return isLockName(path[i+1:]) && Classify(path, false).Kind == None
}

func isLockName(name string) bool {
	return strings.HasSuffix(name, ".lock") || strings.HasSuffix(name, ".pid") ||
		name == ".lock" || strings.HasPrefix(name, ".conda_lock")
}
