package fs

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"condafs/fault"
)

// pauseWorker changes files until a file called stop is there. Whatever fails is an error: all names are its own.
func pauseWorker(args []string) error {
	dir := args[0]
	for i := 0; ; i++ {
		if _, err := os.Lstat(filepath.Join(dir, "stop")); err == nil {
			return nil
		}
		name := filepath.Join(dir, strconv.Itoa(os.Getpid())+"-"+strconv.Itoa(i%20))
		want := fmt.Sprint(name, " ", i)
		if err := os.WriteFile(name, []byte(want), 0o644); err != nil {
			return err
		}
		if err := os.Rename(name, name+".r"); err != nil {
			return err
		}
		got, err := os.ReadFile(name + ".r")
		if err != nil {
			return err
		}
		if string(got) != want {
			return fmt.Errorf("%s holds %q, want %q", name, got, want)
		}
		if _, err := os.ReadDir(dir); err != nil {
			return err
		}
		if err := os.Remove(name + ".r"); err != nil {
			return err
		}
	}
}

// TestPause stops and goes on with the service, again and again, under clients that must not notice.
func TestPause(t *testing.T) {
	const clients, times = 4, 200
	bothWays(t, nil, func(t *testing.T, m *testMount) {
		ended := make(chan error, clients)
		for range clients {
			cmd := worker("pause", m.pkg)
			cmd.Stderr = os.Stderr
			must(t, cmd.Start())
			go func() { ended <- cmd.Wait() }()
		}
		d := m.server.fs.device
		rnd := rand.New(rand.NewPCG(1, 2))
		for range times {
			if !d.pause(time.Minute) {
				t.Fatal("requests are not answered")
			}
			if d.readers != 0 || d.waiting != 0 {
				t.Fatalf("paused with %d readers, %d waiting", d.readers, d.waiting)
			}
			time.Sleep(time.Duration(rnd.IntN(2000)) * time.Microsecond)
			d.start()
			time.Sleep(time.Duration(rnd.IntN(5000)) * time.Microsecond)
		}
		write(t, filepath.Join(m.pkg, "stop"), "")
		for range clients {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	})
}

// TestPauseQuiet stops the service of a mount that nobody uses: nothing comes that would wake its readers.
func TestPauseQuiet(t *testing.T) {
	m := newMount(t, mountOptions{})
	d := m.server.fs.device
	for range 20 {
		if !d.pause(time.Minute) {
			t.Fatal("the readers do not wake")
		}
		if d.readers != 0 || d.waiting != 0 {
			t.Fatalf("paused with %d readers, %d waiting", d.readers, d.waiting)
		}
		d.start()
		wantContent(t, filepath.Join(m.dir, infoName), string(m.server.fs.info))
	}
}

// TestPauseGivesUp checks that a request which takes too long makes the service go on.
func TestPauseGivesUp(t *testing.T) {
	m := newMount(t, mountOptions{})
	write(t, filepath.Join(m.pkg, "file"), "content")
	nd := m.node(t, filepath.Join(m.pkg, "file"))
	nd.open.mu.Lock() // an open will wait for it
	opened := make(chan error, 1)
	go func() {
		b, err := os.ReadFile(filepath.Join(m.pkg, "file"))
		if err == nil && string(b) != "content" {
			err = fmt.Errorf("read %q", b)
		}
		opened <- err
	}()
	d := m.server.fs.device
	// Nobody waits for long here: the open may not have been taken yet, which is as good.
	paused := true
	for paused {
		if paused = d.pause(50 * time.Millisecond); paused {
			d.start()
		}
	}
	wantContent(t, filepath.Join(m.dir, infoName), string(m.server.fs.info)) // it is served
	nd.open.mu.Unlock()
	must(t, <-opened)
}

// waitingFS answers STATFS when the caller has given up.
type waitingFS struct {
	fuse.RawFileSystem
	asked chan struct{}
}

func (w *waitingFS) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	out.Attr = fuse.Attr{Ino: idRoot, Mode: unix.S_IFDIR | 0o755, Nlink: 2}
	return fuse.OK
}

func (w *waitingFS) StatFs(cancel <-chan struct{}, in *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	w.asked <- struct{}{}
	<-cancel
	return fuse.EINTR
}

func statfsWorker(args []string) error { return Ask(args[0]) }

// TestGivenUp checks that a request which waits hears of it when nobody wants its answer any more: its caller has
// been killed, or the connection has been cut.
func TestGivenUp(t *testing.T) {
	asRoot(t)
	dir := t.TempDir()
	w := &waitingFS{fuse.NewDefaultRawFileSystem(), make(chan struct{})}
	fd, err := attach(dir, options{})
	must(t, err)
	t.Cleanup(func() {
		if err := Unmount(dir, true); err != nil && !fault.Is(err, fault.NotMounted) {
			t.Error(err)
		}
	})
	d, err := newDevice(fd, fuse.NewProtocolServer(w, &fuse.MountOptions{}), dir, slog.New(slog.DiscardHandler))
	must(t, err)
	_, err = d.greet()
	must(t, err)
	d.start()
	for _, end := range []struct {
		name string
		f    func(*exec.Cmd) error
	}{
		{"killed", func(c *exec.Cmd) error { return c.Process.Kill() }},
		{"cut", func(*exec.Cmd) error { return unix.Unmount(dir, unix.MNT_FORCE|unix.MNT_DETACH) }},
	} {
		cmd := worker("statfs", dir)
		must(t, cmd.Start())
		<-w.asked
		must(t, end.f(cmd))
		if err := cmd.Wait(); err == nil {
			t.Errorf("%s: the client has got an answer", end.name)
		}
	}
	<-d.gone
	must(t, d.close())
}
