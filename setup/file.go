package setup

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"condafs/fault"
)

// Header begins files that are condafs's alone, by which Undo knows them.
const Header = "# Written by `condafs setup`; `condafs setup --undo` removes it.\n"

// File is a file of condafs's own.
type File struct {
	Path, Text string
}

func (f *File) String() string { return "write " + f.Path }

func (f *File) text() string { return Header + f.Text }

// Done compares what is there.
func (f *File) Done() (bool, error) {
	b, err := read(f.Path)
	return err == nil && string(b) == f.text(), err
}

// Do writes it, unless somebody else's is there.
func (f *File) Do() error {
	b, err := read(f.Path)
	if err != nil {
		return err
	}
	if b != nil && !bytes.HasPrefix(b, []byte(Header)) {
		return fault.New("set up", f.Path, fault.Exists, errors.New("somebody else has written it")).WithHint("move it away, or leave this to it")
	}
	return write(f.Path, []byte(f.text()), 0o644)
}

// Undo removes it, if it is ours.
func (f *File) Undo() error {
	b, err := read(f.Path)
	if err != nil || !bytes.HasPrefix(b, []byte(Header)) {
		return err
	}
	return remove(f.Path)
}

// read returns nil for a file that is not there.
func read(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, fault.New("set up", path, fault.Other, err)
	case b == nil:
		b = []byte{}
	}
	return b, nil
}

// write replaces a file in one step, or makes it.
func write(path string, b []byte, mode fs.FileMode) error {
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = replace(path, b, mode)
	}
	if err != nil {
		return fault.New("set up", path, fault.Other, err)
	}
	return nil
}

func replace(path string, b []byte, mode fs.FileMode) (err error) {
	t, err := os.CreateTemp(filepath.Dir(path), ".condafs-")
	if err != nil {
		return err
	}
	_, err = t.Write(b)
	err = errors.Join(err, t.Chmod(mode), t.Sync(), t.Close())
	if err == nil {
		err = os.Rename(t.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(t.Name()))
	}
	return nil
}

func remove(path string) error {
	if err := os.Remove(path); err != nil {
		return fault.New("undo the set-up of", path, fault.Other, err)
	}
	return nil
}
