package lossyfs

import (
	"errors"
	"fmt"
	"io"
	"log"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Mount is a mounted FS.
type Mount struct {
	point  string
	server *fuse.Server
	done   chan struct{}
}

// Mount mounts f. Programs that map its files must be other processes than this one, as
// a page fault stops all threads of a Go program that could answer it.
func (f *FS) Mount(point string) (*Mount, error) {
	server, err := fuse.NewServer(f, point, &fuse.MountOptions{
		FsName: "lossyfs", Name: "lossyfs", MaxWrite: 1 << 20, DirectMount: true, AllowOther: unix.Geteuid() == 0,
		IgnoreSecurityLabels: true, DisableReadDirPlus: true, Logger: log.New(io.Discard, "", 0),
	})
	if err != nil {
		return nil, fmt.Errorf("mount at %s: %w", point, err)
	}
	m := &Mount{point: point, server: server, done: make(chan struct{})}
	go func() {
		defer close(m.done)
		server.Serve()
	}()
	if err := server.WaitMount(); err != nil {
		return nil, errors.Join(err, m.Unmount())
	}
	return m, nil
}

// Unmount takes the mount away, whoever uses it, and returns when the kernel has let go
// of it: when nobody does any more.
func (m *Mount) Unmount() error {
	if err := unix.Unmount(m.point, unix.MNT_DETACH); err != nil {
		if err := m.server.Unmount(); err != nil { // by fusermount3
			return fmt.Errorf("unmount %s: %w", m.point, err)
		}
	}
	<-m.done
	return nil
}
