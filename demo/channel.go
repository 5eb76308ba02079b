package demo

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
)

// placeholder stands for the environment's path in files that hold it; as long as those of real packages.
var placeholder = ("/home/builder/work/_h_env" + strings.Repeat("_placehold", 30))[:255]

var packageTime = time.Unix(1_700_000_000, 0)

// file is one member of a package. Exactly one of data and link is in use.
type file struct {
	name   string
	data   []byte
	link   string
	mode   int64
	prefix bool // data holds the placeholder
}

// record is a package as repodata and repodata_record.json name it.
type record struct {
	Name        string   `json:"name"`
	Version     string   `json:"version"`
	Build       string   `json:"build"`
	BuildNumber int      `json:"build_number"`
	Depends     []string `json:"depends"`
	Subdir      string   `json:"subdir"`
	MD5         string   `json:"md5,omitempty"`
	SHA256      string   `json:"sha256,omitempty"`
	Size        int64    `json:"size,omitempty"`
	Fn          string   `json:"fn,omitempty"`
	URL         string   `json:"url,omitempty"`
	Channel     string   `json:"channel,omitempty"`
}

func (r *record) dist() string { return r.Name + "-" + r.Version + "-" + r.Build }

// pathEntry is one line of info/paths.json.
type pathEntry struct {
	Path        string `json:"_path"`
	PathType    string `json:"path_type"`
	SHA256      string `json:"sha256"`
	Size        int64  `json:"size_in_bytes"`
	Placeholder string `json:"prefix_placeholder,omitempty"`
	FileMode    string `json:"file_mode,omitempty"`
}

// madePackage is a package with all that is true of it.
type madePackage struct {
	record  record
	files   []file // the info part included
	archive []byte
}

// channel is a set of packages and the repodata that names them.
type channel struct {
	packages []*madePackage
	repodata []byte
}

// Size says how large a channel is. Beside these packages it has "large", which downloads and extracts for longer than
// the others, as there is one in most environments, and "app", which depends on all.
type Size struct {
	Libraries int // packages with a shared library, prefixes in text, and
	Headers   int // so many headers
	Modules   int // packages of
	Sources   int // so many Python modules
	Parts     int // files of 1 MiB in "large"
}

// Small is the demonstration's channel, with 800 files. Large has as much in it as an environment for scientific work:
// 5,900 files, 70 MB.
var (
	Small = Size{Libraries: 8, Headers: 30, Modules: 8, Sources: 60, Parts: 8}
	Large = Size{Libraries: 8, Headers: 150, Modules: 8, Sources: 500, Parts: 44}
)

// makeChannel makes the demonstration's packages.
func makeChannel() (*channel, error) { return makeChannelOf(Small) }

// makeChannelOf makes the packages: the same bytes each time.
func makeChannelOf(size Size) (*channel, error) {
	source := rand.NewChaCha8([32]byte{1})
	rng := &random{rand.New(source), source}
	c := &channel{}
	var all []string
	for i := range size.Libraries + size.Modules {
		name := fmt.Sprintf("lib%02d", i)
		files := libraryFiles(rng, name, size.Headers)
		if i >= size.Libraries {
			name = fmt.Sprintf("mod%02d", i-size.Libraries)
			files = moduleFiles(rng, name, size.Sources)
		}
		var depends []string
		if i > 0 {
			depends = []string{all[rng.IntN(i)]}
		}
		p, err := makePackage(record{Name: name, Version: fmt.Sprintf("1.%d", i), Build: "h0_0", Depends: depends}, files)
		if err != nil {
			return nil, err
		}
		c.packages = append(c.packages, p)
		all = append(all, name)
	}
	large, err := makePackage(record{Name: "large", Version: "1.0", Build: "0"}, largeFiles(rng, size.Parts))
	if err != nil {
		return nil, err
	}
	app, err := makePackage(record{Name: "app", Version: "1.0", Build: "0", Depends: append(all, "large")}, moduleFiles(rng, "app", size.Sources))
	if err != nil {
		return nil, err
	}
	c.packages = append(c.packages, large, app)
	named := map[string]record{}
	for _, p := range c.packages {
		named[p.record.Fn] = p.record
	}
	c.repodata, err = json.Marshal(map[string]any{
		"info": map[string]string{"subdir": "linux-64"}, "packages": map[string]any{}, "packages.conda": named, "repodata_version": 1,
	})
	return c, err
}

// random draws numbers and bytes from one source, the same ones each time.
type random struct {
	*rand.Rand
	source *rand.ChaCha8
}

func (r *random) bytes(n int) []byte {
	b := make([]byte, n)
	_, _ = r.source.Read(b) // never fails
	return b
}

