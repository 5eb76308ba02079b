package hashing

import (
	"encoding/hex"
	"errors"
	"strconv"

	"condafs/fault"

	"github.com/zeebo/blake3"
)

// Size is the length of a Digest in bytes.
const Size = 32

// Digest is the BLAKE3-256 hash of some bytes. The zero Digest names nothing.
type Digest [Size]byte

// Sum returns the digest of b.
func Sum(b []byte) Digest { return blake3.Sum256(b) }

// String returns the digest as 64 lower case hexadecimal digits.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// Short returns the first 12 digits, enough for a log line.
func (d Digest) Short() string { return hex.EncodeToString(d[:6]) }

// IsZero reports whether d names nothing.
func (d Digest) IsZero() bool { return d == Digest{} }

// MarshalText returns the hexadecimal form, and nothing for the zero digest.
func (d Digest) MarshalText() ([]byte, error) {
	if d.IsZero() {
		return []byte{}, nil
	}
	return []byte(d.String()), nil
}

// UnmarshalText takes what MarshalText gives.
func (d *Digest) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*d = Digest{}
		return nil
	}
	p, err := ParseDigest(string(b))
	if err != nil {
		return err
	}
	*d = p
	return nil
}

var errDigestForm = errors.New("a digest is 64 lower case hexadecimal digits")

// ParseDigest is the inverse of String. It takes lower case only: a digest is also
// a file's name in the store, and a name has one spelling.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	if len(s) != 2*Size {
		return d, badDigest(s)
	}
	for i := range d {
		hi, ok1 := nibble(s[2*i])
		lo, ok2 := nibble(s[2*i+1])
		if !ok1 || !ok2 {
			return Digest{}, badDigest(s)
		}
		d[i] = hi<<4 | lo
	}
	return d, nil
}

func badDigest(s string) error {
	return fault.New("parse digest", strconv.Quote(s[:min(len(s), 2*Size+1)]), fault.Usage, errDigestForm)
}

func nibble(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	}
	return 0, false
}
