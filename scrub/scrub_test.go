package scrub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"condafs/fault"
	"condafs/hashing"
	"condafs/index"
	"condafs/internal/storetest"
	"condafs/repair"
)

var quiet = slog.New(slog.DiscardHandler)

func content(i int) string { return strings.Repeat(fmt.Sprint("file ", i, " "), 3000) }

// fill commits plain files; what is in overlays can be brought back.
func fill(t *testing.T, s *index.Store, n int) {
	t.Helper()
	h := s.NewHold()
	defer h.Release()
	_, err := s.Update(t.Context(), index.CommitInfo{}, func(tx *index.Tx) error { return nil })
	for i := range n {
		var sums hashing.Sums
		if err == nil {
			sums, err = s.PutBlob(h, strings.NewReader(content(i)), 0)
		}
		if err == nil {
			_, err = s.Update(t.Context(), index.CommitInfo{}, func(tx *index.Tx) error {
				return tx.Put(fmt.Sprint("u0/pkgs/f", i), index.Entry{Kind: index.KindFile, Size: sums.Size, Digest: sums.Blake3})
			})
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// copies puts the contents where a repair finds them.
func copies(t *testing.T, s *index.Store, from, to int) {
	t.Helper()
	dir := s.QuarantineDir("copies")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for i := from; i < to; i++ {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), []byte(content(i)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func blobFile(s *index.Store, i int) string {
	hex := hashing.Sum([]byte(content(i))).String()
	return filepath.Join(s.Dir(), "objects", hex[:2], hex[2:])
}

// flip changes a byte and leaves no trace.
func flip(t *testing.T, name string) {
	t.Helper()
	fi, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 8
	if err := errors.Join(os.Chmod(name, 0o600), os.WriteFile(name, b, 0o600), os.Chmod(name, 0o444), os.Chtimes(name, fi.ModTime(), fi.ModTime())); err != nil {
		t.Fatal(err)
	}
}

func intact(s *index.Store, i int) error {
	f, err := s.OpenBlob(hashing.Sum([]byte(content(i))))
	if err != nil {
		return err
	}
	b, err := io.ReadAll(f)
	if err == nil && string(b) != content(i) {
		err = errors.New("wrong bytes")
	}
	return errors.Join(err, f.Close())
}

func start(t *testing.T, store *index.Store, o Options) *Scrubber {
	t.Helper()
	o.Logger = quiet
	if o.Mend == nil {
		o.Mend = mender(store)
	}
	s := New(store, o)
	s.Start()
	t.Cleanup(s.Stop)
	return s
}

func mender(store *index.Store) func(context.Context, []index.Problem) (*repair.Report, error) {
	return func(ctx context.Context, ps []index.Problem) (*repair.Report, error) {
		return repair.Run(ctx, store, ps, repair.Options{})
	}
}

func now(t *testing.T, s *Scrubber) index.ScrubPass {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	p, err := s.Now(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("still not: " + what)
		}
	}
}

func TestPass(t *testing.T) {
	store := storetest.Open(t)
	fill(t, store, 40)
	copies(t, store, 0, 30)
	s := start(t, store, Options{})
	if p := now(t, s); p.Found != 0 || p.Blobs != 40 || p.Bytes < 40*int64(len(content(0))) || p.Started.After(p.Finished) {
		t.Errorf("of a sound store: %+v", p)
	}
	for i := range 35 {
		switch i % 3 {
		case 0:
			flip(t, blobFile(store, i))
		case 1:
			if err := os.Remove(blobFile(store, i)); err != nil {
				t.Fatal(err)
			}
		case 2:
			if err := errors.Join(os.Chmod(blobFile(store, i), 0o600), os.Truncate(blobFile(store, i), 10)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.WriteFile(filepath.Join(store.Dir(), "objects", "note"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var told [2]int64
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	p, err := s.Now(ctx, func(done, total int64) { told = [2]int64{done, total} })
	if err != nil || p.Found != 36 || p.Mended != 31 || p.Lost != 5 || p.Removed != 5 || p.Left != 0 || len(p.Problems) != 36 {
		t.Errorf("%+v, %v", p, err)
	}
	if told[0] > told[1] || told[1] == 0 {
		t.Errorf("progress: %v", told)
	}
	head := store.PinHead()
	defer head.Release()
	for i := range 40 {
		_, there, err := head.Get(fmt.Sprint("u0/pkgs/f", i))
		if lost := i >= 30 && i < 35; err != nil || there == lost {
			t.Errorf("%d: there %v, %v", i, there, err)
		} else if err := intact(store, i); !lost && err != nil {
			t.Errorf("%d: %v", i, err)
		}
	}
	if v, err := store.Verify(t.Context(), index.VerifyOptions{Full: true}, nil); err != nil || len(v.Problems) > 0 {
		t.Errorf("%+v, %v", v.Problems, err)
	}
	if p := now(t, s); p.Found != 0 {
		t.Errorf("and again: %+v", p)
	}
	if st := s.Status(); st.Last == nil || st.Pass != nil || st.Running || !st.Next.IsZero() || st.Err != "" {
		t.Errorf("%+v", st)
	}
}

// A pass that was stopped goes on where it was, in the next daemon too.
func TestGoesOn(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	store, err := index.Open(dir, index.Options{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	fill(t, store, 60)
	const stopAt = 40
	// The first part is read, so that damage there is for the next pass.
	first, later := -1, -1
	for i := range 60 {
		if hex := filepath.Base(filepath.Dir(blobFile(store, i))); hex < "20" {
			first = i
		} else if hex > "c0" {
			later = i
		}
	}
	if first < 0 || later < 0 {
		t.Fatal("choose other contents")
	}
	s := New(store, Options{Rate: 100_000, Every: time.Hour, Mend: mender(store), Logger: quiet}) // seconds until it has read too much
	s.Start()
	eventually(t, "some parts are read", func() bool { st := s.Status(); return st.Pass != nil && st.Pass.Part >= stopAt })
	s.Stop()
	st, err := store.ScrubState()
	if err != nil || st.Pass == nil || st.Pass.Part < stopAt || st.Pass.Part > 0xc0 {
		t.Fatalf("%+v, %v", st.Pass, err)
	}
	flip(t, blobFile(store, first))
	flip(t, blobFile(store, later))
	copies(t, store, first, first+1)
	copies(t, store, later, later+1)
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	store = storetest.OpenIn(t, dir)
	again := start(t, store, Options{})
	p := now(t, again)
	if !p.Started.Equal(st.Pass.Started) || p.Found != 1 || p.Mended != 1 || p.Blobs != 60 || p.Bytes <= st.Pass.Bytes {
		t.Errorf("%+v", p)
	}
	if p := now(t, again); p.Started.Equal(st.Pass.Started) || p.Found != 1 || p.Mended != 1 {
		t.Errorf("the next: %+v", p)
	}
	for _, i := range []int{first, later} {
		if err := intact(store, i); err != nil {
			t.Error(err)
		}
	}
}

func TestStopAndStart(t *testing.T) {
	store := storetest.Open(t)
	fill(t, store, 30)
	s := start(t, store, Options{Rate: 100_000, Every: time.Hour})
	eventually(t, "it reads", func() bool { st := s.Status(); return st.Running && st.Pass.Bytes > 0 })
	s.Stop()
	s.Stop()
	if st := s.Status(); st.Running || st.Pass == nil || st.Err != "" {
		t.Errorf("stopped: %+v", st)
	}
	if _, err := s.Now(t.Context(), nil); !fault.Is(err, fault.Stale) {
		t.Errorf("err = %v", err)
	}
	s.Start()
	s.Start()
	if p := now(t, s); p.Found != 0 || p.Blobs < 30 {
		t.Errorf("%+v", p)
	}
}

func TestSchedule(t *testing.T) {
	store := storetest.Open(t)
	fill(t, store, 3)
	s := start(t, store, Options{Rate: 1 << 40, Every: time.Hour, Delay: 50 * time.Millisecond})
	if st := s.Status(); st.Running || st.Last != nil || st.Pass != nil {
		t.Logf("it was quick: %+v", st) // on a machine that stood still meanwhile
	}
	eventually(t, "a pass has ended", func() bool { return s.Status().Last != nil })
	eventually(t, "it waits", func() bool { st := s.Status(); return !st.Running && st.Next.Equal(st.Last.Started.Add(time.Hour)) })
	s.Stop()
	// Passes follow each other.
	s = start(t, store, Options{Rate: 1 << 40, Every: time.Millisecond})
	last := s.Status().Last.Started
	for range 3 {
		eventually(t, "another pass", func() bool { return s.Status().Last.Started.After(last) })
		last = s.Status().Last.Started
	}
}

// It never reads more than the rate allows, but for what it may read at once.
func TestRate(t *testing.T) {
	store := storetest.Open(t)
	fill(t, store, 40)
	const perSecond = 400_000
	begun := time.Now()
	s := start(t, store, Options{Rate: perSecond, Every: time.Hour})
	looks := 0
	eventually(t, "the pass has ended", func() bool {
		st := s.Status()
		p := st.Pass
		if p == nil {
			p = st.Last
		}
		if p == nil {
			return false
		}
		looks++
		if most := int64(2*burst + perSecond*time.Since(begun).Seconds()); p.Bytes > most {
			t.Fatalf("%d bytes are read, at most %d may be", p.Bytes, most)
		}
		return st.Last != nil
	})
	if looks < 10 || s.Status().Last.Bytes < 2*burst {
		t.Errorf("looked %d times; %+v", looks, s.Status().Last)
	}
}

// Who waits does not wait for the rate.
// What lies beside the store is read at the end of each pass, and again if that was not to its end.
func TestShelves(t *testing.T) {
	store := storetest.Open(t)
	fill(t, store, 2)
	var calls atomic.Int32
	s := start(t, store, Options{Shelves: func(ctx context.Context, pace func(context.Context, int) error) (found, mended int, err error) {
		if calls.Add(1) == 1 {
			return 0, 0, errors.New("the disk is away")
		}
		return 3, 2, pace(ctx, 1)
	}})
	if _, err := s.Now(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "the disk is away") {
		t.Error(err)
	}
	p := now(t, s)
	if p.Found != 3 || p.Mended != 2 || p.Left != 1 || p.Blobs != 2 || calls.Load() != 2 {
		t.Errorf("%d calls, %+v", calls.Load(), p)
	}
}

func TestNowIsFast(t *testing.T) {
	store := storetest.Open(t)
	fill(t, store, 40)
	s := start(t, store, Options{Rate: 1, Every: time.Hour})
	eventually(t, "it reads", func() bool { return s.Status().Running })
	if p := now(t, s); p.Blobs != 40 {
		t.Errorf("%+v", p)
	}
}

// When nobody waits any more, and nothing is read otherwise, the pass stands still.
func TestNowIsGivenUp(t *testing.T) {
	store := storetest.Open(t)
	fill(t, store, 40)
	flip(t, blobFile(store, 0))
	ctx, cancel := context.WithCancel(t.Context())
	mend := mender(store)
	gone := make(chan struct{})
	s := start(t, store, Options{Mend: func(ctx context.Context, ps []index.Problem) (*repair.Report, error) {
		cancel()
		<-gone
		return mend(ctx, ps)
	}})
	_, err := s.Now(ctx, nil)
	close(gone)
	if !fault.Is(err, fault.Canceled) {
		t.Fatalf("err = %v", err)
	}
	eventually(t, "it stands still", func() bool { return !s.Status().Running })
	if st := s.Status(); st.Pass == nil || st.Err != "" {
		t.Errorf("%+v", st)
	}
	if p := now(t, s); p.Found != 1 || p.Lost != 1 {
		t.Errorf("%+v", p)
	}
}

// What could not be mended is found again, since it was put aside.
func TestMendFails(t *testing.T) {
	store := storetest.Open(t)
	fill(t, store, 5)
	copies(t, store, 3, 4)
	flip(t, blobFile(store, 3))
	var failing atomic.Bool
	failing.Store(true)
	mend := mender(store)
	s := start(t, store, Options{Mend: func(ctx context.Context, ps []index.Problem) (*repair.Report, error) {
		if failing.Load() {
			return nil, fault.New("mend", "", fault.Full, unix.ENOSPC)
		}
		return mend(ctx, ps)
	}})
	if _, err := s.Now(t.Context(), nil); !fault.Is(err, fault.Full) {
		t.Fatalf("err = %v", err)
	}
	eventually(t, "it says why", func() bool { st := s.Status(); return !st.Running && st.Err != "" && st.Pass != nil })
	if err := intact(store, 3); !fault.Is(err, fault.Corrupt) {
		t.Errorf("what is damaged is served: %v", err)
	}
	failing.Store(false)
	if p := now(t, s); p.Found != 1 || p.Mended != 1 {
		t.Errorf("%+v", p)
	}
	if err := intact(store, 3); err != nil {
		t.Error(err)
	}
}

// However much is damaged, mending has a bounded share of the time.
func TestMendingHasItsShare(t *testing.T) {
	store := storetest.Open(t)
	fill(t, store, 60)
	for i := range 60 {
		flip(t, blobFile(store, i))
	}
	const takes = 20 * time.Millisecond
	var calls atomic.Int64
	mend := mender(store)
	s := start(t, store, Options{Mend: func(ctx context.Context, ps []index.Problem) (*repair.Report, error) {
		calls.Add(1)
		time.Sleep(takes)
		return mend(ctx, ps)
	}})
	begun := time.Now()
	p := now(t, s)
	most := 2 + int64(time.Since(begun)/(takes*(mendShare+1)))
	if n := calls.Load(); n < 2 || n > most {
		t.Errorf("%d repairs, at most %d may be", n, most)
	}
	if p.Found != 60 || p.Lost != 60 || p.Removed != 60 {
		t.Errorf("%+v", p)
	}
}

// What a client finds damaged is mended for the next one, and what cannot be is looked for
// once.
func TestSuspect(t *testing.T) {
	store := storetest.Open(t)
	fill(t, store, 8)
	copies(t, store, 0, 6)
	old := store.PinHead()
	defer old.Release()
	var calls atomic.Int64
	mend := mender(store)
	s := start(t, store, Options{Rate: 1, Every: time.Hour, Delay: time.Hour, Mend: func(ctx context.Context, ps []index.Problem) (*repair.Report, error) {
		calls.Add(1)
		return mend(ctx, ps)
	}})
	store.OnDamaged(s.Suspect)
	spoil := []func(name string) error{
		os.Remove,
		func(name string) error { return errors.Join(os.Chmod(name, 0o600), os.Truncate(name, 7)) },
		func(name string) error { return errors.Join(os.Remove(name), os.Symlink("/dev/null", name)) },
		func(name string) error { return errors.Join(os.Remove(name), os.Mkdir(name, 0o700)) },
		func(name string) error {
			return errors.Join(os.Chmod(name, 0o600), os.WriteFile(name, []byte(strings.Repeat("x", len(content(4)))), 0))
		},
	}
	for i, f := range spoil {
		if err := f(blobFile(store, i)); err != nil {
			t.Fatal(err)
		}
		if err := openSized(store, i); !fault.Is(err, fault.Corrupt) {
			t.Errorf("%d: %v", i, err)
		}
	}
	for i := range spoil {
		eventually(t, fmt.Sprint("mended: ", i), func() bool { return intact(store, i) == nil })
	}
	if err := os.Remove(blobFile(store, 7)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it has left head", func() bool {
		_ = openSized(store, 7)
		head := store.PinHead()
		defer head.Release()
		_, there, err := head.Get("u0/pkgs/f7")
		return err == nil && !there
	})
	before := calls.Load()
	for range 100 {
		if err := openSized(store, 7); !fault.Is(err, fault.Corrupt) {
			t.Error(err)
		}
	}
	// One that comes later is mended when those have been looked at.
	if err := os.Remove(blobFile(store, 5)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "mended: 5", func() bool { return openSized(store, 5) == nil })
	if n := calls.Load() - before; n > 2 {
		t.Errorf("%d repairs", n)
	}
}

func openSized(s *index.Store, i int) error {
	f, err := s.OpenBlobSize(hashing.Sum([]byte(content(i))), int64(len(content(i))))
	if err != nil {
		return err
	}
	return f.Close()
}

func TestIdle(t *testing.T) {
	done := make(chan struct{})
	go func() { // its thread ends with it
		defer close(done)
		runtime.LockOSThread()
		if err := idle(); err != nil {
			t.Log(err)
			return
		}
		if class, _, err := unix.Syscall(unix.SYS_IOPRIO_GET, ioprioWhoProcess, 0, 0); err != 0 || class != ioprioClassIdle {
			t.Errorf("class %x, %v", class, err)
		}
	}()
	<-done
}
