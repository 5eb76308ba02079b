package fs

import (
	"bytes"
	"context"
	"encoding/gob"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"condafs/cow"
	"condafs/index"
	"condafs/internal/fieldtest"
)

// handOver has another engine and another server go on with nothing of the first but their images, sent through the
// codec, and the open files.
func (m *testMount) handOver(t testing.TB) {
	t.Helper()
	must(t, m.engine.Pause(context.Background()))
	must(t, m.server.Pause(time.Minute))
	must(t, m.engine.Settle(context.Background()))
	fsImage, cowImage, err := m.server.Draw()
	must(t, err)
	var b bytes.Buffer
	enc := gob.NewEncoder(&b)
	must(t, enc.Encode(fsImage))
	must(t, enc.Encode(cowImage))
	fsImage, cowImage = new(Image), new(cow.Image)
	dec := gob.NewDecoder(&b)
	must(t, dec.Decode(fsImage))
	must(t, dec.Decode(cowImage))
	// A process that takes over has the files under the same numbers. Here they are the first server's, which keeps
	// them for as long as the test runs.
	superseded = append(superseded, m.server, m.engine)
	lock := os.NewFile(uintptr(dup(t, int(m.store.LockFile().Fd()))), "lock")
	dir := m.store.Dir()
	must(t, m.store.Close())
	logger := slog.New(slog.NewTextHandler(m.log, nil))
	m.store, err = index.Open(dir, index.Options{Logger: logger, Inherit: &index.Inheritance{Lock: lock, Pins: cowImage.Pins()}})
	must(t, err)
	must(t, Compatible(dir, fsImage.Hello, fsImage.Answer))
	var refs *cow.Refs
	m.engine, refs, err = cow.Resume(m.store, cow.Options{Procs: m.procs, Logger: logger, MountPoint: m.dir}, cowImage)
	must(t, err)
	m.server, err = Resume(m.engine, refs, fsImage, MountOptions{Store: dir, Socket: "/run/test.sock", Version: "next", Logger: logger})
	must(t, err)
	m.session, _ = m.engine.Session(m.session.ID())
	m.server.Continue()
	m.engine.Continue()
}

var superseded []any

func dup(t testing.TB, fd int) int {
	t.Helper()
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	must(t, err)
	return n
}

// TestHandOver hands a mount over again and again under clients that must not notice: some that change names and
// contents, and one that holds everything that can be held.
func TestHandOver(t *testing.T) {
	const clients, times = 3, 12
	bothWays(t, seedTwo, func(t *testing.T, m *testMount) {
		ended := make(chan error, clients)
		for range clients {
			cmd := worker("pause", m.pkg)
			cmd.Stderr = os.Stderr
			must(t, cmd.Start())
			go func() { ended <- cmd.Wait() }()
		}
		holder := startHolder(t, filepath.Join(m.root, "pkgs"))
		for range times {
			holder.check(t)
			m.handOver(t)
		}
		holder.end(t)
		write(t, filepath.Join(m.pkg, "stop"), "")
		for range clients {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		if got := read(t, filepath.Join(m.dir, infoName)); !strings.Contains(got, `"next"`) {
			t.Errorf("%s says %s", infoName, got)
		}
		if strings.Contains(m.log.String(), "level=ERROR") {
			t.Errorf("errors were logged:\n%s", m.log)
		}
	})
}

// What becomes of each field when another process takes over; see cow's test of the same name.
func TestEveryFieldIsHandedOver(t *testing.T) {
	for _, h := range []struct {
		of                      any
		image, restored, unused string
	}{
		{Server{}, "mountPoint abort fs", "direct", "done once"},
		{fileSystem{}, "device born nodes files dirs passthrough notify", "RawFileSystem engine log uid gid info store head", ""},
		{device{}, "file hello answer", "raw mount log server", "mu readers waiting waking paused dead working changed gone requests"},
		{node{}, "id refs over open", "tree view valid private", ""},
		{openState{}, "handles backing bypassed cached", "", "mu"},
		{backing{}, "id file", "", ""},
		{identity{}, "major minor ino born", "", ""},
		{file{}, "nd h", "", ""},
		{dir{}, "nd id listed list kept", "", "mu"},
		{handleTable[*file]{}, "last m", "", "mu"},
		{notifier{}, "ended queue", "f queued", "mu sending wake quit quitOnce done"},
		{endedSessions{}, "live", "f pause", "mu"},
		{notice{}, "node name", "", ""},
	} {
		fieldtest.All(t, h.of, "put what is new into the image (image.go), or say here why not", h.image, h.restored, h.unused)
	}
}
