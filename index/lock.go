package index

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"condafs/fault"

	"golang.org/x/sys/unix"
)

// lockStore takes the store for this process. The lock is flock's: it goes with the
// process, however that ends. What is inside is for a second one: the pid for its error
// message, and endingMark for its patience.
func lockStore(dir string) (*os.File, error) {
	name := filepath.Join(dir, lockName)
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, lockError(dir, err)
	}
	err = awaitLock(f)
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

// endingMark follows the pid of a daemon that is about to end: see MarkEnding.
const endingMark = "ending"

// How long a second process waits for a store: a daemon whose mount was taken away, by umount(8) for instance, may need a moment to
// notice, and then commits what its sessions hold.
const (
	noticeTime = time.Second
	endingTime = time.Minute
)

// awaitLock locks f, or returns EWOULDBLOCK if who holds it does not end.
func awaitLock(f *os.File) error {
	for begun := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		patience := noticeTime
		if _, mark, err := holder(f); err == nil && mark == endingMark {
			patience = endingTime
		}
		if time.Since(begun) > patience {
			return err
		}
	}
}

// MarkEnding tells who waits for the store that this process is about to close it.
func (s *Store) MarkEnding() error {
	if _, err := s.lock.WriteAt(fmt.Appendf(nil, "%d %s\n", os.Getpid(), endingMark), 0); err != nil {
		return lockError(s.dir, err)
	}
	return nil
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
	pid, _, err := holder(f)
	if err != nil {
		return errors.New("another daemon holds it")
	}
	return fmt.Errorf("the daemon with pid %d holds it", pid)
}

// holder reads whose lock it is, and what follows.
func holder(f *os.File) (pid int, mark string, err error) {
	b, err := io.ReadAll(io.LimitReader(io.NewSectionReader(f, 0, 32), 32))
	if err != nil {
		return 0, "", err
	}
	number, mark, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	pid, err = strconv.Atoi(number)
	return pid, mark, err
}
