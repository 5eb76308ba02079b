package conda

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
)

const maxMsgpackDepth = 256

// skipMsgpack consumes one MessagePack value and checks its structure.
func skipMsgpack(r *bufio.Reader) error { return skipMsgpackAt(r, 0) }

func skipMsgpackAt(r *bufio.Reader, depth int) error {
	if depth > maxMsgpackDepth {
		return fmt.Errorf("nested deeper than %d", maxMsgpackDepth)
	}
	c, err := r.ReadByte()
	if err != nil {
		return readAtError(err)
	}
	switch {
	case c <= 0x7f, c >= 0xe0, c == 0xc0, c == 0xc2, c == 0xc3: // small integers, nil, booleans
		return nil
	case c <= 0x8f:
		return skipMany(r, 2*uint64(c&0x0f), depth)
	case c <= 0x9f:
		return skipMany(r, uint64(c&0x0f), depth)
	case c <= 0xbf:
		return discard(r, uint64(c&0x1f))
	}
	f, ok := msgpackForms[c]
	if !ok {
		return fmt.Errorf("unknown type %#x", c)
	}
	n := uint64(f.fixed)
	if f.lenBytes > 0 {
		l, err := readUint(r, f.lenBytes)
		if err != nil {
			return err
		}
		n += l * uint64(f.per)
	}
	if f.nested {
		return skipMany(r, n, depth)
	}
	return discard(r, n)
}

// msgpackForm says how long a value is: fixed bytes, or a length of lenBytes
// bytes that counts bytes or nested values, and per of them each.
type msgpackForm struct {
	fixed    int
	lenBytes int
	per      int
	nested   bool
}

var msgpackForms = map[byte]msgpackForm{
	0xc4: {0, 1, 1, false}, 0xc5: {0, 2, 1, false}, 0xc6: {0, 4, 1, false}, // bin
	0xc7: {1, 1, 1, false}, 0xc8: {1, 2, 1, false}, 0xc9: {1, 4, 1, false}, // ext
	0xca: {4, 0, 0, false}, 0xcb: {8, 0, 0, false}, // float
	0xcc: {1, 0, 0, false}, 0xcd: {2, 0, 0, false}, 0xce: {4, 0, 0, false}, 0xcf: {8, 0, 0, false}, // uint
	0xd0: {1, 0, 0, false}, 0xd1: {2, 0, 0, false}, 0xd2: {4, 0, 0, false}, 0xd3: {8, 0, 0, false}, // int
	0xd4: {2, 0, 0, false}, 0xd5: {3, 0, 0, false}, 0xd6: {5, 0, 0, false}, 0xd7: {9, 0, 0, false}, 0xd8: {17, 0, 0, false}, // fixext
	0xd9: {0, 1, 1, false}, 0xda: {0, 2, 1, false}, 0xdb: {0, 4, 1, false}, // str
	0xdc: {0, 2, 1, true}, 0xdd: {0, 4, 1, true}, // array
	0xde: {0, 2, 2, true}, 0xdf: {0, 4, 2, true}, // map
}

func skipMany(r *bufio.Reader, n uint64, depth int) error {
	for range n {
		if err := skipMsgpackAt(r, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func readUint(r io.Reader, size int) (uint64, error) {
	var b [8]byte
	if _, err := io.ReadFull(r, b[8-size:]); err != nil {
		return 0, readAtError(err)
	}
	return binary.BigEndian.Uint64(b[:]), nil
}

func discard(r io.Reader, n uint64) error {
	_, err := io.CopyN(io.Discard, r, int64(n)) // n fits: lengths have 32 bits
	return readAtError(err)
}
