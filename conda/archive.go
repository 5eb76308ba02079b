package conda

import (
	"archive/tar"
	"bytes"
	"compress/bzip2"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"condafs/fault"

	"github.com/klauspost/compress/zstd"
)

// maxWindow bounds what zstd may look back, and so its memory: "zstd --ultra
// -22", the most that conda's tools use, needs 128 MiB.
const maxWindow = 128 << 20

// Visitor gets the members of an archive in their order. For a MemberFile r is
// its content, valid until the visitor returns; it need not be read. The error
// of a visitor ends the walk and is returned as it is.
type Visitor func(m Member, r io.Reader) error

// WalkArchive reads a whole .conda or .tar.bz2 and visits its members; of a
// .conda the info part comes first. fn is the archive's file name and tells the
// format. The size is that of the file.
//
// Members that would leave the package, that cannot exist, or that are no
// files, directories or links are refused, and so is more than lim allows: with
// fault.Corrupt, a clean error of the reader (fault.IO, fault.Canceled) keeps
// its kind. Whatever a visitor was told before the error is void.
func WalkArchive(ctx context.Context, f io.ReaderAt, size int64, fn string, lim Limits, visit Visitor) error {
	return walk(ctx, f, size, fn, lim, true, visit)
}

// WalkInfo visits the members below info/. For a .conda it decodes only the
// info part, which is small; a .tar.bz2 is decoded whole.
func WalkInfo(ctx context.Context, f io.ReaderAt, size int64, fn string, lim Limits, visit Visitor) error {
	return walk(ctx, f, size, fn, lim, false, func(m Member, r io.Reader) error {
		if m.Path != "info" && !strings.HasPrefix(m.Path, "info/") {
			return nil
		}
		return visit(m, r)
	})
}

// CheckArchive reads a whole archive and returns what its info/index.json says,
// completed by the file's name and size. It fails with fault.Corrupt when
// something does not decode or when the package is not the one that fn names.
func CheckArchive(ctx context.Context, f io.ReaderAt, size int64, fn string, lim Limits) (*Record, error) {
	var rec *Record
	err := WalkArchive(ctx, f, size, fn, lim, func(m Member, r io.Reader) error {
		if m.Path != IndexPath || m.Type != MemberFile {
			return nil
		}
		var err error
		rec, err = ParseIndex(r)
		return err
	})
	if err != nil {
		return nil, err
	}
	const op = "check archive"
	if rec == nil {
		return nil, corrupt(op, fn, "%s is missing", IndexPath)
	}
	if stem, _ := CutArchiveExt(fn); stem != rec.Dist() {
		return nil, corrupt(op, fn, "it holds the package %s", rec.Dist())
	}
	rec.Fn, rec.Size = fn, size
	return rec, nil
}

// walker is one walk through an archive.
type walker struct {
	ctx    context.Context
	fn     string
	visit  Visitor
	layout *layout
	files  int64 // members that may still come
	bytes  int64 // uncompressed bytes that may still come
	// content is the same bound for the members' sizes: sparse files are longer
	// than what the stream holds of them.
	content int64
}

// visitError carries a visitor's own error through the readers.
type visitError struct{ err error }

func (e visitError) Error() string { return e.err.Error() }

func walk(ctx context.Context, f io.ReaderAt, size int64, fn string, lim Limits, all bool, visit Visitor) error {
	lim = lim.withDefaults()
	w := &walker{ctx: ctx, fn: fn, visit: visit, layout: newLayout(lim), files: lim.MaxFiles}
	w.bytes = lim.bytesFor(size)
	w.content = w.bytes
	var err error
	switch {
	case strings.HasSuffix(fn, ".conda"):
		err = w.walkConda(f, size, all)
	case strings.HasSuffix(fn, ".tar.bz2"):
		err = w.walkTar(bzip2.NewReader(&ctxReader{ctx, io.NewSectionReader(f, 0, size)}))
	default:
		return fault.New("read archive", fn, fault.Usage, errors.New("neither .conda nor .tar.bz2"))
	}
	if err == nil {
		err = w.layout.checkLinks()
	}
	var v visitError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &v):
		return v.err
	default:
		return readFailure("read archive", fn, err)
	}
}

