package index

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"condafs/fault"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/badger/v4/y"
	"google.golang.org/protobuf/proto"
)

// Badger trusts its files more than is good: a table whose end is damaged ends the
// process, one with a damaged block has keys that are quietly not found, and tables
// that its MANIFEST does not name are deleted. So its files are looked at before it
// opens them (checkTables), and all of their bytes by Verify and the scrub
// (verifyTables).

// tableDamage is one file of the database that is lost or damaged.
type tableDamage struct {
	file string // relative to the store
	err  error
}

func (t tableDamage) Error() string { return t.file + ": " + t.err.Error() }

// manifestTables returns the tables that the database should have.
func manifestTables(dir string) (map[uint64]badger.TableManifest, error) {
	f, err := os.Open(filepath.Join(dir, dbName, badger.ManifestFilename))
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	m, _, err := badger.ReplayManifestFile(f, 0, badger.DefaultOptions("").WithLogger(nil))
	return m.Tables, err
}

// eachTable calls fn for every table that the database should have, and returns what
// is damaged: what fn says, or the MANIFEST itself.
func eachTable(dir string, fn func(id uint64, f *os.File, m badger.TableManifest) error) ([]tableDamage, error) {
	manifest := dbName + "/" + badger.ManifestFilename
	tables, err := manifestTables(dir)
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			return nil, fault.New("check database", dir, fault.Other, err)
		}
		return []tableDamage{{manifest, err}}, nil
	}
	var out []tableDamage
	ids := make([]uint64, 0, len(tables))
	for id := range tables {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		f, err := os.Open(table.NewFilename(id, filepath.Join(dir, dbName)))
		if err == nil {
			err = fn(id, f, tables[id])
			f.Close() // only read
		}
		switch {
		case fault.Is(err, fault.Canceled):
			return out, err
		case fault.Is(err, fault.TooMany), fault.Is(err, fault.Permission):
			return out, fault.New("check database", dir, fault.Other, err)
		case err != nil:
			out = append(out, tableDamage{dbName + "/" + table.IDToFilename(id), err})
		}
	}
	return out, nil
}

// checkTables finds tables that are not there, or whose ends, which tell what is
// where in them, are damaged.
func checkTables(dir string) ([]tableDamage, error) {
	return eachTable(dir, func(_ uint64, f *os.File, _ badger.TableManifest) error {
		fi, err := f.Stat()
		if err == nil {
			err = checkFooter(f, fi.Size())
		}
		return err
	})
}

// verifyTables reads all tables whole. progress, if not nil, is told the bytes of each.
func verifyTables(ctx context.Context, dir string, progress func(bytes int64)) ([]tableDamage, error) {
	return eachTable(dir, func(id uint64, f *os.File, m badger.TableManifest) error {
		if ctx.Err() != nil {
			return fault.New("verify", dir, fault.Canceled, context.Cause(ctx))
		}
		b, err := io.ReadAll(f)
		if err != nil {
			return err
		}
		if progress != nil {
			progress(int64(len(b)))
		}
		return verifyTable(id, b, m)
	})
}

func verifyTable(id uint64, b []byte, m badger.TableManifest) (err error) {
	if err := checkFooter(bytesAt(b), int64(len(b))); err != nil {
		return err
	}
	defer func() {
		if r := recover(); r != nil {
			err = errors.New("it does not decode")
		}
	}()
	t, err := table.OpenInMemoryTable(b, id, &table.Options{
		BlockSize: 4 << 10, Compression: m.Compression, ChkMode: options.OnBlockRead,
	})
	if err != nil {
		return err
	}
	return t.VerifyChecksum()
}

type bytesAt []byte

func (b bytesAt) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off > int64(len(b)) {
		return 0, io.ErrUnexpectedEOF
	}
	n := copy(p, b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// checkFooter checks the end of a table:
//
//	index, its length, checksum of the index, the checksum's length
//
// Lengths have four bytes, big-endian.
func checkFooter(r io.ReaderAt, size int64) error {
	back := func(length int64) ([]byte, error) {
		if length <= 0 || length > size { // zeros would be a sound end of nothing
			return nil, fmt.Errorf("it is cut off, or a length in it is damaged: %d bytes of %d", length, size)
		}
		size -= length
		b := make([]byte, length)
		_, err := r.ReadAt(b, size)
		return b, err
	}
	length := func() (int64, error) {
		b, err := back(4)
		if err != nil {
			return 0, err
		}
		return int64(binary.BigEndian.Uint32(b)), nil
	}
	n, err := length()
	if err != nil {
		return err
	}
	b, err := back(n)
	if err != nil {
		return err
	}
	var sum pb.Checksum
	if err := proto.Unmarshal(b, &sum); err != nil {
		return errors.New("the checksum at its end does not decode")
	}
	if n, err = length(); err != nil {
		return err
	}
	index, err := back(n)
	if err != nil {
		return err
	}
	if sum.Algo != pb.Checksum_CRC32C && sum.Algo != pb.Checksum_XXHash64 {
		return errors.New("the checksum at its end is damaged")
	}
	if err := y.VerifyChecksum(index, &sum); err != nil {
		return errors.New("its list of blocks is damaged")
	}
	return nil
}
