package setup

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"go.yaml.in/yaml/v3"

	"condafs/fault"
)

// The lines around what is condafs's in a file of somebody's.
const (
	begin = "# >>> condafs setup >>>\n"
	end   = "# <<< condafs setup <<<\n"
)

// Condarc is a file of conda's, in which a block says where packages are kept. The rest
// stays as it is.
type Condarc struct {
	Path string
	Dirs []string // pkgs_dirs
}

func (c *Condarc) String() string { return "set pkgs_dirs in " + c.Path }

func (c *Condarc) block() ([]byte, error) {
	b, err := yaml.Marshal(map[string][]string{"pkgs_dirs": c.Dirs})
	return append(append([]byte(begin), b...), end...), err
}

// Done looks for the very block.
func (c *Condarc) Done() (bool, error) {
	b, err := read(c.Path)
	if err != nil {
		return false, err
	}
	block, err := c.block()
	return bytes.Contains(b, block), err
}

// Do puts the block in place of an older one, or at the end. A file that says itself where
// packages are kept is left alone.
func (c *Condarc) Do() error {
	b, err := read(c.Path)
	if err != nil {
		return err
	}
	rest, _ := cut(b)
	var rc map[string]any
	if err := yaml.Unmarshal(rest, &rc); err != nil {
		return fault.New("set up", c.Path, fault.Usage, err).WithHint("mend it first: conda cannot read it either")
	}
	if _, ok := rc["pkgs_dirs"]; ok {
		return fault.New("set up", c.Path, fault.Exists, errors.New("it sets pkgs_dirs already")).WithHint("take that out of it; what lies there can be imported")
	}
	block, err := c.block()
	if err != nil {
		return fault.New("set up", c.Path, fault.Other, err)
	}
	if len(rest) > 0 && !bytes.HasSuffix(rest, []byte("\n")) {
		rest = append(rest, '\n')
	}
	return c.write(append(rest, block...))
}

// Undo takes the block out, and removes the file if nothing else is in it.
func (c *Condarc) Undo() error {
	b, err := read(c.Path)
	if err != nil {
		return err
	}
	rest, found := cut(b)
	switch {
	case !found:
		return nil
	case len(bytes.TrimSpace(rest)) == 0:
		return remove(c.Path)
	}
	return c.write(rest)
}

// write keeps the file's mode, and the link that it may be.
func (c *Condarc) write(b []byte) error {
	path, mode := c.Path, fs.FileMode(0o644)
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	if fi, err := os.Stat(path); err == nil {
		mode = fi.Mode().Perm()
	}
	return write(path, b, mode)
}

// cut takes the block out of a file.
func cut(b []byte) (rest []byte, found bool) {
	before, after, found := bytes.Cut(b, []byte(begin))
	if !found {
		return b, false
	}
	_, after, found = bytes.Cut(after, []byte(end))
	if !found {
		return b, false // its end is gone: not for us to guess where
	}
	return append(bytes.Clone(before), after...), true
}