// walkConda walks the info part and, if all is set, the pkg part.
func (w *walker) walkConda(f io.ReaderAt, size int64, all bool) error {
	members, err := readZip(f, size)
	if err != nil {
		return err
	}
	for i := range members {
		if members[i].name == "metadata.json" {
			if err := checkMetadata(&members[i]); err != nil {
				return err
			}
		}
	}
	if err := w.walkPart(members, "info-"); err != nil || !all {
		return err
	}
	return w.walkPart(members, "pkg-")
}

// checkMetadata reads the version of the format. mamba once wrote empty files.
func checkMetadata(m *zipMember) error {
	if m.size == 0 {
		return nil
	}
	if m.size > maxMetadata {
		return fmt.Errorf("%q has %d bytes", m.name, m.size)
	}
	r, err := m.open()
	if err != nil {
		return err
	}
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	var meta struct {
		Version *int `json:"conda_pkg_format_version"`
	}
	if err := json.Unmarshal(bytes.TrimSpace(b), &meta); err != nil {
		return fmt.Errorf("%q: %w", m.name, err)
	}
	if meta.Version != nil && *meta.Version != 2 {
		return fmt.Errorf("%q: format version %d, only 2 is known", m.name, *meta.Version)
	}
	return nil
}

// walkPart walks the one member called PREFIX….tar.zst.
func (w *walker) walkPart(members []zipMember, prefix string) error {
	var part *zipMember
	for i := range members {
		m := &members[i]
		if !strings.HasPrefix(m.name, prefix) || !strings.HasSuffix(m.name, ".tar.zst") {
			continue
		}
		if part != nil {
			return fmt.Errorf("%q and %q: one %s*.tar.zst is expected", part.name, m.name, prefix)
		}
		part = m
	}
	if part == nil {
		return fmt.Errorf("%s*.tar.zst is missing", prefix)
	}
	r, err := part.open()
	if err != nil {
		return err
	}
	z, err := zstd.NewReader(&ctxReader{w.ctx, r}, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
	if err != nil {
		return err
	}
	defer z.Close()
	if err := w.walkTar(z); err != nil {
		return fmt.Errorf("%s: %w", part.name, err)
	}
	return nil
}

// walkTar visits the members of a tar stream and reads the stream to its end,
// so that the checksums of the compression are checked.
func (w *walker) walkTar(stream io.Reader) error {
	stream = &byteLimit{r: stream, left: &w.bytes}
	t := tar.NewReader(stream)
	for {
		h, err := t.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if err := w.member(h, t); err != nil {
			return err
		}
	}
	_, err := io.Copy(io.Discard, stream)
	return err
}

// member checks one tar header and visits it.
func (w *walker) member(h *tar.Header, r io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	if w.files--; w.files < 0 {
		return fmt.Errorf("too many members")
	}
	if h.Typeflag == tar.TypeDir && strings.Trim(h.Name, "./") == "" && !strings.Contains(h.Name, "..") {
		return nil // the package itself
	}
	m := Member{Mode: uint32(h.Mode) & 0o7777, Mtime: h.ModTime}
	var err error
	if m.Path, err = cleanMember(h.Name); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
		m.Type, m.Size = MemberFile, h.Size
		if w.content -= h.Size; w.content < 0 {
			return fmt.Errorf("%q: %w", m.Path, errTooMuch)
		}
	case tar.TypeDir:
		m.Type = MemberDir
	case tar.TypeSymlink:
		m.Type, m.Link = MemberSymlink, h.Linkname
	case tar.TypeLink:
		m.Type = MemberHardlink
		if m.Link, err = cleanMember(h.Linkname); err != nil {
			return fmt.Errorf("hard link %q: %w", m.Path, err)
		}
	default:
		return fmt.Errorf("%q is a device, FIFO or other special file (type %q)", m.Path, h.Typeflag)
	}
	if err := w.layout.add(m); err != nil {
		return err
	}
	if m.Type != MemberFile {
		r = nil
	}
	if err := w.visit(m, r); err != nil {
		return visitError{err}
	}
	return nil
}

var errTooMuch = errors.New("too many bytes for an archive of this size")

// byteLimit fails when more bytes come than are left.
type byteLimit struct {
	r    io.Reader
	left *int64
}

func (l *byteLimit) Read(b []byte) (int, error) {
	n, err := l.r.Read(b)
	if *l.left -= int64(n); *l.left < 0 {
		return 0, errTooMuch
	}
	return n, err
}

// ctxReader fails once its context is done.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *ctxReader) Read(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(b)
}
