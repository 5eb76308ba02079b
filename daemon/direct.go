package daemon

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"

	"condafs/control"
	"condafs/fault"
	"condafs/index"
)

// Direct is a store without a daemon. What needs sessions or a mount is a fault of
// kind NotMounted there.
type Direct struct {
	control.API
	store *index.Store
}

// storeFile marks a directory as a store.
const storeFile = "condafs-store.json"

// OpenDirect opens a store that no daemon holds; one that is held is a fault of
// kind Busy. A store that is not there is made only if create.
func OpenDirect(dir, version string, create bool, log *slog.Logger) (*Direct, error) {
	if !create {
		if _, err := os.Stat(filepath.Join(dir, storeFile)); errors.Is(err, os.ErrNotExist) {
			return nil, fault.New("open store", dir, fault.NotFound, errors.New("no store is there")).
				WithHint("name one with --store, or a running daemon's mount with --mount")
		}
	}
	s, err := index.Open(dir, index.Options{Logger: log})
	if err != nil {
		return nil, err
	}
	uid := uint32(os.Geteuid())
	return &Direct{store: s, API: &api{
		store: s, peer: control.Peer{PID: os.Getpid(), UID: uid, GID: uint32(os.Getegid())},
		all: true, owner: uid, version: version, log: log,
	}}, nil
}

// Close closes the store.
func (d *Direct) Close() error { return d.store.Close() }
