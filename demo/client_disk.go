package demo

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	lockByte  = 21 // of the locked file itself; mamba locks the same
	lockTries = 10
)

// withLock holds conda's lock on f while fn runs. Trying ten times with a second between is conda's.
func withLock(f *os.File, fn func() error) error {
	l := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: lockByte, Len: 1}
	for try := 1; ; try++ {
		err := unix.FcntlFlock(f.Fd(), unix.F_SETLK, &l)
		if err == nil {
			break
		}
		if try == lockTries {
			return errors.New("LockError: failed to acquire lock")
		}
		time.Sleep(time.Second)
	}
	err := fn()
	l.Type = unix.F_UNLCK
	return errors.Join(err, unix.FcntlFlock(f.Fd(), unix.F_SETLK, &l))
}

// removeAll removes as conda does: whatever goes wrong, it goes on.
func removeAll(name string) {
	if err := os.RemoveAll(name); err != nil {
		_ = os.Rename(name, name+".conda_trash")
	}
}

func isFile(name string) bool {
	st, err := os.Stat(name)
	return err == nil && st.Mode().IsRegular()
}

func isDir(name string) bool {
	st, err := os.Stat(name)
	return err == nil && st.IsDir()
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

// writeJSON truncates and writes in place, as conda does with its records.
func writeJSON(name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(name, b, 0o666)
}

func readJSON(name string, v any) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}

// inUse says whether a file at or below name has another name: then some environment is linked to it.
func inUse(name string) bool {
	used := false
	err := filepath.WalkDir(name, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if !d.IsDir() && unix.Lstat(p, &st) == nil && st.Nlink > 1 {
			used = true
			return fs.SkipAll
		}
		return nil
	})
	return used || err != nil
}
