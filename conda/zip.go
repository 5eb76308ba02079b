package conda

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"math"
	"strings"
)

// A .conda file is a zip file of three stored members: metadata.json,
// info-NAME.tar.zst and pkg-NAME.tar.zst. archive/zip reads any zip file and
// makes room for as many members as the file claims to have; this reader takes
// a handful of stored ones and nothing else.

const (
	maxZipMembers = 16
	maxZipDir     = 64 << 10 // bytes of the central directory
	maxMetadata   = 64 << 10 // bytes of metadata.json
)

// zipMember is a stored member of a .conda file.
type zipMember struct {
	name   string
	size   int64
	crc    uint32
	header int64 // offset of the local header
	r      io.ReaderAt
}

// readZip lists the members of a .conda file.
func readZip(r io.ReaderAt, size int64) ([]zipMember, error) {
	count, length, offset, err := findZipDir(r, size)
	if err != nil {
		return nil, err
	}
	if count > maxZipMembers || length > maxZipDir {
		return nil, fmt.Errorf("zip directory of %d members and %d bytes is no conda package's", count, length)
	}
	if offset < 0 || offset > size-length {
		return nil, fmt.Errorf("zip directory lies outside of the file")
	}
	b := make([]byte, length)
	if _, err := r.ReadAt(b, offset); err != nil {
		return nil, readAtError(err)
	}
	var members []zipMember
	for range count {
		var m zipMember
		if b, err = m.parse(b); err != nil {
			return nil, err
		}
		if m.header < 0 || m.size < 0 || m.header > offset || m.size > offset-m.header {
			return nil, fmt.Errorf("%q lies outside of the file", m.name)
		}
		m.r = r
		members = append(members, m)
	}
	return members, nil
}

const (
	zipEndLen      = 22
	zip64LocLen    = 20
	zip64EndLen    = 56
	zipDirEntryLen = 46
	zipLocalLen    = 30
)

var le = binary.LittleEndian

// findZipDir reads the end-of-directory record, which is followed by a comment
// of up to 64 KiB and nothing else.
func findZipDir(r io.ReaderAt, size int64) (count int, length, offset int64, err error) {
	n := min(size, zipEndLen+math.MaxUint16)
	tail := make([]byte, n)
	if _, err := r.ReadAt(tail, size-n); err != nil {
		return 0, 0, 0, readAtError(err)
	}
	at := -1
	for end := len(tail); end >= zipEndLen; {
		i := bytes.LastIndex(tail[:end], []byte("PK\x05\x06"))
		if i < 0 {
			break
		}
		if i+zipEndLen <= len(tail) && i+zipEndLen+int(le.Uint16(tail[i+20:])) == len(tail) {
			at = i
			break
		}
		end = i + 3
	}
	if at < 0 {
		return 0, 0, 0, fmt.Errorf("no zip directory at the end: the file is cut off or no .conda")
	}
	e := tail[at:]
	count, length, offset = int(le.Uint16(e[10:])), int64(le.Uint32(e[12:])), int64(le.Uint32(e[16:]))
	if count != math.MaxUint16 && length != math.MaxUint32 && offset != math.MaxUint32 {
		return count, length, offset, nil
	}
	return findZip64Dir(r, size-n+int64(at))
}

// findZip64Dir reads the record for large files, whose locator lies before end.
func findZip64Dir(r io.ReaderAt, end int64) (count int, length, offset int64, err error) {
	var loc [zip64LocLen]byte
	if end < zip64LocLen {
		return 0, 0, 0, fmt.Errorf("zip64 locator is missing")
	}
	if _, err := r.ReadAt(loc[:], end-zip64LocLen); err != nil {
		return 0, 0, 0, readAtError(err)
	}
	at := int64(le.Uint64(loc[8:]))
	if string(loc[:4]) != "PK\x06\x07" || at < 0 || at > end-zip64LocLen-zip64EndLen {
		return 0, 0, 0, fmt.Errorf("zip64 locator is damaged")
	}
	var e [zip64EndLen]byte
	if _, err := r.ReadAt(e[:], at); err != nil {
		return 0, 0, 0, readAtError(err)
	}
	n := le.Uint64(e[32:])
	length, offset = int64(le.Uint64(e[40:])), int64(le.Uint64(e[48:]))
	if string(e[:4]) != "PK\x06\x06" || n > maxZipMembers || length < 0 {
		return 0, 0, 0, fmt.Errorf("zip64 directory is damaged or no conda package's")
	}
	return int(n), length, offset, nil
}

