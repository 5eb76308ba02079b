package index

import (
	"io/fs"
	"math"
	"os"
	"unsafe"

	"condafs/hashing"

	"golang.org/x/sys/unix"
)

// The kernel asks for whole blocks of the device, at addresses that are as even.
const (
	uncachedChunk = 256 << 10
	uncachedAlign = 4 << 10
)

// uncached reads files as the disk has them, past the page cache: a page there, which
// may be older than the damage, would hide it until the kernel needs the memory. What
// others have cached stays, and nothing is added. It is for one goroutine.
//
// Where a file system has no such reads, the pages are dropped first. Those that
// somebody has mapped stay, and are believed.
type uncached struct {
	buf  []byte
	pace func(bytes int) error // told of what was read; its error ends the reading
}

func newUncached(pace func(bytes int) error) *uncached {
	b := make([]byte, uncachedChunk+uncachedAlign)
	off := int(-uintptr(unsafe.Pointer(&b[0])) & (uncachedAlign - 1))
	return &uncached{buf: b[off : off+uncachedChunk], pace: pace}
}

// each calls fn for all of an open file's bytes, in order. fn must not keep them.
func (u *uncached) each(f *os.File, fn func(b []byte)) error {
	fd := int(f.Fd())
	leaveTimes(fd)
	direct := setDirect(fd, true)
	if !direct {
		u.forget(fd)
	}
	for off := int64(0); ; {
		n, err := unix.Pread(fd, u.buf, off)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EINVAL && direct: // it takes the flag, and not the reading
			setDirect(fd, false)
			direct = false
			u.forget(fd)
			continue
		case err != nil:
			return &fs.PathError{Op: "read", Path: f.Name(), Err: err}
		case n == 0:
			return nil
		}
		fn(u.buf[:n])
		off += int64(n)
		if direct && off%uncachedAlign != 0 { // the end, unless somebody writes there
			setDirect(fd, false)
			direct = false
		}
		if u.pace != nil {
			if err := u.pace(n); err != nil {
				return err
			}
		}
	}
}

// forget drops the pages of a file that nobody has changed or mapped. That it does not is
// no failure: there is no other way to look behind them.
func (u *uncached) forget(fd int) { _ = unix.Fadvise(fd, 0, math.MaxInt64, unix.FADV_DONTNEED) }

// leaveTimes lets reads of a file be none of its uses: its access time tells when a client had it last (see trim). Only the owner of a
// file may ask for that.
func leaveTimes(fd int) {
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err == nil {
		_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags|unix.O_NOATIME)
	}
}

// setDirect makes reads go past the page cache, or not any more. It tells whether they do.
func setDirect(fd int, direct bool) bool {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return false
	}
	flags &^= unix.O_DIRECT
	if direct {
		flags |= unix.O_DIRECT
	}
	_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags)
	return err == nil && direct
}

// sum hashes a file.
func (u *uncached) sum(f *os.File) (hashing.Sums, error) {
	h := hashing.New(0)
	err := u.each(f, func(b []byte) { _, _ = h.Write(b) }) // which never fails
	return h.Sums(), err
}

// readFile is os.ReadFile.
func (u *uncached) readFile(name string) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	var all []byte
	err = u.each(f, func(b []byte) { all = append(all, b...) })
	return all, err
}
