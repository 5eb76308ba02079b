package index

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"condafs/fault"

	"golang.org/x/sys/unix"
)

// lockStore takes the store for this process. The lock is flock's: it goes with the
// process, however that ends. The pid inside is only for the error message of a
// second one.
func lockStore(dir string) (*os.File, error) {
	name := filepath.Join(dir, lockName)
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, lockError(dir, err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		err = writePID(f)
	}
	if err == nil {
		return f, nil
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = fault.New("open store", dir, fault.Busy, heldBy(f)).
			WithHint("use the mount of that daemon, or unmount it first")
	} else {
		err = lockError(dir, err)
	}
	f.Close() // nothing was written through it that could be lost
	return nil, err
}

func lockError(dir string, err error) error {
	e := fault.New("open store", dir, fault.Other, err)
	switch fault.KindOf(err) {
	case fault.ReadOnly:
		return e.WithHint("a store takes writes even when it is only read: put it on a writable file system")
	case fault.Permission:
		return e.WithHint("run as the store's owner, or name another store")
	case fault.Full:
		return e.WithHint(hintFull)
	}
	return e
}

func writePID(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

func heldBy(f *os.File) error {
	b, err := io.ReadAll(io.LimitReader(io.NewSectionReader(f, 0, 32), 32))
	pid, convErr := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || convErr != nil {
		return errors.New("another daemon holds it")
	}
	return fmt.Errorf("the daemon with pid %d holds it", pid)
}
