package hashing

import (
	"crypto/md5"
	"crypto/sha256"
	"hash"
	"io"
	"math"
	"os"
	"sync"

	"github.com/zeebo/blake3"
)

// Extra says what to compute beside BLAKE3.
type Extra uint8

const (
	SHA256 Extra = 1 << iota // the hash of conda's records and of paths.json
	MD5                      // the hash of old conda records
)

// Sums are the digests of one stream of bytes.
type Sums struct {
	Blake3 Digest
	SHA256 [32]byte // only if Has&SHA256 != 0
	MD5    [16]byte // only if Has&MD5 != 0
	Size   int64    // bytes
	Has    Extra
}

// Hasher hashes what is written to it. It is for one goroutine at a time.
type Hasher struct {
	extra  Extra
	blake3 *blake3.Hasher
	sha256 hash.Hash
	md5    hash.Hash
	size   int64
}

// New returns a Hasher of nothing written yet.
func New(extra Extra) *Hasher {
	h := &Hasher{extra: extra & (SHA256 | MD5), blake3: blake3.New()}
	if extra&SHA256 != 0 {
		h.sha256 = sha256.New()
	}
	if extra&MD5 != 0 {
		h.md5 = md5.New()
	}
	return h
}

// Write adds b. It never fails.
func (h *Hasher) Write(b []byte) (int, error) {
	// None of the three ever returns an error: hash.Hash promises it.
	h.blake3.Write(b)
	if h.sha256 != nil {
		h.sha256.Write(b)
	}
	if h.md5 != nil {
		h.md5.Write(b)
	}
	h.size += int64(len(b))
	return len(b), nil
}

// Sums returns the digests of what was written so far; more may follow.
func (h *Hasher) Sums() Sums {
	s := Sums{Size: h.size, Has: h.extra}
	h.blake3.Sum(s.Blake3[:0])
	if h.sha256 != nil {
		h.sha256.Sum(s.SHA256[:0])
	}
	if h.md5 != nil {
		h.md5.Sum(s.MD5[:0])
	}
	return s
}

// Reset forgets what was written.
func (h *Hasher) Reset() {
	h.blake3.Reset()
	if h.sha256 != nil {
		h.sha256.Reset()
	}
	if h.md5 != nil {
		h.md5.Reset()
	}
	h.size = 0
}

// bufferSize is large enough for BLAKE3's widest SIMD path and for cheap reads.
const bufferSize = 256 << 10

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// onlyWriter hides Hasher's other methods, and onlyReader a reader's WriteTo, from
// io.CopyBuffer, so that the pooled buffer is what is used.
type (
	onlyWriter struct{ io.Writer }
	onlyReader struct{ io.Reader }
)

// Reader hashes r to its end.
func Reader(r io.Reader, extra Extra) (Sums, error) {
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	h := New(extra)
	if _, err := io.CopyBuffer(onlyWriter{h}, onlyReader{r}, buf[:]); err != nil {
		return Sums{}, err
	}
	return h.Sums(), nil
}

// File hashes f from its start to its end, however long it is by then. It reads at
// offsets and so neither uses nor moves the file's own offset.
func File(f *os.File, extra Extra) (Sums, error) {
	return Reader(io.NewSectionReader(f, 0, math.MaxInt64), extra)
}
