package demo

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// linkedPackage is a package of the cache on its way into an environment.
type linkedPackage struct {
	record record
	folder string
	paths  []pathEntry
}

// link makes the environment: reads the manifests, checks that files are there with the right size (conda only warns
// of a wrong one), rewrites prefixes, hard links or copies the rest, and records each package. An environment that
// fails half-way is removed.
func link(c *cache, chosen []record, prefix string, copies bool) (err error) {
	if err := os.MkdirAll(filepath.Join(prefix, "conda-meta"), 0o777); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			removeAll(prefix)
		}
	}()
	var packages []linkedPackage
	for _, r := range chosen {
		in := c.find(r.dist())
		if in == nil {
			return fmt.Errorf("CondaError: No package %q found in cache directories", r.dist())
		}
		p := linkedPackage{record: r, folder: in.path(r.dist())}
		var manifest struct {
			Paths []pathEntry `json:"paths"`
		}
		if err := readJSON(filepath.Join(p.folder, "info", "paths.json"), &manifest); err != nil {
			return err
		}
		p.paths = manifest.Paths
		packages = append(packages, p)
	}
	for _, p := range packages {
		for _, e := range p.paths {
			if !exists(filepath.Join(p.folder, e.Path)) {
				return fmt.Errorf("CondaVerificationError: %s appears to be corrupted: %s cannot be found", p.folder, e.Path)
			}
		}
	}
	for _, p := range packages {
		if err := p.link(prefix, copies); err != nil {
			return err
		}
	}
	for _, p := range packages {
		if err := writeJSON(filepath.Join(prefix, "conda-meta", p.record.dist()+".json"), p.record); err != nil {
			return err
		}
	}
	return nil
}

func (p *linkedPackage) link(prefix string, copies bool) error {
	hardLinks := !copies && canHardLink(filepath.Join(p.folder, "info", "index.json"), prefix)
	for _, e := range p.paths {
		source, target := filepath.Join(p.folder, e.Path), filepath.Join(prefix, e.Path)
		if err := os.MkdirAll(filepath.Dir(target), 0o777); err != nil {
			return err
		}
		if err := linkFile(e, source, target, prefix, hardLinks); err != nil {
			return err
		}
	}
	return nil
}

func linkFile(e pathEntry, source, target, prefix string, hardLinks bool) error {
	switch {
	case e.PathType == "softlink":
		to, err := os.Readlink(source)
		if err != nil {
			return err
		}
		return os.Symlink(to, target)
	case e.Placeholder != "":
		data, err := os.ReadFile(source)
		if err != nil {
			return err
		}
		st, err := os.Stat(source)
		if err != nil {
			return err
		}
		return os.WriteFile(target, bytes.ReplaceAll(data, []byte(e.Placeholder), []byte(prefix)), st.Mode().Perm())
	case hardLinks:
		if os.Link(source, target) == nil {
			return nil
		}
	}
	return copyFile(source, target)
}

// canHardLink tries it with one file, as conda does for each package.
func canHardLink(source, prefix string) bool {
	test := filepath.Join(prefix, fmt.Sprintf(".tmp.%s.%d", filepath.Base(source), os.Getpid()))
	if os.Link(source, test) != nil {
		return false
	}
	return os.Remove(test) == nil
}

func copyFile(source, target string) error {
	in, err := os.Open(source)
	if err != nil {
		return err
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(target, os.O_CREATE|os.O_EXCL|os.O_WRONLY, st.Mode().Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	return os.Chtimes(target, st.ModTime(), st.ModTime())
}
