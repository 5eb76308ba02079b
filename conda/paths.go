package conda

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"strings"
	"unicode/utf8"
)

// PathsJSON is a package's list of its files, info/paths.json. It does not list
// what is below info/, and knows nothing of modes and link targets.
type PathsJSON struct {
	Version int
	Paths   []PathEntry
}

// PathType is what a listed path is.
type PathType string

// The types of version 1.
const (
	HardLink  PathType = "hardlink" // a regular file
	SoftLink  PathType = "softlink"
	Directory PathType = "directory"
)

// PathEntry is one listed path.
type PathEntry struct {
	Path string // relative to the package, cleaned
	Type PathType
	// SHA256 and Size are those of the file as it lies in the cache. For a
	// SoftLink they describe what the target held on the machine that built the
	// package (nothing, when it was missing there), so they prove nothing here.
	SHA256    [32]byte
	HasSHA256 bool
	Size      int64 // bytes; -1 when unknown
}

type rawPathEntry struct {
	Path   *string  `json:"_path"`
	Type   PathType `json:"path_type"`
	SHA256 *string  `json:"sha256"`
	Size   *int64   `json:"size_in_bytes"`
}

// ParsePaths reads info/paths.json. It refuses versions other than 1, paths
// that leave the package, paths that are listed twice, and more than any package has.
//
// It reads entry by entry: a list of millions of empty ones is a small file and would
// take gigabytes of memory at once.
func ParsePaths(r io.Reader) (*PathsJSON, error) {
	const op = "parse paths"
	limited := &io.LimitedReader{R: r, N: maxPathsJSON + 1}
	p := &pathsParser{s: newJSONScanner(limited), seen: make(map[string]bool)}
	err := p.document()
	switch {
	case limited.N == 0:
		return nil, corrupt(op, PathsPath, "longer than %d bytes", maxPathsJSON)
	case err != nil:
		return nil, readFailure(op, PathsPath, err)
	case !p.hasVersion:
		return nil, corrupt(op, PathsPath, "paths_version is missing")
	}
	return &p.out, nil
}

type pathsParser struct {
	s          *jsonScanner
	out        PathsJSON
	hasVersion bool
	seen       map[string]bool
}

func (p *pathsParser) document() error {
	err := p.s.object(func(key []byte) error {
		switch string(key) {
		case "paths_version":
			return p.version()
		case "paths":
			return p.list()
		}
		return p.s.skip()
	})
	if err != nil {
		return err
	}
	return p.s.end()
}

func (p *pathsParser) version() error {
	b, err := p.s.value(32)
	if err != nil {
		return err
	}
	var v *int
	if err := json.Unmarshal(b, &v); err != nil {
		return fmt.Errorf("paths_version: %w", err)
	}
	if v == nil {
		return nil
	}
	if *v != 1 {
		return fmt.Errorf("paths_version is %d, only 1 is known", *v)
	}
	p.out.Version, p.hasVersion = 1, true
	return nil
}

func (p *pathsParser) list() error {
	if c, err := p.s.peek(); err != nil {
		return readAtError(err)
	} else if c == 'n' {
		return p.s.skip() // null
	}
	return p.s.array(func() error {
		i := len(p.out.Paths)
		if i == maxPathEntries {
			return fmt.Errorf("more than %d entries", maxPathEntries)
		}
		b, err := p.s.value(maxPathEntry)
		if err != nil {
			return err
		}
		var raw rawPathEntry
		if err := json.Unmarshal(b, &raw); err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		e, err := raw.entry()
		if err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		if p.seen[e.Path] {
			return fmt.Errorf("entry %d: %q is listed twice", i, e.Path)
		}
		p.seen[e.Path] = true
		p.out.Paths = append(p.out.Paths, e)
		return nil
	})
}

func (raw *rawPathEntry) entry() (PathEntry, error) {
	e := PathEntry{Type: raw.Type, Size: -1}
	var err error
	if e.Path, err = cleanMember(str(raw.Path)); err != nil {
		return e, err
	}
	switch e.Type {
	case HardLink, SoftLink, Directory:
	case "":
		e.Type = HardLink // early conda-build left it out
	default:
		return e, fmt.Errorf("%q: unknown path_type %q", e.Path, e.Type)
	}
	if s := str(raw.SHA256); s != "" {
		if err := checkHex(s, len(e.SHA256)); err != nil {
			return e, fmt.Errorf("%q: sha256: %w", e.Path, err)
		}
		if _, err := hex.Decode(e.SHA256[:], []byte(s)); err != nil {
			return e, fmt.Errorf("%q: sha256: %w", e.Path, err)
		}
		e.HasSHA256 = true
	}
	if raw.Size != nil {
		if *raw.Size < 0 {
			return e, fmt.Errorf("%q: size_in_bytes is %d", e.Path, *raw.Size)
		}
		e.Size = *raw.Size
	}
	return e, nil
}

// cleanMember returns the clean form of a path inside of a package, or why it
// is none. "./a//b" is taken as "a/b"; the package itself is no member.
func cleanMember(p string) (string, error) {
	switch {
	case p == "":
		return "", fmt.Errorf("empty path")
	case strings.IndexByte(p, 0) >= 0:
		return "", fmt.Errorf("%q holds a NUL byte", p)
	case !utf8.ValidString(p):
		return "", fmt.Errorf("%q is not UTF-8", p)
	case p[0] == '/':
		return "", fmt.Errorf("%q is absolute", p)
	case len(p) > maxPath:
		return "", fmt.Errorf("path of %d bytes, %d are possible", len(p), maxPath)
	}
	for name := range strings.SplitSeq(p, "/") {
		if name == ".." {
			return "", fmt.Errorf("%q leaves the package", p)
		}
		if len(name) > maxName {
			return "", fmt.Errorf("%q: name of %d bytes, %d are possible", p, len(name), maxName)
		}
	}
	p = path.Clean(p)
	if p == "." {
		return "", fmt.Errorf("the package itself is no member")
	}
	return p, nil
}
