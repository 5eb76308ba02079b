package index

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"condafs/fault"
	"condafs/internal/failpoint"

	"golang.org/x/sys/unix"
)

// formatVersion is the version of everything in a store's directory. A change that an
// older condafs would misread makes it greater.
const formatVersion = 1

const (
	formatName = "condafs-store.json"
	formatTemp = formatName + ".tmp"
	lockName   = "lock"
)

// identity is the content of condafs-store.json.
type identity struct {
	Format  int       `json:"format"`
	UUID    string    `json:"uuid"`
	Created time.Time `json:"created"`
}

const (
	hintNoStore = "name a store, or a new or empty directory to make one"
	hintUpgrade = "use the condafs that wrote it, or export from there and import here"
)

// readIdentity returns the store's identity, or ok == false for a directory in which
// a store can be made: one that is empty but for what a first attempt left.
func readIdentity(dir string) (id identity, ok bool, err error) {
	name := filepath.Join(dir, formatName)
	b, err := os.ReadFile(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return identity{}, false, checkEmpty(dir)
	case err != nil:
		return identity{}, false, fault.New("open store", dir, fault.Other, err)
	}
	if err := json.Unmarshal(b, &id); err != nil || id.Format == 0 || id.UUID == "" {
		return identity{}, false, fault.New("open store", dir, fault.Corrupt, fmt.Errorf("%s does not say which format the store has", formatName)).
			WithHint("restore that file from a backup")
	}
	if id.Format != formatVersion {
		return identity{}, false, fault.New("open store", dir, fault.Version, fmt.Errorf("it has format %d, this condafs knows format %d", id.Format, formatVersion)).
			WithHint(hintUpgrade)
	}
	return id, true, nil
}

// CheckFormat reports whether this program can open the store in dir, as far as its
// format tells. The store may be open.
func CheckFormat(dir string) error {
	_, ok, err := readIdentity(dir)
	if err == nil && !ok {
		err = fault.New("open store", dir, fault.NotFound, errors.New("no store is there"))
	}
	return err
}

func checkEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fault.New("open store", dir, fault.Other, err).WithHint(hintNoStore)
	}
	// lost+found is what an empty file system has.
	harmless := []string{formatTemp, lockName, "lost+found"}
	for _, e := range entries {
		if !slices.Contains(harmless, e.Name()) {
			return fault.New("open store", dir, fault.Usage, fmt.Errorf("it is not empty (%q) and not a condafs store", e.Name())).
				WithHint(hintNoStore)
		}
	}
	return nil
}

// writeIdentity makes the directory a store, atomically and durably.
func writeIdentity(dir string) (identity, error) { return writeIdentityOf(dir, newUUID()) }

func writeIdentityOf(dir, uuid string) (identity, error) {
	id := identity{Format: formatVersion, UUID: uuid, Created: time.Now().UTC().Truncate(time.Second)}
	b, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return identity{}, fault.New("make store", dir, fault.Other, err)
	}
	temp := filepath.Join(dir, formatTemp)
	if err := writeSynced(temp, append(b, '\n')); err != nil {
		return identity{}, fault.New("make store", dir, fault.Other, err)
	}
	failpoint.Hit(failpoint.IdentityWritten, dir)
	if err := os.Rename(temp, filepath.Join(dir, formatName)); err != nil {
		return identity{}, fault.New("make store", dir, fault.Other, err)
	}
	failpoint.Hit(failpoint.IdentityRenamed, dir)
	if err := syncNew(dir); err != nil {
		return identity{}, fault.New("make store", dir, fault.Other, err)
	}
	return id, nil
}

// syncNew makes a new store's directory durable, and all directories above it that were made for it, whoever made them.
func syncNew(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), unix.Syncfs(int(f.Fd())), f.Close())
}

func newUUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func writeSynced(name string, b []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
