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
//   - what brings no content (deletions, collections, records of sessions), without
//     which nothing would ever be free again, uses half of the room of the file
//     "reserve", a step at a time, as long as enough is left of it to close the store;
//   - closing and opening, which write a table from the log, use all of it.
const (
	reserveName = "reserve"
	reserveSize = 2 * memTableSize
	reserveStep = 1 << 20
	minMargin   = 4 << 20
	maxMargin   = 64 << 20
)

const hintFull = "free some space on its file system, or run condafs gc"

// space looks after the room on the store's file system.
type space struct {
	dir      string
	logged   string // the log file whose blocks are allocated
	written  int64  // about as much was written to it, in bytes
	reserved int64  // as much was set aside
	borrowed bool   // a part of that was used
}

// free returns how many bytes others than root can still write, and how large the file
// system is.
func (p *space) free() (free, size int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(p.dir, &st); err != nil {
		return 0, 0, fault.New("look for space", p.dir, fault.Other, err)
	}
	return int64(st.Bavail) * int64(st.Bsize), int64(st.Blocks) * int64(st.Bsize), nil
}

// require fails as fault.Full unless that many bytes can be written and the margin
// stays.
func (p *space) require(bytes int64) error {
	free, size, err := p.free()
	if err != nil {
		return err
	}
	if margin := min(max(size/16, minMargin), maxMargin); free < bytes+margin {
		return fullError(p.dir, fmt.Errorf("%d MiB are free, %d MiB are needed", free>>20, (bytes+margin)>>20+1))
	}
	return nil
}

// forCommit makes sure that a commit of about that many bytes can be written, where
// there is not enough room with the help of the reserve if it is worth that.
func (p *space) forCommit(bytes, needed int64, worth bool) error {
	err := p.require(needed)
	switch {
	case err == nil && p.borrowed:
		err = p.makeReserve()
	case fault.Is(err, fault.Full) && worth && p.logged != "" && p.written+bytes < memTableSize/2:
		// The log has its blocks, and will not become a table now.
		if berr := p.borrow(bytes); berr != nil {
			return errors.Join(err, berr)
		}
		err = nil
	}
	if err == nil {
		err = p.allocateLog()
	}
	if err == nil {
		p.written += bytes
	}
	return err
}

// borrow gives back some of the reserve, unless so much is free.
func (p *space) borrow(bytes int64) error {
	name := filepath.Join(p.dir, reserveName)
	for {
		free, _, err := p.free()
		if err != nil || free >= 2*bytes+reserveStep/2 {
			return err
		}
		fi, err := os.Stat(name)
		// Closing makes a table of what is in the log. And half stays for the next daemon,
		// which finds the disk as full.
		if err != nil || fi.Size()-reserveStep < max(p.reserved/2, 2*(p.written+bytes)+2*reserveStep) {
			return fault.New("use the space set aside", p.dir, fault.Full, err)
		}
		if err := os.Truncate(name, fi.Size()-reserveStep); err != nil {
			return fault.New("use the space set aside", p.dir, fault.Other, err)
		}
		p.borrowed = true
	}
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
	p.logged, p.written = name, 0
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

// makeReserve sets room aside, nearly all that there is if that is little: to free some
// comes first. There may be none: then closing takes its chance.
func (p *space) makeReserve() error {
	free, _, err := p.free()
	if err != nil {
		return err
	}
	name := filepath.Join(p.dir, reserveName)
	if fi, err := os.Stat(name); err == nil {
		free += fi.Size()
	}
	size := min(int64(reserveSize), free-reserveStep)
	if size <= 2*reserveStep {
		return nil
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fault.New("set space aside", p.dir, fault.Other, err)
	}
	err = unix.Fallocate(int(f.Fd()), 0, 0, size)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		err = nil // it has its margin only
	}
	if err := errors.Join(err, f.Close()); err != nil {
		if fault.Is(err, fault.Full) {
			return nil // a client was quicker
		}
		return fault.New("set space aside", p.dir, fault.Other, err)
	}
	p.reserved, p.borrowed = size, size < reserveSize
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
	free, _, err := p.free()
	if err != nil {
		return err
	}
	if need := int64(len(logs)) * memTableSize; free < need {
		return fault.New("open store", p.dir, fault.Full, fmt.Errorf("%d MiB are free, %d MiB are needed to recover", free>>20, need>>20)).
			WithHint("free some space on its file system")
	}
	return nil
}
