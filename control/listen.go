package control

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"condafs/fault"
)

// SocketPath says where the daemon of a mount point listens. A mount that lets
// other users in needs a directory that they can reach; $XDG_RUNTIME_DIR is its
// user's alone. The name is short because a socket's path may have 107 bytes.
func SocketPath(mountPoint string, uid int, shared bool, getenv func(string) string) string {
	sum := sha256.Sum256([]byte(mountPoint))
	name := hex.EncodeToString(sum[:8]) + ".sock"
	if uid == 0 {
		if fi, err := os.Stat("/run"); err == nil && fi.IsDir() {
			return filepath.Join("/run/condafs", name)
		}
	}
	if dir := getenv("XDG_RUNTIME_DIR"); uid != 0 && !shared && filepath.IsAbs(dir) {
		return filepath.Join(dir, "condafs", name)
	}
	return filepath.Join(os.TempDir(), "condafs-"+strconv.Itoa(uid), name)
}

// Listen makes the socket at path and the directory that it is in. What a dead
// daemon left there is removed; a live one is a fault of kind Busy. With shared,
// every user of the host may connect. Closing the listener removes the socket.
func Listen(path string, shared bool) (net.Listener, error) {
	const op = "listen for commands at"
	dirMode, mode := fs.FileMode(0o700), fs.FileMode(0o600)
	if shared {
		dirMode, mode = 0o755, 0o666
	}
	if err := ownDir(filepath.Dir(path), dirMode); err != nil {
		return nil, fault.New(op, path, fault.Other, err)
	}
	switch c, err := net.DialTimeout("unix", path, 5*time.Second); {
	case err == nil:
		_ = c.Close()
		return nil, fault.New(op, path, fault.Busy, errors.New("another daemon listens there")).
			WithHint("`condafs umount` its mount point first")
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED):
	default:
		return nil, fault.New(op, path, fault.Other, err)
	}
	// The socket gets its name only with its mode, and replaces a dead one in one step.
	tmp := path + "." + strconv.Itoa(os.Getpid())
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	if err != nil {
		return nil, fault.New(op, path, fault.Other, err)
	}
	l.SetUnlinkOnClose(false)
	err = os.Chmod(tmp, mode)
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return nil, fault.New(op, path, fault.Other, errors.Join(err, l.Close(), os.Remove(tmp)))
	}
	return &socket{UnixListener: l, path: path}, nil
}

// ownDir makes dir, or checks that the one there is ours and nobody else can put a
// socket of theirs into it: below /tmp anybody could have made it first.
func ownDir(dir string, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(dir, mode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	fi, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok || !fi.IsDir() || int(st.Uid) != os.Geteuid() || fi.Mode().Perm()&0o022 != 0 {
		return fault.New("", dir, fault.Permission, fmt.Errorf("it is not a directory that only uid %d can write to", os.Geteuid())).
			WithHint("remove it, or set TMPDIR")
	}
	// A private mount may have made it 0700 before; a shared one needs more.
	if fi.Mode().Perm()&mode != mode {
		return os.Chmod(dir, fi.Mode().Perm()|mode)
	}
	return nil
}

// Inherit listens at a socket that another program has made, by what Keep returned there.
func Inherit(f *os.File, path string) (net.Listener, error) {
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fault.New("listen for commands at", path, fault.Other, err)
	}
	u, ok := l.(*net.UnixListener)
	if !ok {
		return nil, fault.New("listen for commands at", path, fault.Corrupt, errors.Join(errors.New("it is another socket"), l.Close()))
	}
	u.SetUnlinkOnClose(false)
	return &socket{UnixListener: u, path: path}, nil
}

// Keep returns another descriptor of a listener that Listen or Inherit has made. As long
// as that is open, who connects waits, and closing the listener leaves the socket where it is.
func Keep(l net.Listener) (*os.File, error) {
	s, ok := l.(*socket)
	if !ok {
		return nil, fault.New("keep socket", "", fault.Other, fmt.Errorf("%T is none of ours", l))
	}
	f, err := s.File()
	if err != nil {
		return nil, fault.New("keep socket", s.path, fault.Other, err)
	}
	s.kept.Store(true)
	return f, nil
}

// socket removes its name when it is closed.
type socket struct {
	*net.UnixListener
	path string
	kept atomic.Bool // the name stays
}

func (s *socket) Close() error {
	if s.kept.Load() {
		return s.UnixListener.Close()
	}
	err := os.Remove(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(s.UnixListener.Close(), err)
}
