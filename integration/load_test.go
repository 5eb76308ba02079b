package integration

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"condafs/conda/condatest"
	"condafs/control"
	"condafs/internal/longrun"
)

// load is a mount under load, and what its daemon held before.
type load struct {
	*mount
	client  string // the program
	channel string
	dir     string
	base    control.Runtime
	seed    uint64
}

// plainBinary is condafs as it is shipped: the race detector's memory would hide the daemon's.
var plainBinary = sync.OnceValues(func() (string, error) { return goBuild("condafs-plain", "condafs/cmd/condafs") })

// faultyBinary is condafs with the points at which it can be made to fail.
var faultyBinary = sync.OnceValues(func() (string, error) {
	return goBuild("condafs-faulty", "condafs/cmd/condafs", "-tags", "condafs_faults")
})

var loadClient = sync.OnceValues(func() (string, error) { return goBuild("load", "condafs/integration/load") })

func goBuild(name, pkg string, flags ...string) (string, error) {
	path := filepath.Join(scratch, name)
	cmd := exec.Command("go", append(append([]string{"build", "-o", path}, flags...), pkg)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return path, nil
}

// newLoad mounts a store with a binary.
func newLoad(t *testing.T, bin string) *load {
	t.Helper()
	client := built(t, loadClient)
	dir := testDir(t)
	l := &load{client: client, channel: filepath.Join(dir, "channel"), dir: dir, seed: rand.Uint64()}
	t.Logf("seed %d", l.seed)
	makeLoadChannel(t, l.channel)
	l.mount = mountBinary(t, bin, filepath.Join(dir, "store"), filepath.Join(dir, "mnt"))
	// What is made once for all sessions is there when the first has ended.
	l.one("install", nil)
	l.settle()
	l.base = *l.status().Runtime
	return l
}

func built(t *testing.T, build func() (string, error)) string {
	t.Helper()
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

const loadPackages = 24

// makeLoadChannel makes packages of a dozen files each, unpacked beside their archives.
func makeLoadChannel(t *testing.T, dir string) {
	t.Helper()
	for i := range loadPackages {
		p := condatest.Package{Name: fmt.Sprintf("p%02d", i), Version: "1.0", Build: "0"}
		for f := range 12 {
			p.Files = append(p.Files, condatest.File{Path: fmt.Sprintf("lib/d%d/file%d", f%3, f), Body: strings.Repeat(fmt.Sprintf("%d of %d\n", f, i), 200*(1+f%4))})
		}
		archive := p.Conda()
		write := func(name string, b []byte) {
			err := os.MkdirAll(filepath.Dir(name), 0o755)
			if err = errors.Join(err, os.WriteFile(name, b, 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		base := filepath.Join(dir, p.Dist())
		write(base+".conda", archive)
		write(base+".record", []byte(p.Record(p.Dist()+".conda", archive)))
		for _, f := range p.All() {
			write(filepath.Join(base, f.Path), []byte(f.Body))
		}
	}
}

// command is one session that does something, or, with "", what its number says.
func (l *load) command(i int, what string) *exec.Cmd {
	prefix := filepath.Join(l.dir, "env", strconv.Itoa(i))
	args := []string{"-channel", l.channel, "-pkgs", l.pkgs(), "-prefix", prefix, "-seed", strconv.FormatUint(l.seed+uint64(i), 10)}
	if what != "" {
		args = append(args, "-do", what)
	}
	return exec.Command(l.client, args...)
}

// session runs number i to its end and demands that it went well, or died as it was to.
func (l *load) session(i int, what string) error {
	cmd := l.command(i, what)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("session %d, seed %d: %w: %s", i, l.seed+uint64(i), err, out.String())
	}
	return os.RemoveAll(filepath.Join(l.dir, "env", strconv.Itoa(i)))
}

// one runs a session that must go well.
func (l *load) one(what string, after func()) {
	l.t.Helper()
	if err := l.session(0, what); err != nil {
		l.t.Fatal(err)
	}
	if after != nil {
		after()
	}
}

// sample returns what the daemon holds now.
func (l *load) sample() control.Runtime { l.t.Helper(); return *l.status().Runtime }

// What a daemon at rest may hold more than one that has just begun: go-fuse keeps threads that read requests, and the
// pipes through which it has spliced contents, for as many requests as there were at once.
const (
	spareGoroutines  = 8
	spareDescriptors = 32
)

// nothingLeft demands that the daemon holds no more than before the load, once it has come to rest.
func (l *load) nothingLeft() {
	l.t.Helper()
	l.settle()
	var last control.Runtime
	defer func() {
		if l.t.Failed() {
			l.t.Logf("before the load %+v, after it %+v", l.base, last)
		}
	}()
	l.await("the kernel to let go of all sessions", func() bool {
		last = l.sample()
		return last.Views == 0 && last.Files <= l.base.Files && last.Nodes <= l.base.Nodes &&
			last.Goroutines <= l.base.Goroutines+spareGoroutines && last.Descriptors <= l.base.Descriptors+spareDescriptors
	})
	for _, dir := range []string{"sessions", "staging"} {
		l.await("an empty "+dir, func() bool { // the last session's files go after its view
			left, err := os.ReadDir(filepath.Join(l.store, dir))
			if err != nil {
				l.t.Fatal(err)
			}
			return len(left) == 0
		})
	}
}

// howMany chooses between the sizes of a load: by default, with CONDAFS_LONG, and with CONDAFS_TEST_LOAD=full, which takes
// more than ten minutes for all.
func howMany(short, normal, full int) int {
	switch {
	case os.Getenv("CONDAFS_TEST_LOAD") == "full":
		return full
	case !longrun.Wanted():
		return short
	}
	return normal
}

// TestManySessions has sessions one after the other.
func TestManySessions(t *testing.T) {
	t.Parallel()
	n := howMany(200, 1000, 10_000)
	l := newLoad(t, built(t, plainBinary))
	var curve []control.Runtime
	for i := range n {
		if err := l.session(i, ""); err != nil {
			t.Fatal(err)
		}
		if i%(n/20) == n/20-1 {
			curve = append(curve, l.sample())
		}
	}
	l.nothingLeft()
	logCurve(t, n/20, curve)
	mustBeFlat(t, curve)
	l.verify()
}

func logCurve(t *testing.T, step int, curve []control.Runtime) {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "%9s %9s %9s %6s %6s %6s\n", "sessions", "heap MiB", "RSS MiB", "gorout", "fds", "nodes")
	for i, r := range curve {
		fmt.Fprintf(&b, "%9d %9.1f %9.1f %6d %6d %6d\n", (i+1)*step, mib(r.HeapBytes), mib(r.ResidentBytes), r.Goroutines, r.Descriptors, r.Nodes)
	}
	t.Log("what the daemon holds:\n" + b.String())
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// residentLimit bounds the daemon's memory under any of these loads. Badger fills three memory tables of 10 MiB, each
// with a mapped log of its size, before it uses their memory again: until then its resident part grows with what is
// written, and nothing else may.
const residentLimit = 128 << 20

// mustBeFlat compares the second quarter of the heap's curve with its last: what leaks goes on growing. The least of
// each counts, as the heap is as large as the last collection left it.
func mustBeFlat(t *testing.T, curve []control.Runtime) {
	t.Helper()
	least := func(part []control.Runtime) int64 {
		v := part[0].HeapBytes
		for _, r := range part[1:] {
			v = min(v, r.HeapBytes)
		}
		return v
	}
	n := len(curve)
	// Two more of the memory tables may be there by then.
	if early, late := least(curve[n/4:n/2]), least(curve[3*n/4:]); late > early+early/4+(20<<20) {
		t.Errorf("the heap grows: from %.1f to %.1f MiB", mib(early), mib(late))
	}
	for _, r := range curve {
		if r.ResidentBytes > residentLimit {
			t.Errorf("%.1f MiB are resident", mib(r.ResidentBytes))
		}
	}
}

// TestManyProcesses has many client processes on one mount at once.
func TestManyProcesses(t *testing.T) {
	t.Parallel()
	n := howMany(40, 200, 200)
	l := newLoad(t, built(t, plainBinary))
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = l.session(i, "") })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
	l.nothingLeft()
	l.verify()
}

// TestManyCondaProcesses has Python clients that do what conda does make their environments at once.
func TestManyCondaProcesses(t *testing.T) {
	t.Parallel()
	n := howMany(8, 32, 200)
	s := serve(t)
	l := newLoad(t, built(t, plainBinary))
	env := envs(t)
	clients := several(n, func(i int) *client { return conda(t, s, l.pkgs(), env("env", i), "app03") })
	t.Logf("%d clients took %v", n, atOnce(t, clients...))
	mustBeRight(t, clients...)
	l.nothingLeft()
	l.verify()
}
