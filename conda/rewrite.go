package conda

import (
	"bytes"
	"path"
	"strings"
)

// Rewritable reports whether a file is metadata in which a client may have
// written a session's own path. Nothing else is ever rewritten: the bytes of a
// package are what its hashes say.
func Rewritable(p string) bool {
	u := Classify(p, false)
	switch u.Kind {
	case URLs:
		return true
	case Package:
		return p == u.Root+"/"+CompletionMarker
	case Repodata:
		return strings.HasSuffix(p, ".info.json") || strings.HasSuffix(p, ".state.json")
	}
	return false
}

// RewriteSessionPaths replaces MOUNT/.sessions/ID by MOUNT, where the mount and
// the session are given, and reports whether there was anything to replace.
func RewriteSessionPaths(b []byte, mount, sessionID string) ([]byte, bool) {
	mount = path.Clean(mount)
	if mount == "/" {
		mount = ""
	}
	old := []byte(mount + "/.sessions/" + sessionID)
	if sessionID == "" || !bytes.Contains(b, old) {
		return b, false
	}
	var out []byte
	changed := false
	for {
		i := bytes.Index(b, old)
		if i < 0 {
			break
		}
		rest := b[i+len(old):]
		if startsWithName(rest) { // another session's id that begins like this one
			out = append(out, b[:i+len(old)]...)
		} else {
			out = append(append(out, b[:i]...), mount...)
			changed = true
		}
		b = rest
	}
	return append(out, b...), changed
}

func startsWithName(b []byte) bool {
	return len(b) > 0 && (isAlnum(b[0]) || b[0] == '_' || b[0] == '-')
}
