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
