// Package condatest makes conda packages for tests: sound ones from a list of
// files, and broken ones from raw tar and zip members.
package condatest

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/dsnet/compress/bzip2"
	"github.com/klauspost/compress/zstd"
)

// Mtime is the modification time of all members.
var Mtime = time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC)

// File is a regular file, or a symlink if Link is set.
type File struct {
	Path string
	Body string
	Exec bool
	Link string
	Bits int64 // of the mode: 0o4000 sets the user's id, 0o2000 the group's
	Mode int64 // permission bits; 0: 0664, or 0775 with Exec
}

// Package describes a package to make.
type Package struct {
	Name, Version, Build string
	Files                []File // beside the metadata
	// Old leaves info/paths.json out, as before 2017.
	Old bool
}

// Dist returns "name-version-build".
func (p Package) Dist() string { return p.Name + "-" + p.Version + "-" + p.Build }

// All returns the files with the metadata that a build tool adds below info/.
func (p Package) All() []File {
	index := toJSON(map[string]any{
		"name": p.Name, "version": p.Version, "build": p.Build, "build_number": 0,
		"depends": []string{}, "subdir": "linux-64",
	})
	var paths []map[string]any
	var names strings.Builder
	for _, f := range p.Files {
		fmt.Fprintln(&names, f.Path)
		if f.Link != "" {
			// As conda-build does: the hash of what the link leads to, or of nothing.
			paths = append(paths, map[string]any{"_path": f.Path, "path_type": "softlink",
				"sha256": Hex256([]byte(p.target(f))), "size_in_bytes": len(p.target(f))})
			continue
		}
		paths = append(paths, map[string]any{"_path": f.Path, "path_type": "hardlink",
			"sha256": Hex256([]byte(f.Body)), "size_in_bytes": len(f.Body)})
	}
	all := append([]File{}, p.Files...)
	all = append(all, File{Path: "info/index.json", Body: index}, File{Path: "info/files", Body: names.String()})
	if !p.Old {
		if paths == nil {
			paths = []map[string]any{}
		}
		all = append(all, File{Path: "info/paths.json", Body: toJSON(map[string]any{"paths_version": 1, "paths": paths})})
	}
	return all
}

func (p Package) target(link File) string {
	to := path.Join(path.Dir(link.Path), link.Link)
	for _, f := range p.Files {
		if f.Path == to {
			return f.Body
		}
	}
	return ""
}

// Conda returns the package as a .conda file.
func (p Package) Conda() []byte {
	var info, pkg []tar.Header
	bodies := map[string]string{}
	for _, f := range p.All() {
		bodies[f.Path] = f.Body
		if strings.HasPrefix(f.Path, "info/") {
			info = append(info, f.header())
		} else {
			pkg = append(pkg, f.header())
		}
	}
	return Zip(
		Stored{"metadata.json", []byte(`{"conda_pkg_format_version": 2}`)},
		Stored{"pkg-" + p.Dist() + ".tar.zst", Zstd(Tar(pkg, bodies))},
		Stored{"info-" + p.Dist() + ".tar.zst", Zstd(Tar(info, bodies))},
	)
}

// TarBz2 returns the package as a .tar.bz2 file.
func (p Package) TarBz2() []byte {
	var hs []tar.Header
	bodies := map[string]string{}
	for _, f := range p.All() {
		bodies[f.Path] = f.Body
		hs = append(hs, f.header())
	}
	return Bzip2(Tar(hs, bodies))
}

// Record returns the info/repodata_record.json that conda writes after it
// extracted the archive called fn.
func (p Package) Record(fn string, archive []byte) string {
	sum := md5.Sum(archive)
	return toJSON(map[string]any{
		"name": p.Name, "version": p.Version, "build": p.Build, "build_number": 0, "subdir": "linux-64",
		"channel": "https://example.invalid/channel/linux-64", "url": "https://example.invalid/channel/linux-64/" + fn, "fn": fn,
		"sha256": Hex256(archive), "md5": hex.EncodeToString(sum[:]), "size": len(archive), "depends": []string{},
	})
}

func (f File) header() tar.Header {
	h := tar.Header{Name: f.Path, Mode: 0o664, Typeflag: tar.TypeReg, Size: int64(len(f.Body)), ModTime: Mtime}
	if f.Exec {
		h.Mode = 0o775
	}
	if f.Mode != 0 {
		h.Mode = f.Mode
	}
	h.Mode |= f.Bits
	if f.Link != "" {
		h.Typeflag, h.Linkname, h.Size, h.Mode = tar.TypeSymlink, f.Link, 0, 0o777
	}
	return h
}

// Tar returns a tar stream. Headers of regular files without a size get that of
// their body.
func Tar(hs []tar.Header, bodies map[string]string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range hs {
		body := bodies[h.Name]
		if h.Typeflag != tar.TypeReg {
			body = ""
		}
		if h.Size == 0 {
			h.Size = int64(len(body))
		}
		must(w.WriteHeader(&h))
		_, err := w.Write([]byte(body))
		must(err)
	}
	must(w.Close())
	return b.Bytes()
}

// Stored is a member of a zip file.
type Stored struct {
	Name string
	Body []byte
}

// Zip returns a zip file of members that are stored without compression.
func Zip(members ...Stored) []byte {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, m := range members {
		w, err := z.CreateHeader(&zip.FileHeader{Name: m.Name, Method: zip.Store})
		must(err)
		_, err = w.Write(m.Body)
		must(err)
	}
	must(z.Close())
	return b.Bytes()
}

// Zstd compresses b.
func Zstd(b []byte) []byte {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	must(err)
	return e.EncodeAll(b, nil)
}

// Bzip2 compresses b.
func Bzip2(b []byte) []byte {
	var out bytes.Buffer
	w, err := bzip2.NewWriter(&out, nil)
	must(err)
	_, err = w.Write(b)
	must(err)
	must(w.Close())
	return out.Bytes()
}

// Hex256 returns the SHA-256 of b in hex.
func Hex256(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func toJSON(v any) string {
	b, err := json.Marshal(v)
	must(err)
	return string(b)
}

// must ends the test program: nothing here fails but by a mistake in the test.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
