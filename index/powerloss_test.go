package index

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"condafs/internal/longrun"
)

// A copy of the image below a mounted file system has what was written to the disk so
// far, and nothing of what is still in memory: that is what a power failure leaves. A
// child commits on such a file system; copies that are taken at any moment must hold
// a store with everything that was said to be committed before. A copy takes a while,
// so only one counts during which nothing was written to the image.
func TestPowerLoss(t *testing.T) {
	if !longrun.Wanted() {
		t.Skip("writes some hundred MiB")
	}
	work := memDir(t)
	image := filepath.Join(work, "image")
	if err := makeImage(image, 128<<20); err != nil {
		t.Skip(err)
	}
	mnt := mountImage(t, work, image)
	child, said := startChild(t, filepath.Join(mnt, "store"))
	rng := rand.New(rand.NewPCG(rand.Uint64(), 0))
	for round := range 4 {
		said.waitFor(rng.IntN(60) + 1)
		promised := said.copy()
		if err := child.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		// A name of its own: mount would use a loop device again that still holds the
		// content of an earlier file of the same name.
		after := filepath.Join(work, fmt.Sprint("after", round))
		err := copyQuiet(image, after, mnt)
		if err := errors.Join(err, child.Signal(syscall.SIGCONT)); err != nil {
			t.Fatal(err)
		}
		checkImage(t, round, work, after, promised)
		if err := os.Remove(after); err != nil {
			t.Error(err)
		}
	}
}

func makeImage(name string, size int64) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return err
	}
	return exec.Command("mkfs.ext4", "-q", "-F", name).Run()
}

func mountImage(t *testing.T, work, image string) string {
	t.Helper()
	dir, err := os.MkdirTemp(work, "mnt")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-o", "loop", image, dir).CombinedOutput(); err != nil {
		t.Skipf("cannot mount an image: %s", out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %s", out)
		}
	})
	return dir
}

// progress is what a child said so far.
type progress struct {
	mu   sync.Mutex
	more sync.Cond
	n    int
	last map[string]string
	bad  string
	over bool
}

func startChild(t *testing.T, dir string) (*os.Process, *progress) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashEnv+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &progress{last: make(map[string]string)}
	p.more.L = &p.mu
	done := make(chan struct{})
	go func() { defer close(done); p.follow(out) }()
	t.Cleanup(func() {
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		<-done
		cmd.Wait() // it was killed
		if p.bad != "" {
			t.Errorf("the child says %q", p.bad)
		}
	})
	return cmd.Process, p
}

func (p *progress) follow(out io.Reader) {
	for lines := bufio.NewScanner(out); lines.Scan(); {
		word, path, _ := strings.Cut(lines.Text(), " ")
		worker, name, _ := strings.Cut(path, "/")
		p.mu.Lock()
		if word == "done" {
			p.n++
			p.last[worker] = name
		} else {
			p.bad = lines.Text()
		}
		p.more.Broadcast()
		p.mu.Unlock()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	p.more.Broadcast()
}

// waitFor returns when n more commits were made.
func (p *progress) waitFor(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for until := p.n + n; p.n < until && !p.over; {
		p.more.Wait()
	}
}

func (p *progress) copy() map[string]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.last)
}

// copyQuiet copies the image below a mount at one moment.
func copyQuiet(image, to, mnt string) error {
	for {
		before, err := writesTo(mnt)
		if err != nil {
			return err
		}
		if err := copyFile(image, to); err != nil {
			return err
		}
		if after, err := writesTo(mnt); err != nil || before == after {
			return err
		}
	}
}

// writesTo tells how much was written to the device of a mount, and a new number each
// time while something is under way.
func writesTo(mnt string) (string, error) {
	var st syscall.Stat_t
	if err := syscall.Stat(mnt, &st); err != nil {
		return "", err
	}
	b, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/stat", unix.Major(st.Dev), unix.Minor(st.Dev)))
	if err != nil {
		return "", err
	}
	// Reads, three more about them, writes, merged, sectors, ms, in flight.
	f := strings.Fields(string(b))
	if len(f) < 9 {
		return "", fmt.Errorf("stat is %q", b)
	}
	if f[8] != "0" {
		return fmt.Sprint("busy ", time.Now().UnixNano()), nil
	}
	return f[4] + " " + f[6], nil
}

func copyFile(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close() // only read
	dst, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close())
}

func checkImage(t *testing.T, round int, work, image string, promised map[string]string) {
	t.Helper()
	t.Run("", func(t *testing.T) {
		mnt := mountImage(t, work, image)
		real := bootID
		bootID = func() string { return "after the power failure" }
		defer func() { bootID = real }()
		s, err := Open(filepath.Join(mnt, "store"), Options{Logger: quiet})
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if err := checkAfterCrash(s, promised); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}
