package handover

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"condafs/fault"
)

// Version is that of an image's format and meaning. A program reads its own version
// only. Fields may be added without another version, if what they mean when they are
// missing is what was the case before there was such a thing.
const Version = 1

// magic begins an image. What follows is the version, 4 bytes, and the sections: the
// number of each one's name's bytes and of its own, 4 and 8 bytes, and both; and at the
// end, over all of it, a SHA-256. Numbers are big-endian.
const magic = "condafs image\n"

// maxImage bounds an image that is read. One node that a client knows takes 100 bytes.
const maxImage = 4 << 30

// Image is what goes from one program to the next: sections, by their names.
type Image struct {
	sections map[string][]byte
	order    []string
}

// Put adds a section, which is a value of plain data: the exported fields of structs,
// slices, maps, strings, whole numbers and what can marshal itself to bytes.
func (i *Image) Put(name string, v any) error {
	b, err := encode(v)
	if err != nil {
		return fault.New("hand over", name, fault.Other, err)
	}
	if i.sections == nil {
		i.sections = make(map[string][]byte)
	}
	if _, there := i.sections[name]; !there {
		i.order = append(i.order, name)
	}
	i.sections[name] = b
	return nil
}

// Has reports whether there is a section.
func (i *Image) Has(name string) bool {
	_, ok := i.sections[name]
	return ok
}

// Get reads a section into what v points to. A section that is not there, or of other
// content, is fault.Corrupt.
func (i *Image) Get(name string, v any) error {
	b, ok := i.sections[name]
	err := fmt.Errorf("%w: it has no such part", errImage)
	if ok {
		err = decode(b, v)
	}
	if err != nil {
		return fault.New("read the image", name, fault.Corrupt, err)
	}
	return nil
}

// Encode returns the image as bytes.
func (i *Image) Encode() []byte {
	b := binary.BigEndian.AppendUint32([]byte(magic), Version)
	for _, name := range i.order {
		b = binary.BigEndian.AppendUint32(b, uint32(len(name)))
		b = binary.BigEndian.AppendUint64(b, uint64(len(i.sections[name])))
		b = append(append(b, name...), i.sections[name]...)
	}
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

// Decode reads what Encode has returned. Another version is fault.Version, anything else
// that is not an image fault.Corrupt. The image shares b's memory.
func Decode(b []byte) (*Image, error) {
	bad := func(why string) (*Image, error) {
		return nil, fault.New("read the image", "", fault.Corrupt, errors.New(why))
	}
	rest, ok := bytes.CutPrefix(b, []byte(magic))
	if !ok || len(rest) < 4+sha256.Size {
		return bad("it is none, or it is cut")
	}
	if v := binary.BigEndian.Uint32(rest); v != Version {
		return nil, fault.New("read the image", "", fault.Version, fmt.Errorf("it is of version %d, and this condafs reads version %d", v, Version)).
			WithHint("unmount, and mount with the new one")
	}
	content, sum := b[:len(b)-sha256.Size], b[len(b)-sha256.Size:]
	if got := sha256.Sum256(content); !bytes.Equal(got[:], sum) {
		return bad("its checksum is wrong")
	}
	rest = rest[4 : len(rest)-sha256.Size]
	i := &Image{sections: make(map[string][]byte)}
	for len(rest) > 0 {
		if len(rest) < 12 {
			return bad("a section is cut")
		}
		n, size := uint64(binary.BigEndian.Uint32(rest)), binary.BigEndian.Uint64(rest[4:])
		rest = rest[12:]
		if n > uint64(len(rest)) || size > uint64(len(rest))-n {
			return bad("a section is cut")
		}
		name := string(rest[:n])
		if i.Has(name) {
			return bad("a section is there twice")
		}
		i.sections[name] = rest[n : n+size : n+size]
		i.order = append(i.order, name)
		rest = rest[n+size:]
	}
	return i, nil
}

// Store writes an image to a file in memory, which other programs get by its descriptor.
func (i *Image) Store() (*os.File, error) {
	const op = "write the image"
	fd, err := unix.MemfdCreate("condafs-image", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fault.New(op, "", fault.Other, err)
	}
	f := os.NewFile(uintptr(fd), "condafs-image")
	if _, err := f.WriteAt(i.Encode(), 0); err != nil {
		return nil, fault.New(op, "", fault.Other, errors.Join(err, f.Close()))
	}
	return f, nil
}

// Load reads an image from a file that Store has made, and leaves the file as it is.
func Load(f *os.File) (*Image, error) {
	fi, err := f.Stat()
	switch {
	case err != nil:
		return nil, fault.New("read the image", "", fault.Other, err)
	case !fi.Mode().IsRegular() || fi.Size() > maxImage:
		return nil, fault.New("read the image", "", fault.Corrupt, errors.New("it is none"))
	}
	b := make([]byte, fi.Size())
	if _, err := io.ReadFull(io.NewSectionReader(f, 0, fi.Size()), b); err != nil {
		return nil, fault.New("read the image", "", fault.Other, err)
	}
	return Decode(b)
}
