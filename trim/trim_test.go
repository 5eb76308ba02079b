package trim

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"condafs/conda"
	"condafs/conda/condatest"
	"condafs/fault"
	"condafs/index"
	"condafs/internal/storetest"
	"condafs/transfer"
)

var now = time.Now()

// days is a moment so many days ago.
func days(n int) time.Time { return now.Add(-time.Duration(n) * 24 * time.Hour) }

func write(t *testing.T, name, body string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(body), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// fill makes a store of packages with their archives. They were published just now as far as the log tells.
func fill(t *testing.T, names ...string) *index.Store {
	t.Helper()
	s := storetest.Open(t)
	dir := t.TempDir()
	for _, name := range names {
		p := condatest.Package{Name: name, Version: "1.0", Build: "0", Files: []condatest.File{{Path: "lib/data", Body: strings.Repeat(name, 5000)}}}
		fn, b := p.Dist()+".conda", p.Conda()
		write(t, filepath.Join(dir, fn), string(b))
		for _, f := range p.All() {
			write(t, filepath.Join(dir, p.Dist(), f.Path), f.Body)
		}
		write(t, filepath.Join(dir, p.Dist(), conda.CompletionMarker), p.Record(fn, b))
	}
	r, err := transfer.Import(t.Context(), s, transfer.ImportOptions{Dir: dir, Spaces: transfer.Spaces{Shared: "shared", Private: "u0"}})
	if err != nil || len(r.Rejected) > 0 {
		t.Fatal(r, err)
	}
	return s
}

// touch sets when all of a package in head was read last.
func touch(t *testing.T, s *index.Store, name string, at time.Time) {
	t.Helper()
	head := s.PinHead()
	defer head.Release()
	set := func(e index.Entry) {
		f, err := s.OpenBlob(e.Digest)
		if err != nil {
			t.Fatal(err)
		}
		times := []unix.Timespec{unix.NsecToTimespec(at.UnixNano()), {Nsec: unix.UTIME_OMIT}}
		if err := errors.Join(unix.UtimesNanoAt(unix.AT_FDCWD, f.Name(), times, 0), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	e, ok, err := head.Get("shared/pkgs/" + name + "-1.0-0.conda")
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	set(e)
	if e, ok, err = head.Get("shared/pkgs/" + name + "-1.0-0"); err != nil || !ok {
		t.Fatal(ok, err)
	}
	tree, err := s.Tree(e.Digest)
	if err != nil {
		t.Fatal(err)
	}
	for _, te := range tree.All() {
		if te.Kind == index.KindFile {
			set(index.Entry{Digest: te.Digest})
		}
	}
}

// run trims as if nothing had been published lately.
func run(t *testing.T, s *index.Store, o Options) Report {
	t.Helper()
	o.Now = now
	r, err := Run(t.Context(), s, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func names(r Report) string {
	var l []string
	for _, p := range r.Removed {
		l = append(l, strings.TrimSuffix(strings.TrimPrefix(p.Name, "shared/pkgs/"), "-1.0-0"))
	}
	return strings.Join(l, " ")
}

func inHead(t *testing.T, s *index.Store) string {
	t.Helper()
	head := s.PinHead()
	defer head.Release()
	l, err := head.List("shared/pkgs")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range l {
		if e.Kind == index.KindTree || strings.HasSuffix(e.Name, ".conda") {
			out = append(out, strings.Replace(e.Name, "-1.0-0", "", 1))
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// aged is a store whose packages were used so many days ago. Their publication in the log is as old.
func aged(t *testing.T) *index.Store {
	s := fill(t, "a", "b", "c", "d")
	for name, n := range map[string]int{"a": 50, "b": 10, "c": 90, "d": 3} {
		touch(t, s, name, days(n))
	}
	published = func(index.CommitRecord) time.Time { return days(100) }
	t.Cleanup(func() { published = madeAt })
	return s
}

func TestLeastRecentlyUsedGoFirst(t *testing.T) {
	s := aged(t)
	if r := run(t, s, Options{}); len(r.Removed) > 0 {
		t.Errorf("without limits %s go", names(r))
	}
	if r := run(t, s, Options{Limits: Limits{MaxSize: s.Size()}}); len(r.Removed) > 0 {
		t.Errorf("although there is room %s go", names(r))
	}
	one := run(t, s, Options{Limits: Limits{MaxSize: s.Size() - 1}, DryRun: true})
	if names(one) != "c" {
		t.Errorf("for one byte %s go", names(one))
	}
	more := Options{Limits: Limits{MaxSize: s.Size() - one.Bytes - 1}, DryRun: true}
	r := run(t, s, more)
	if names(r) != "c a" || r.Over != 0 {
		t.Errorf("%s go (%d bytes, %d over)", names(r), r.Bytes, r.Over)
	}
	if used := r.Removed[0].Used; used.Sub(days(90)).Abs() > time.Second {
		t.Errorf("c was used at %v", used)
	}
	if got := inHead(t, s); got != "a a.conda b b.conda c c.conda d d.conda" {
		t.Errorf("a dry run leaves %s", got)
	}
	before := s.PinHead()
	defer before.Release()
	more.DryRun = false
	run(t, s, more)
	if got := inHead(t, s); got != "b b.conda d d.conda" {
		t.Errorf("there stay %s", got)
	}
	if _, ok, err := before.Get("shared/pkgs/c-1.0-0"); err != nil || !ok {
		t.Errorf("who had it has lost it: %v %v", ok, err)
	}
	log, err := s.Log(1)
	if err != nil || log[0].Label != "trim" || len(log[0].What) != 2 || !strings.HasPrefix(log[0].What[0], "- shared/pkgs/c-1.0-0 (not used since ") {
		t.Errorf("the log says %+v %v", log, err)
	}
	// A collection frees it once nobody has it.
	before.Release()
	size := s.Size()
	if _, err := s.GC(t.Context(), index.GCOptions{}, nil); err != nil || s.Size() >= size {
		t.Errorf("%d bytes, of %d: %v", s.Size(), size, err)
	}
}

func TestLimits(t *testing.T) {
	s := aged(t)
	for name, c := range map[string]struct {
		o    Options
		want string
		over bool
	}{
		"age":               {Options{Limits: Limits{MaxAge: 40 * 24 * time.Hour}}, "c a", false},
		"age and size":      {Options{Limits: Limits{MaxAge: 60 * 24 * time.Hour, MaxSize: s.Size() - 1}}, "c", false},
		"all":               {Options{Limits: Limits{MaxSize: 1}}, "c a b d", false},
		"free":              {Options{Limits: Limits{MinFree: 1 << 62}}, "c a b d", true},
		"free already":      {Options{Limits: Limits{MinFree: 1}}, "", false},
		"what will be free": {Options{Limits: Limits{MaxSize: s.Size() - 10}, Freed: 10}, "", false},
	} {
		c.o.DryRun = true
		if r := run(t, s, c.o); names(r) != c.want || (r.Over > 0) != c.over {
			t.Errorf("%s: %s go, %d over; want %s", name, names(r), r.Over, c.want)
		}
	}
}

// What was published lately was not read since, where the file system notes no reading.
func TestPublicationIsUse(t *testing.T) {
	s := aged(t)
	published = func(index.CommitRecord) time.Time { return days(1) }
	if r := run(t, s, Options{Limits: Limits{MaxAge: 48 * time.Hour}, DryRun: true}); len(r.Removed) > 0 {
		t.Errorf("%s go", names(r))
	}
}

// What an environment has hard links to stays, be the shelf's file the store's or another one.
func TestLinkedPackagesStay(t *testing.T) {
	s := aged(t)
	shelf, env := t.TempDir(), t.TempDir()
	head := s.PinHead()
	defer head.Release()
	for _, name := range []string{"a", "b", "c"} {
		e, _, err := head.Get("shared/pkgs/" + name + "-1.0-0")
		if err != nil {
			t.Fatal(err)
		}
		tree, err := s.Tree(e.Digest)
		if err != nil {
			t.Fatal(err)
		}
		i, ok := tree.Find("lib/data")
		if !ok {
			t.Fatal("no lib/data")
		}
		f, err := s.OpenBlob(tree.At(i).Digest)
		if err != nil {
			t.Fatal(err)
		}
		at := filepath.Join(shelf, name+"-1.0-0", "lib", "data")
		if name == "a" { // a copy
			write(t, at, "x")
			err = f.Close()
		} else {
			err = errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.Link(f.Name(), at), f.Close())
		}
		if name == "c" { // what two packages have in common is one file on the shelf
			err = errors.Join(err, os.Link(at, at+"-again"))
		} else {
			err = errors.Join(err, os.Link(at, filepath.Join(env, name)))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	r := run(t, s, Options{Limits: Limits{MaxSize: 1}, Shelves: map[string]string{"shared/pkgs": shelf}})
	if names(r) != "c d" || r.Linked != 2 || r.Over == 0 {
		t.Errorf("%s go, %d are linked, %d over", names(r), r.Linked, r.Over)
	}
	if got := inHead(t, s); got != "a a.conda b b.conda" {
		t.Errorf("there stay %s", got)
	}
}

// The scrub and checks by content are no use.
func TestChecksAreNoUse(t *testing.T) {
	s := aged(t)
	if _, err := s.Verify(t.Context(), index.VerifyOptions{Full: true}, nil); err != nil {
		t.Fatal(err)
	}
	x := s.NewScrub(index.ScrubOptions{
		Pace:  func(context.Context, int) error { return nil },
		Read:  func(int64, int64) {},
		Found: func(context.Context, ...index.Problem) error { return nil },
	})
	for part := range index.ScrubParts {
		if err := x.Part(t.Context(), part); err != nil {
			t.Fatal(err)
		}
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	if r := run(t, s, Options{Limits: Limits{MaxAge: 40 * 24 * time.Hour}, DryRun: true}); names(r) != "c a" {
		t.Errorf("%s go", names(r))
	}
}

func TestCanceled(t *testing.T) {
	s := aged(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, s, Options{Limits: Limits{MaxSize: 1}, Now: now}); !fault.Is(err, fault.Canceled) {
		t.Error(err)
	}
}
