package conda

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// LookupRepodata finds the record of the archive fn in a repodata.json. It
// reads the stream only as far as it must, and reports false when the channel
// does not have that file.
func LookupRepodata(r io.Reader, fn string) (*Record, bool, error) {
	const op, name = "look up repodata", "repodata.json"
	s := newJSONScanner(r)
	found := errors.New("found")
	subdir := ""
	var rec *Record
	err := s.object(func(key []byte) error {
		switch string(key) {
		case "info":
			b, err := s.value(maxRecord)
			if err != nil {
				return err
			}
			var info struct {
				Subdir string `json:"subdir"`
			}
			if json.Unmarshal(b, &info) == nil { // else the records have it themselves
				subdir = info.Subdir
			}
			return nil
		case "packages", "packages.conda":
			return s.object(func(key []byte) error {
				if string(key) != fn {
					return s.skip()
				}
				b, err := s.value(maxRecord)
				if err != nil {
					return err
				}
				if rec, err = decodeRecord(fn, b); err != nil {
					return err
				}
				return found
			})
		}
		return s.skip()
	})
	switch {
	case err == found:
		rec.Fn = fn
		if rec.Subdir == "" {
			rec.Subdir = subdir
		}
		return rec, true, nil
	case err != nil:
		return nil, false, readFailure(op, name, err)
	}
	return nil, false, nil
}

// CheckRepodata reads one file of a repodata group to its end and says whether
// it is whole. The name tells the format; it does not say that one file of the
// group goes with another.
func CheckRepodata(name string, r io.Reader) error {
	b := bufio.NewReaderSize(r, 64<<10)
	if err := repodataCheck(path.Base(name))(b); err != nil {
		return readFailure("check repodata", name, err)
	}
	return nil
}

// repodataCheck picks the check for a file's name.
func repodataCheck(name string) func(*bufio.Reader) error {
	switch {
	case strings.HasSuffix(name, ".json"):
		return checkJSON
	case strings.HasSuffix(name, ".msgpack.zst"):
		return checkMsgpackZst
	case strings.HasSuffix(name, ".msgpack"):
		return checkMsgpack
	case strings.HasSuffix(name, ".shards-cache-v1"):
		return checkShardIndex
	case strings.HasSuffix(name, ".solv"):
		return checkMagic("SOLV")
	case strings.HasSuffix(name, ".db"):
		return checkMagic("SQLite format 3\x00")
	}
	// What is left are formats of one client's library: a write-ahead log, a pickle.
	return func(r *bufio.Reader) error {
		_, err := io.Copy(io.Discard, r)
		return err
	}
}

func checkJSON(r *bufio.Reader) error {
	s := newJSONScanner(r)
	if err := s.object(func([]byte) error { return s.skip() }); err != nil {
		return err
	}
	return s.end()
}

func checkMsgpack(r *bufio.Reader) error {
	if err := skipMsgpack(r); err != nil {
		return err
	}
	if _, err := r.ReadByte(); err != io.EOF {
		if err == nil {
			err = fmt.Errorf("more data after the end")
		}
		return err
	}
	return nil
}

// maxShards bounds an index of shards or a shard, uncompressed.
const maxShards = 1 << 30

func checkMsgpackZst(r *bufio.Reader) error {
	z, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
	if err != nil {
		return err
	}
	defer z.Close()
	left := int64(maxShards)
	return checkMsgpack(bufio.NewReaderSize(&byteLimit{r: z, left: &left}, 64<<10))
}

// checkShardIndex reads rattler's file: a magic word, the header's length, the
// header, and, unless the channel has no shards, the index.
func checkShardIndex(r *bufio.Reader) error {
	const magic = "SHARD-CACHE-V1"
	head := make([]byte, len(magic)+4)
	if _, err := io.ReadFull(r, head); err != nil {
		return readAtError(err)
	}
	if !bytes.HasPrefix(head, []byte(magic)) {
		return fmt.Errorf("it does not start with %s", magic)
	}
	n := int64(binary.LittleEndian.Uint32(head[len(magic):]))
	if n > maxRecord {
		return fmt.Errorf("header of %d bytes", n)
	}
	if err := checkMsgpack(bufio.NewReader(io.LimitReader(r, n))); err != nil {
		return fmt.Errorf("header: %w", err)
	}
	if _, err := r.Peek(1); err == io.EOF {
		return nil
	}
	return checkMsgpack(r)
}

func checkMagic(magic string) func(*bufio.Reader) error {
	return func(r *bufio.Reader) error {
		head := make([]byte, len(magic))
		if _, err := io.ReadFull(r, head); err != nil {
			return readAtError(err)
		}
		if string(head) != magic {
			return fmt.Errorf("it does not start with %q", magic)
		}
		_, err := io.Copy(io.Discard, r)
		return err
	}
}
