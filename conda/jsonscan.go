package conda

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// jsonScanner reads JSON as a stream, value by value. A channel's repodata has
// hundreds of megabytes: it fits neither into memory nor, at the speed of
// encoding/json's tokens, into the time until a commit.
//
// It accepts what encoding/json accepts, but for the depth of nesting.
type jsonScanner struct {
	r    io.Reader
	buf  []byte // what was read; buf[pos:] is yet to be consumed
	pos  int
	base int64 // offset of buf in the stream
	err  error // came with the bytes in buf
	keep *[]byte
	max  int // bound of keep
}

const maxJSONDepth = 512

func newJSONScanner(r io.Reader) *jsonScanner {
	return &jsonScanner{r: r, buf: make([]byte, 0, 64<<10)}
}

// offset returns how many bytes were consumed.
func (s *jsonScanner) offset() int64 { return s.base + int64(s.pos) }

// fill reads more when all of the buffer is consumed. At the end of the stream
// it returns io.EOF.
func (s *jsonScanner) fill() error {
	if s.pos < len(s.buf) {
		return nil
	}
	s.base += int64(len(s.buf))
	s.pos, s.buf = 0, s.buf[:0]
	for range 100 {
		if s.err != nil {
			return s.err
		}
		n, err := s.r.Read(s.buf[:cap(s.buf)])
		s.buf, s.err = s.buf[:n], err
		if n > 0 {
			return nil
		}
	}
	return io.ErrNoProgress
}

func (s *jsonScanner) errorf(format string, args ...any) error {
	return fmt.Errorf("offset %d: %w", s.offset(), fmt.Errorf(format, args...))
}

// next consumes one byte.
func (s *jsonScanner) next() (byte, error) {
	if s.pos == len(s.buf) {
		if err := s.fill(); err != nil {
			return 0, readAtError(err)
		}
	}
	c := s.buf[s.pos]
	s.pos++
	if s.keep != nil {
		return c, s.record(c)
	}
	return c, nil
}

// record keeps what is being captured.
func (s *jsonScanner) record(b ...byte) error {
	if s.keep == nil {
		return nil
	}
	if len(*s.keep)+len(b) > s.max {
		return s.errorf("value longer than %d bytes", s.max)
	}
	*s.keep = append(*s.keep, b...)
	return nil
}

// peek returns the next byte that is not white space, without consuming it.
func (s *jsonScanner) peek() (byte, error) {
	for {
		for s.pos < len(s.buf) {
			switch c := s.buf[s.pos]; c {
			case ' ', '\t', '\r', '\n':
				s.pos++
			default:
				return c, nil
			}
		}
		if err := s.fill(); err != nil {
			return 0, err
		}
	}
}

// end fails unless nothing but white space is left.
func (s *jsonScanner) end() error {
	c, err := s.peek()
	if err == io.EOF {
		return nil
	}
	if err != nil {
		return err
	}
	return s.errorf("%q after the end", c)
}

// object calls f for each key of the object that comes next. f must consume
// the value.
func (s *jsonScanner) object(f func(key []byte) error) error {
	if err := s.expect('{'); err != nil {
		return err
	}
	for first := true; ; first = false {
		more, err := s.element('}', first)
		if err != nil || !more {
			return err
		}
		key, err := s.key()
		if err != nil {
			return err
		}
		if err := s.expect(':'); err != nil {
			return err
		}
		if err := f(key); err != nil {
			return err
		}
	}
}

// array calls f for each element of the array that comes next. f must consume it.
func (s *jsonScanner) array(f func() error) error {
	if err := s.expect('['); err != nil {
		return err
	}
	for first := true; ; first = false {
		more, err := s.element(']', first)
		if err != nil || !more {
			return err
		}
		if err := f(); err != nil {
			return err
		}
	}
}

// element tells whether another element follows, and consumes the comma before
// it or the bracket after the last.
func (s *jsonScanner) element(closing byte, first bool) (bool, error) {
	c, err := s.peek()
	if err != nil {
		return false, readAtError(err)
	}
	if c == closing {
		_, err := s.next()
		return false, err
	}
	if first {
		return true, nil
	}
	return true, s.expect(',')
}

func (s *jsonScanner) expect(want byte) error {
	c, err := s.peek()
	if err != nil {
		return readAtError(err)
	}
	if c != want {
		return s.errorf("%q instead of %q", c, want)
	}
	_, err = s.next()
	return err
}

// key reads a string and returns what it stands for.
func (s *jsonScanner) key() ([]byte, error) {
	raw, err := s.capture(64<<10, func() error { return s.text() })
	if err != nil {
		return nil, err
	}
	if bytes.IndexByte(raw, '\\') < 0 && utf8.Valid(raw) {
		return raw[1 : len(raw)-1], nil
	}
	var key string
	if err := json.Unmarshal(raw, &key); err != nil {
		return nil, err
	}
	return []byte(key), nil
}

// value returns the next value as it is written, if it has at most max bytes.
func (s *jsonScanner) value(max int) ([]byte, error) {
	return s.capture(max, s.skip)
}