func libraryFiles(rng *random, name string, headers int) []file {
	files := []file{
		{name: "lib/" + name + ".so.1.0", data: rng.bytes(100_000 + rng.IntN(300_000)), mode: 0o755},
		{name: "lib/" + name + ".so.1", link: name + ".so.1.0"},
		{name: "lib/" + name + ".so", link: name + ".so.1"},
		{name: "lib/pkgconfig/" + name + ".pc", data: []byte("prefix=" + placeholder + "\n"), mode: 0o644, prefix: true},
		{name: "bin/" + name + "-config", data: []byte("#!/bin/sh\necho " + placeholder + "\n"), mode: 0o755, prefix: true},
	}
	for i := range headers {
		files = append(files, file{name: fmt.Sprintf("include/%s/h%02d.h", name, i), data: rng.bytes(200 + rng.IntN(3000)), mode: 0o644})
	}
	return files
}

func moduleFiles(rng *random, name string, n int) []file {
	var files []file
	for i := range n {
		files = append(files, file{name: fmt.Sprintf("lib/python3.12/site-packages/%s/sub%d/m%02d.py", name, i%4, i), data: rng.bytes(rng.IntN(9000)), mode: 0o644})
	}
	return files
}

func largeFiles(rng *random, parts int) []file {
	var files []file
	for i := range parts {
		files = append(files, file{name: fmt.Sprintf("share/large/part%d.bin", i), data: rng.bytes(1 << 20), mode: 0o644})
	}
	return files
}

// makePackage packs the files into a .conda archive.
func makePackage(r record, files []file) (*madePackage, error) {
	r.Subdir, r.Fn = "linux-64", r.dist()+".conda"
	if r.Depends == nil {
		r.Depends = []string{}
	}
	slices.SortFunc(files, func(a, b file) int { return strings.Compare(a.name, b.name) })
	info, err := infoFiles(r, files)
	if err != nil {
		return nil, err
	}
	archive, err := packConda(r.dist(), files, info)
	if err != nil {
		return nil, fmt.Errorf("demo: pack %s: %w", r.Fn, err)
	}
	r.Size, r.SHA256 = int64(len(archive)), sha256Hex(archive)
	sum := md5.Sum(archive)
	r.MD5 = hex.EncodeToString(sum[:])
	return &madePackage{record: r, files: slices.Concat(files, info), archive: archive}, nil
}

func infoFiles(r record, files []file) ([]file, error) {
	var entries []pathEntry
	for _, f := range files {
		e := pathEntry{Path: f.name, PathType: "hardlink", SHA256: sha256Hex(f.data), Size: int64(len(f.data))}
		if f.link != "" {
			e.PathType = "softlink"
		}
		if f.prefix {
			e.Placeholder, e.FileMode = placeholder, "text"
		}
		entries = append(entries, e)
	}
	paths, err := json.Marshal(map[string]any{"paths": entries, "paths_version": 1})
	if err != nil {
		return nil, err
	}
	index, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	return []file{
		{name: "info/about.json", data: []byte("{}"), mode: 0o644},
		{name: "info/index.json", data: index, mode: 0o644},
		{name: "info/paths.json", data: paths, mode: 0o644},
	}, nil
}

// Archive packs regular files, by their paths in the package, into its .conda archive.
func Archive(dist string, files map[string][]byte) ([]byte, error) {
	var payload, info []file
	for _, name := range slices.Sorted(maps.Keys(files)) {
		f := file{name: name, data: files[name], mode: 0o644}
		if f.isInfo() {
			info = append(info, f)
		} else {
			payload = append(payload, f)
		}
	}
	return packConda(dist, payload, info)
}

func packConda(dist string, files, info []file) ([]byte, error) {
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	member := func(name string, fill func(io.Writer) error) error {
		w, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store, Modified: packageTime})
		if err != nil {
			return err
		}
		return fill(w)
	}
	err := member("metadata.json", func(w io.Writer) error {
		_, err := io.WriteString(w, `{"conda_pkg_format_version": 2}`)
		return err
	})
	if err == nil {
		err = member("pkg-"+dist+".tar.zst", func(w io.Writer) error { return packTar(w, files) })
	}
	if err == nil {
		err = member("info-"+dist+".tar.zst", func(w io.Writer) error { return packTar(w, info) })
	}
	if err == nil {
		err = z.Close()
	}
	return out.Bytes(), err
}

func packTar(w io.Writer, files []file) error {
	enc, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		return err
	}
	t := tar.NewWriter(enc)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.data)), ModTime: packageTime, Typeflag: tar.TypeReg, Format: tar.FormatPAX}
		if f.link != "" {
			h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, f.link, 0o777
		}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		if _, err := t.Write(f.data); err != nil {
			return err
		}
	}
	if err := t.Close(); err != nil {
		return err
	}
	return enc.Close()
}

func sha256Hex(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// inEnvironment is what a file's bytes become in an environment.
func (f *file) inEnvironment(prefix string) []byte {
	if !f.prefix {
		return f.data
	}
	return bytes.ReplaceAll(f.data, []byte(placeholder), []byte(prefix))
}

func (f *file) isInfo() bool { return strings.HasPrefix(path.Clean(f.name), "info/") }