// parse reads one directory entry from the start of b and returns the rest.
func (m *zipMember) parse(b []byte) ([]byte, error) {
	if len(b) < zipDirEntryLen || string(b[:4]) != "PK\x01\x02" {
		return nil, fmt.Errorf("zip directory is damaged")
	}
	flags, method := le.Uint16(b[8:]), le.Uint16(b[10:])
	m.crc = le.Uint32(b[16:])
	packed, size := uint64(le.Uint32(b[20:])), uint64(le.Uint32(b[24:]))
	nameLen, extraLen, commentLen := int(le.Uint16(b[28:])), int(le.Uint16(b[30:])), int(le.Uint16(b[32:]))
	header := uint64(le.Uint32(b[42:]))
	b = b[zipDirEntryLen:]
	if len(b) < nameLen+extraLen+commentLen {
		return nil, fmt.Errorf("zip directory is damaged")
	}
	m.name = string(b[:nameLen])
	extra := b[nameLen : nameLen+extraLen]
	b = b[nameLen+extraLen+commentLen:]
	if name, err := cleanMember(m.name); err != nil {
		return nil, err
	} else if name != m.name || strings.IndexByte(name, '/') >= 0 {
		return nil, fmt.Errorf("%q: no member of a .conda lies in a directory", m.name)
	}
	if err := zip64Extra(extra, &size, &packed, &header); err != nil {
		return nil, fmt.Errorf("%q: %w", m.name, err)
	}
	if flags&1 != 0 {
		return nil, fmt.Errorf("%q is encrypted", m.name)
	}
	if method != 0 || size != packed {
		return nil, fmt.Errorf("%q is compressed by zip, which no .conda is", m.name)
	}
	m.size, m.header = int64(size), int64(header)
	return b, nil
}

// zip64Extra replaces the fields that are too large for 32 bits.
func zip64Extra(extra []byte, fields ...*uint64) error {
	for len(extra) >= 4 {
		id, n := le.Uint16(extra), int(le.Uint16(extra[2:]))
		extra = extra[4:]
		if n > len(extra) {
			return fmt.Errorf("extra field is damaged")
		}
		field := extra[:n]
		extra = extra[n:]
		if id != 1 {
			continue
		}
		for _, f := range fields {
			if *f != math.MaxUint32 {
				continue
			}
			if len(field) < 8 {
				return fmt.Errorf("zip64 field is too short")
			}
			*f = le.Uint64(field)
			field = field[8:]
		}
	}
	return nil
}

// open returns the content. Reading it to the end checks its CRC.
func (m *zipMember) open() (io.Reader, error) {
	var h [zipLocalLen]byte
	if _, err := m.r.ReadAt(h[:], m.header); err != nil {
		return nil, readAtError(err)
	}
	if string(h[:4]) != "PK\x03\x04" {
		return nil, fmt.Errorf("%q: local header is damaged", m.name)
	}
	data := m.header + zipLocalLen + int64(le.Uint16(h[26:])) + int64(le.Uint16(h[28:]))
	return &crcReader{m: m, r: io.NewSectionReader(m.r, data, m.size), crc: crc32.NewIEEE(), left: m.size}, nil
}

// crcReader checks a member's length and CRC when its end is reached.
type crcReader struct {
	m    *zipMember
	r    io.Reader
	crc  hash.Hash32
	left int64
}

func (c *crcReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.crc.Write(b[:n]) // a hash never fails
	c.left -= int64(n)
	if err != io.EOF {
		return n, err
	}
	if c.left > 0 {
		return n, fmt.Errorf("%q: %w", c.m.name, io.ErrUnexpectedEOF)
	}
	if c.crc.Sum32() != c.m.crc {
		return n, fmt.Errorf("%q: checksum does not match", c.m.name)
	}
	return n, io.EOF
}

// readAtError makes the end of the file, where more was promised, an error of
// its own: a plain io.EOF would look like success further up.
func readAtError(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
