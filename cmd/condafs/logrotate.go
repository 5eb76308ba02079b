package main

import (
	"errors"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"condafs/fault"
)

// How large a log may grow, in bytes, before it becomes NAME.1, and up to which number
// older ones are kept.
const (
	maxLog   = 16 << 20
	keptLogs = 3
)

// rotatedLog is a log file of bounded size. It is safe for concurrent use.
//
// Other tools rotate by renaming and a signal. A daemon of a user has none that would do
// it, so it does it by itself.
type rotatedLog struct {
	name string
	max  int64

	mu   sync.Mutex
	f    *os.File
	size int64
}

func openRotatedLog(name string, limit int64) (*rotatedLog, error) {
	f, err := openLog(name)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err != nil {
		return nil, fault.New("open log", name, fault.Other, errors.Join(err, f.Close()))
	}
	return &rotatedLog{name: name, max: limit, f: f, size: fi.Size()}, nil
}

// Write appends a line. If the log cannot be rotated it goes on growing: what happened
// is worth more than the bound.
func (l *rotatedLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var rotated error
	if l.size > 0 && l.size+int64(len(b)) > l.max {
		if rotated = l.rotate(); rotated != nil {
			l.size = 0 // tried again after as much as this
		}
	}
	n, err := l.f.Write(b)
	l.size += int64(n)
	return n, errors.Join(rotated, err)
}

func (l *rotatedLog) rotate() error {
	fi, err := l.f.Stat()
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() {
		return nil // /dev/null, a pipe
	}
	for i := keptLogs; i > 0; i-- {
		if err := os.Rename(l.numbered(i-1), l.numbered(i)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	f, err := openLog(l.name)
	if err != nil {
		return err
	}
	// Where panics go must be the same file.
	for _, out := range []*os.File{os.Stdout, os.Stderr} {
		if o, serr := out.Stat(); serr == nil && os.SameFile(fi, o) {
			err = errors.Join(err, unix.Dup3(int(f.Fd()), int(out.Fd()), 0))
		}
	}
	old := l.f
	l.f, l.size = f, 0
	return errors.Join(err, old.Close())
}

// numbered is the name of an older log, and of the log itself for 0.
func (l *rotatedLog) numbered(n int) string {
	if n == 0 {
		return l.name
	}
	return l.name + "." + strconv.Itoa(n)
}

func (l *rotatedLog) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.f.Close()
}
