package demo

import (
	"archive/tar"
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
)

// extract removes what is there, extracts the archive beside itself and writes the record last.
func extract(c *cache, r record) error {
	folder := c.path(r.dist())
	if exists(folder) {
		removeAll(folder)
	}
	if err := extractConda(c.path(r.Fn), folder); err != nil {
		return fmt.Errorf("InvalidArchiveError: %w", err)
	}
	var index map[string]any
	if err := readJSON(filepath.Join(folder, "info", "index.json"), &index); err != nil {
		return fmt.Errorf("%w: %s", errCorruptTarball, r.Fn)
	}
	merged := maps.Clone(index)
	maps.Copy(merged, map[string]any{"md5": r.MD5, "sha256": r.SHA256, "size": r.Size, "fn": r.Fn, "url": r.URL, "channel": r.Channel})
	if err := writeJSON(filepath.Join(folder, "info", "repodata_record.json"), merged); err != nil {
		return err
	}
	return c.insert(r)
}

// extractConda unpacks both parts of a .conda archive, in the order of conda-package-handling.
func extractConda(archive, folder string) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	z, err := zip.NewReader(f, st.Size())
	if err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o777); err != nil {
		return err
	}
	if folder, err = filepath.EvalSymlinks(folder); err != nil { // conda-package-streaming does that with os.path.realpath
		return err
	}
	for _, part := range []string{"info-", "pkg-"} {
		for _, member := range z.File {
			if strings.HasPrefix(member.Name, part) {
				if err := extractPart(member, folder); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func extractPart(member *zip.File, folder string) error {
	r, err := member.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	dec, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return err
	}
	defer dec.Close()
	t := tar.NewReader(dec)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := extractMember(t, h, filepath.Join(folder, h.Name)); err != nil {
			return err
		}
	}
}

// extractMember does to a file what Python's tarfile does: create, write, close, chmod, set the times.
func extractMember(r io.Reader, h *tar.Header, target string) error {
	if err := os.MkdirAll(filepath.Dir(target), 0o777); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeSymlink {
		if exists(target) {
			if err := os.Remove(target); err != nil {
				return err
			}
		}
		return os.Symlink(h.Linkname, target)
	}
	f, err := os.OpenFile(target, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{f}, struct{ io.Reader }{r}, make([]byte, chunk))
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Chmod(target, os.FileMode(h.Mode).Perm()); err != nil {
		return err
	}
	return os.Chtimes(target, time.Time{}, h.ModTime)
}
