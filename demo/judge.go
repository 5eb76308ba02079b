package demo

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// judgeEnvironment counts what is wrong with an environment that should hold the whole channel, byte for byte.
func (c *channel) judgeEnvironment(prefix string, col *Column) {
	col.Environments++
	wrong := 0
	for _, p := range c.packages {
		if !isFile(filepath.Join(prefix, "conda-meta", p.record.dist()+".json")) {
			wrong++
		}
		for _, f := range p.files {
			if f.isInfo() {
				continue
			}
			switch why := f.compare(filepath.Join(prefix, f.name), f.inEnvironment(prefix)); {
			case errors.Is(why, fs.ErrNotExist):
				wrong++
				col.FilesMissing++
			case why != nil:
				wrong++
				col.FilesWrong++
			}
		}
	}
	if wrong > 0 {
		col.EnvironmentsBroken++
	}
}

// judgeCache counts what is wrong in a package directory. If clients only installed, every package must be there.
func (c *channel) judgeCache(pkgs string, complete bool, col *Column) {
	for _, p := range c.packages {
		archive := filepath.Join(pkgs, p.record.Fn)
		switch data, err := os.ReadFile(archive); {
		case err == nil && !bytes.Equal(data, p.archive):
			col.ArchivesCorrupt++
		case err != nil && complete:
			col.ArchivesMissing++
		}
		folder := filepath.Join(pkgs, p.record.dist())
		if !exists(folder) {
			if complete {
				col.PackagesBroken++
			}
			continue
		}
		ok := isFile(filepath.Join(folder, "info", "repodata_record.json"))
		for _, f := range p.files {
			ok = f.compare(filepath.Join(folder, f.name), f.data) == nil && ok
		}
		if !ok {
			col.PackagesBroken++
		}
	}
}

// compare is nil if the path is that file.
func (f *file) compare(path string, data []byte) error {
	if f.link != "" {
		to, err := os.Readlink(path)
		if err == nil && to != f.link {
			err = fmt.Errorf("%s points to %s", path, to)
		}
		return err
	}
	got, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, data) {
		return fmt.Errorf("%s has other bytes", path)
	}
	st, err := os.Lstat(path)
	if err == nil && (st.Mode()&0o100 != 0) != (f.mode&0o100 != 0) {
		err = fmt.Errorf("%s has mode %v", path, st.Mode())
	}
	return err
}
