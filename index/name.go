package index

import (
	"errors"
	"fmt"
	"strings"
)

// Names and paths are bytes, as Linux has them: anything but NUL and the slash, not
// necessarily UTF-8.
const (
	maxName = 255
	maxLink = 4095
)

func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("an empty name")
	case name == "." || name == "..":
		return fmt.Errorf("%q is no name", name)
	case len(name) > maxName:
		return fmt.Errorf("%.40q… is longer than %d bytes", name, maxName)
	case strings.ContainsAny(name, "/\x00"):
		return fmt.Errorf("%q has a slash or NUL in it", name)
	}
	return nil
}

func checkLink(name, link string) error {
	if link == "" || len(link) > maxLink || strings.IndexByte(link, 0) >= 0 {
		return fmt.Errorf("%q: a link to %.40q", name, link)
	}
	return nil
}

// maxPath bounds a path in the index; Linux has no path longer than 4096 bytes, but
// directory handles can go deeper than that.
const maxPath = 16 << 10

// splitPath checks a path of the index and cuts off its last component.
func splitPath(path string) (dir, name string, err error) {
	if len(path) > maxPath {
		return "", "", fmt.Errorf("a path of %d bytes", len(path))
	}
	for rest, more := path, true; more; {
		name, rest, more = strings.Cut(rest, "/")
		if err := checkName(name); err != nil {
			return "", "", err
		}
	}
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		dir = path[:i]
	}
	return dir, name, nil
}

func joinPath(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// checkID makes sure that an id is one harmless component of a path and of a key.
func checkID(id string) error {
	if err := checkName(id); err != nil {
		return err
	}
	for _, c := range []byte(id) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '.':
		default:
			return fmt.Errorf("%q is no id", id)
		}
	}
	return nil
}