func (s *jsonScanner) capture(max int, read func() error) ([]byte, error) {
	if _, err := s.peek(); err != nil { // leading space is not the value's
		return nil, readAtError(err)
	}
	var kept []byte
	s.keep, s.max = &kept, max
	err := read()
	s.keep = nil
	return kept, err
}

// skip consumes the next value and checks its syntax.
func (s *jsonScanner) skip() error {
	var closing []byte // the brackets to come, innermost last
	for {
		c, err := s.peek()
		if err != nil {
			return readAtError(err)
		}
		opened := false
		switch c {
		case '{', '[':
			if len(closing) == maxJSONDepth {
				return s.errorf("nested deeper than %d", maxJSONDepth)
			}
			if _, err := s.next(); err != nil {
				return err
			}
			closing = append(closing, c+2) // ASCII has '}' and ']' there
			opened = true
		default:
			if err := s.scalar(c); err != nil {
				return err
			}
		}
		done, err := s.advance(&closing, opened)
		if done || err != nil {
			return err
		}
	}
}

// advance moves from the end of a value, or from an opening bracket, to the
// start of the next value. It reports true when there is none.
func (s *jsonScanner) advance(closing *[]byte, first bool) (bool, error) {
	for len(*closing) > 0 {
		c := (*closing)[len(*closing)-1]
		more, err := s.element(c, first)
		if err != nil {
			return false, err
		}
		first = false
		if !more {
			*closing = (*closing)[:len(*closing)-1]
			continue
		}
		if c != '}' {
			return false, nil
		}
		if err := s.text(); err != nil {
			return false, err
		}
		return false, s.expect(':')
	}
	return true, nil
}

func (s *jsonScanner) scalar(c byte) error {
	switch {
	case c == '"':
		return s.text()
	case c == 't':
		return s.word("true")
	case c == 'f':
		return s.word("false")
	case c == 'n':
		return s.word("null")
	case c == '-' || '0' <= c && c <= '9':
		return s.number()
	}
	return s.errorf("%q where a value is expected", c)
}

func (s *jsonScanner) word(w string) error {
	for i := range len(w) {
		c, err := s.next()
		if err != nil {
			return err
		}
		if c != w[i] {
			return s.errorf("%q instead of %q", c, w[i])
		}
	}
	return nil
}

// text consumes a string. Nearly all of a repodata.json is strings, so it looks
// at the buffer as a whole.
func (s *jsonScanner) text() error {
	if err := s.expect('"'); err != nil {
		return err
	}
	for {
		if err := s.fill(); err != nil {
			return readAtError(err)
		}
		b := s.buf[s.pos:]
		n := plainLen(b)
		if err := s.record(b[:n]...); err != nil {
			return err
		}
		s.pos += n
		if n == len(b) {
			continue
		}
		switch c, err := s.next(); {
		case err != nil:
			return err
		case c == '"':
			return nil
		case c == '\\':
			if err := s.escape(); err != nil {
				return err
			}
		default:
			return s.errorf("control character %#x in a string", c)
		}
	}
}

// plainLen returns how many bytes at the start of b belong to a string without
// further ado.
func plainLen(b []byte) int {
	for i, c := range b {
		if c == '"' || c == '\\' || c < ' ' {
			return i
		}
	}
	return len(b)
}

func (s *jsonScanner) escape() error {
	c, err := s.next()
	if err != nil {
		return err
	}
	switch c {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return nil
	case 'u':
		for range 4 {
			h, err := s.next()
			if err != nil {
				return err
			}
			if !('0' <= h && h <= '9' || 'a' <= h && h <= 'f' || 'A' <= h && h <= 'F') {
				return s.errorf("%q in \\u", h)
			}
		}
		return nil
	}
	return s.errorf("unknown escape \\%c", c)
}

// number consumes -?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?
func (s *jsonScanner) number() error {
	if _, err := s.accept("-"); err != nil {
		return err
	}
	zero, err := s.accept("0")
	if err != nil {
		return err
	}
	if zero == 0 {
		if err := s.digits(); err != nil {
			return err
		}
	}
	if c, err := s.accept("."); err != nil {
		return err
	} else if c != 0 {
		if err := s.digits(); err != nil {
			return err
		}
	}
	c, err := s.accept("eE")
	if err != nil || c == 0 {
		return err
	}
	if _, err := s.accept("+-"); err != nil {
		return err
	}
	return s.digits()
}

func (s *jsonScanner) digits() error {
	for n := 0; ; n++ {
		c, err := s.accept("0123456789")
		if err != nil {
			return err
		}
		if c == 0 {
			if n == 0 {
				return s.errorf("a digit is expected")
			}
			return nil
		}
	}
}

// accept consumes the next byte if it is one of set, else it returns 0.
func (s *jsonScanner) accept(set string) (byte, error) {
	if err := s.fill(); err == io.EOF {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	if strings.IndexByte(set, s.buf[s.pos]) < 0 {
		return 0, nil
	}
	return s.next()
}
