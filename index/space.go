package index

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"condafs/fault"

	"golang.org/x/sys/unix"
)

// Badger writes through memory maps of sparse files. On a full disk that is no error
// but a SIGBUS, which ends the daemon. So the store makes sure beforehand that what
// Badger is about to write has room:
//
//   - a commit is refused as fault.Full while less is free than margin;
//   - the log that the next commits are written to has its blocks allocated;
//   - closing and opening, which write a table from the log, can do so even on a disk
//     that clients have filled: they use the room of the file "reserve".
const (
	reserveName = "reserve"
	reserveSize = 2 * memTableSize
	minMargin   = 4 << 20
	maxMargin   = 64 << 20
)

const hintFull = "free some space on its file system, or run condafs gc"

// space looks after the room on the store's file system.
type space struct {
	dir    string
	logged string // the log file whose blocks are allocated
}

// require fails as fault.Full unless that many bytes can be written and the margin
// stays.
func (p *space) require(bytes int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(p.dir, &st); err != nil {
		return fault.New("look for space", p.dir, fault.Other, err)
	}
	block := int64(st.Bsize)
	margin := min(max(int64(st.Blocks)*block/16, minMargin), maxMargin)
	if free := int64(st.Bavail) * block; free < bytes+margin {
		return fullError(p.dir, fmt.Errorf("%d MiB are free, %d MiB are needed", free>>20, (bytes+margin)>>20+1))
	}
	return nil
}

func fullError(dir string, err error) error {
	return fault.New("write to store", dir, fault.Full, err).WithHint(hintFull)
}

// allocateLog gives blocks to the log that Badger writes now, if it began a new one.
func (p *space) allocateLog() error {
	logs, err := p.logs()
	if err != nil || len(logs) == 0 || logs[len(logs)-1] == p.logged {
		return err
	}
	name := logs[len(logs)-1]
	f, err := os.OpenFile(filepath.Join(p.dir, dbName, name), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it was full and is a table already
	}
	if err != nil {
		return fault.New("allocate log", name, fault.Other, err)
	}
	err = errors.Join(allocate(f, logBytes), f.Close())
	if err != nil {
		return fault.New("allocate log", name, fault.Other, err).WithHint(hintFull)
	}
	p.logged = name
	return nil
}

// logs returns Badger's log files, the newest last: their names are numbers.
func (p *space) logs() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(p.dir, dbName))
	if err != nil {
		return nil, fault.New("list logs", p.dir, fault.Other, err)
	}
	entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return !strings.HasSuffix(e.Name(), ".mem") })
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
	})
	return names, nil
}

// allocate gives blocks to the first size bytes of f without changing its content. A
// file system that cannot do it has its margin only.
func allocate(f *os.File, size int64) error {
	err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, size)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return nil
	}
	return err
}

// makeReserve sets room aside. There may be none: then closing takes its chance.
func (p *space) makeReserve() error {
	if p.require(reserveSize) != nil {
		return nil
	}
	f, err := os.OpenFile(filepath.Join(p.dir, reserveName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fault.New("set space aside", p.dir, fault.Other, err)
	}
	if err := errors.Join(allocate(f, reserveSize), f.Close()); err != nil {
		return fault.New("set space aside", p.dir, fault.Other, err)
	}
	return nil
}

// freeReserve gives the room back for what must be written now.
func (p *space) freeReserve() error {
	err := os.Remove(filepath.Join(p.dir, reserveName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.New("use the space set aside", p.dir, fault.Other, err)
	}
	return nil
}

// requireForOpening makes sure that logs of a daemon that did not close the store can
// become tables.
func (p *space) requireForOpening() error {
	if err := p.freeReserve(); err != nil {
		return err
	}
	logs, err := p.logs()
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(logs) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(p.dir, &st); err != nil {
		return fault.New("look for space", p.dir, fault.Other, err)
	}
	if need, free := int64(len(logs))*memTableSize, int64(st.Bavail)*int64(st.Bsize); free < need {
		return fault.New("open store", p.dir, fault.Full, fmt.Errorf("%d MiB are free, %d MiB are needed to recover", free>>20, need>>20)).
			WithHint("free some space on its file system")
	}
	return nil
}
