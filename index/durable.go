package index

import (
	"encoding/json"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"condafs/fault"
	"condafs/internal/failpoint"

	"golang.org/x/sys/unix"
)

// A blob that head refers to was synced before head moved. One that nothing refers to
// yet may not have been when the machine crashed: its name can be there, even with its
// full size, and its bytes not. So after a crash of the machine, a blob from before is
// hashed again before anything new relies on it, once: that renews its change time.
//
// lifetime is the record that tells what happened since. A daemon that was merely
// killed loses nothing, because the kernel keeps what it wrote.
type lifetime struct {
	Boot  string `json:"boot"`  // of the kernel that the store was last open under
	Since int64  `json:"since"` // blobs that changed earlier are hashed again; ns
	Clean bool   `json:"clean"` // it was closed, all blobs synced
}

var keyLifetime = []byte("l")

// bootID tells one run of the machine from another. Tests pretend that it restarted.
var bootID = func() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil || failpoint.Err(failpoint.BootAsk, "") != nil {
		return "" // taken for another boot each time
	}
	return strings.TrimSpace(string(b))
}

// next is the record to open a store with.
func (l lifetime) next(boot string, now time.Time) lifetime {
	next := lifetime{Boot: boot, Since: l.Since}
	switch {
	case l.Clean:
		next.Since = 0
	case boot == "" || boot != l.Boot:
		next.Since = now.UnixNano()
	}
	return next
}

// beginLifetime notes, durably and before the first blob comes, that the store is
// open.
func (s *Store) beginLifetime() error {
	last := lifetime{Clean: true} // of a new store
	if _, err := s.getRecord(keyLifetime, &last); err != nil {
		return err
	}
	s.interrupted = !last.Clean
	next := last.next(bootID(), time.Now())
	s.trusted = next.Since
	return s.writeLifetime(next)
}

// endLifetime makes everything durable and notes it. The committer has ended.
func (s *Store) endLifetime() error {
	if s.commits.broken != nil {
		return nil
	}
	if err := unix.Syncfs(int(s.root.Fd())); err != nil {
		return fault.New("close store", s.dir, fault.Other, err)
	}
	failpoint.Hit(failpoint.CloseSynced, s.dir)
	err := s.writeLifetime(lifetime{Boot: bootID(), Clean: true})
	failpoint.Hit(failpoint.CloseMarked, s.dir)
	return err
}

func (s *Store) writeLifetime(l lifetime) error {
	b, err := json.Marshal(l)
	if err == nil {
		err = s.space.allocateLog()
	}
	if err == nil {
		err = s.commits.transactions([]op{{key: keyLifetime, value: b}})
	}
	if err != nil {
		return fault.New("note the store's state", s.dir, fault.Other, err)
	}
	return nil
}

// suspect tells whether a crash of the machine may have damaged a blob.
func (s *Store) suspect(fi fs.FileInfo) bool {
	st, ok := fi.Sys().(*syscall.Stat_t)
	return !ok || st.Ctim.Nano() < s.trusted
}

// Interrupted tells whether the daemon before this one did not close the store.
func (s *Store) Interrupted() bool { return s.interrupted }

// BootID tells one run of the machine from another. It is empty where there is none.
func BootID() string { return bootID() }
