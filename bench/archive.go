package bench

import (
	"archive/tar"
	"archive/zip"
	"io"
	"time"

	"github.com/klauspost/compress/zstd"
)

// member is a file of an archive.
type member struct {
	name    string
	content []byte
}

// fileTime is what all files of archives have.
var fileTime = time.Unix(1_700_000_000, 0)

// pack writes the .conda archive of a package.
func pack(w io.Writer, dist string, payload, info []member) error {
	z := zip.NewWriter(w)
	add := func(name string, fill func(io.Writer) error) error {
		m, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store, Modified: fileTime})
		if err != nil {
			return err
		}
		return fill(m)
	}
	err := add("metadata.json", func(w io.Writer) error {
		_, err := io.WriteString(w, `{"conda_pkg_format_version": 2}`)
		return err
	})
	if err == nil {
		err = add("pkg-"+dist+".tar.zst", func(w io.Writer) error { return packTar(w, payload) })
	}
	if err == nil {
		err = add("info-"+dist+".tar.zst", func(w io.Writer) error { return packTar(w, info) })
	}
	if err != nil {
		return err
	}
	return z.Close()
}

func packTar(w io.Writer, members []member) error {
	enc, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		return err
	}
	t := tar.NewWriter(enc)
	for _, m := range members {
		if err := t.WriteHeader(&tar.Header{Name: m.name, Mode: 0o644, Size: int64(len(m.content)), ModTime: fileTime, Format: tar.FormatPAX}); err != nil {
			return err
		}
		if _, err := t.Write(m.content); err != nil {
			return err
		}
	}
	if err := t.Close(); err != nil {
		return err
	}
	return enc.Close()
}
