package fs

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"condafs/fault"
)

func TestUnmountInUse(t *testing.T) {
	m := newMount(t, mountOptions{})
	path := filepath.Join(m.pkg, "f")
	write(t, path, "content")
	f, err := os.Open(path)
	must(t, err)
	wantKind(t, m.server.Unmount(false), fault.Busy, "in use", "fuser", "--lazy")
	must(t, m.server.Unmount(true))
	if _, err := os.Stat(filepath.Join(m.dir, ".condafs")); err == nil {
		t.Error("the mount is still there after a lazy unmount")
	}
	buf := make([]byte, 7)
	if _, err := f.ReadAt(buf, 0); err != nil || string(buf) != "content" {
		t.Errorf("an open file reads %q, %v", buf, err)
	}
	must(t, f.Close())
	m.server.Wait()
	must(t, m.server.Unmount(false)) // again
}

func TestUnmountedByOthers(t *testing.T) {
	asRoot(t)
	m := newMount(t, mountOptions{})
	must(t, unix.Unmount(m.dir, 0))
	<-m.server.Done()
	must(t, m.server.Unmount(false))
}

func TestPanicIsAnswered(t *testing.T) {
	var log logBuffer
	st := panicHandler(slog.New(slog.NewTextHandler(&log, nil)))("boom")
	if st != fuse.EIO {
		t.Errorf("got %v", st)
	}
	if s := log.String(); !strings.Contains(s, "boom") || !strings.Contains(s, "TestPanicIsAnswered") {
		t.Errorf("the log lacks the panic or its stack: %s", s)
	}
}

// TestPanicKeepsTheMount puts a node into the table that can't be used.
func TestPanicKeepsTheMount(t *testing.T) {
	m := newMount(t, mountOptions{})
	path := filepath.Join(m.pkg, "f")
	write(t, path, "content")
	nd := m.node(t, path)
	swap := func(n *node) {
		shard := m.server.fs.nodes.shard(nd.id)
		shard.mu.Lock()
		defer shard.mu.Unlock()
		shard.m[nd.id] = n
	}
	swap(&node{id: nd.id})
	_, err := os.Open(path)
	wantErrno(t, err, unix.EIO)
	swap(nd)
	wantContent(t, path, "content")
	if !strings.Contains(m.log.String(), "panic") {
		t.Error("the panic was not logged")
	}
}

func TestStatus(t *testing.T) {
	var log logBuffer
	f := &fileSystem{log: slog.New(slog.NewTextHandler(&log, nil))}
	tests := []struct {
		err    error
		want   fuse.Status
		logged bool
	}{
		{nil, fuse.OK, false},
		{unix.ENOENT, fuse.ENOENT, false},
		{fault.New("write", "x", fault.Full, nil), fuse.Status(unix.ENOSPC), false},
		{fault.New("open blob", "x", fault.Corrupt, unix.ENOENT), fuse.EIO, true},
		{fault.New("read", "x", fault.Other, unix.EIO), fuse.EIO, true},
	}
	for _, tt := range tests {
		before := len(log.String())
		if got := f.status("op", tt.err); got != tt.want {
			t.Errorf("%v: got %v, want %v", tt.err, got, tt.want)
		}
		if logged := len(log.String()) > before; logged != tt.logged {
			t.Errorf("%v: logged %v, want %v", tt.err, logged, tt.logged)
		}
	}
}
