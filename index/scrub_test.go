package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"condafs/hashing"

	"golang.org/x/sys/unix"
)

// scrubAll reads all parts, and tells what was found, in order, as KIND FILE.
func scrubAll(t *testing.T, s *Store) []Problem {
	t.Helper()
	var all []Problem
	x := s.NewScrub(ScrubOptions{
		Pace:  func(ctx context.Context, _ int) error { return ctx.Err() },
		Read:  func(int64, int64) {},
		Found: func(_ context.Context, ps ...Problem) error { all = append(all, ps...); return nil },
	})
	defer func() {
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	}()
	for n := range ScrubParts {
		if err := x.Part(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	all, _, err := s.Affected(t.Context(), all)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// damageBlob changes a byte and leaves no trace.
func damageBlob(s *Store, d hashing.Digest, at int) error {
	name := s.blobPath(d)
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	b[at] ^= 4
	return errors.Join(os.Chmod(name, 0o600), os.WriteFile(name, b, 0o600), os.Chmod(name, blobMode), os.Chtimes(name, blobTime, blobTime))
}

func TestScrub(t *testing.T) {
	sum := func(c string) hashing.Digest { return hashing.Sum([]byte(c)) }
	const big = 700_001 // several readings, and no even end
	content := func(name string) string { return strings.Repeat(name, big/len(name)) }
	tests := []struct {
		name   string
		damage func(s *Store) error
		want   []string
	}{
		{"nothing", func(*Store) error { return nil }, nil},
		{"a byte", func(s *Store) error { return damageBlob(s, sum(content("lib")), big-300) }, []string{"content u/p/lib u/q/lib"}},
		{"a plain file", func(s *Store) error { return damageBlob(s, sum("plain"), 0) }, []string{"content u/plain"}},
		{"its time does not count", func(s *Store) error { return os.Chtimes(s.blobPath(sum("plain")), time.Now(), time.Now()) }, nil},
		{"a cut file", func(s *Store) error {
			name := s.blobPath(sum(content("lib")))
			return errors.Join(os.Chmod(name, 0o600), os.Truncate(name, 4096))
		}, []string{"size u/p/lib u/q/lib"}},
		{"a longer file", func(s *Store) error {
			name := s.blobPath(sum("plain"))
			return errors.Join(os.Chmod(name, 0o600), os.WriteFile(name, []byte("plain and more"), 0))
		}, []string{"size u/plain"}},
		{"lost files", func(s *Store) error {
			return errors.Join(os.Remove(s.blobPath(sum("plain"))), os.RemoveAll(filepath.Dir(s.blobPath(sum("only p")))))
		}, []string{"missing u/p/only", "missing u/plain"}},
		{"one that only a session sees", func(s *Store) error { return os.Remove(s.blobPath(sum("old"))) }, []string{"missing"}},
		{"garbage", func(s *Store) error {
			h := s.NewHold()
			defer h.Release()
			_, err := s.PutBlob(h, strings.NewReader("garbage"), 0)
			return errors.Join(err, damageBlob(s, sum("garbage"), 0))
		}, []string{"content"}},
		{"garbage that is gone", func(s *Store) error { return os.Remove(s.blobPath(sum("garbage before"))) }, nil},
		{"a directory in a blob's place", func(s *Store) error {
			name := s.blobPath(sum("plain"))
			return errors.Join(os.Remove(name), os.Mkdir(name, 0o700))
		}, []string{"foreign", "missing u/plain"}},
		{"foreign things", func(s *Store) error {
			in := func(name string) string { return filepath.Join(s.dir, name) }
			return errors.Join(os.WriteFile(in("objects/note"), nil, 0o600), os.WriteFile(in("objects/ab/note"), nil, 0o600), os.Mkdir(in("objects/zz"), 0o700),
				os.Mkdir(in("objects/+1"), 0o700), unix.Mkfifo(in("objects/ab/"+strings.Repeat("0", 62)), 0o600),
				os.WriteFile(in("trees/note"), nil, 0o600), os.WriteFile(in("journal/note"), nil, 0o600))
		}, []string{"foreign", "foreign", "foreign", "foreign", "foreign", "foreign", "foreign"}},
		{"a manifest beside the journal", func(s *Store) error {
			names, err := filepath.Glob(filepath.Join(s.dir, treesName, "*"))
			if err != nil || len(names) != 2 {
				return fmt.Errorf("%v, %v", names, err)
			}
			return errors.Join(os.Remove(names[0]), os.WriteFile(names[1], []byte("other"), 0o600))
		}, []string{"journal", "journal"}},
		{"the journal", func(s *Store) error {
			names, err := filepath.Glob(filepath.Join(s.dir, journalName, "*"))
			if err != nil || len(names) != 1 {
				return fmt.Errorf("%v, %v", names, err)
			}
			b, err := os.ReadFile(names[0])
			b[len(b)/2] ^= 1
			return errors.Join(err, os.WriteFile(names[0], b, 0o600))
		}, []string{"journal"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newStore(t)
			putFile(t, s, "u/plain", "plain")
			putFile(t, s, "u/old", "old")
			old := s.PinHead()
			defer old.Release()
			update(t, s, func(tx *Tx) error { return tx.Delete("u/old") })
			putPackage(t, s, "u/p", map[string]string{"lib": content("lib"), "only": "only p", "empty": ""})
			putPackage(t, s, "u/q", map[string]string{"lib": content("lib")})
			h := s.NewHold()
			if _, err := s.PutBlob(h, strings.NewReader("garbage before"), 0); err != nil {
				t.Fatal(err)
			}
			h.Release()
			if err := tt.damage(s); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range scrubAll(t, s) {
				slices.Sort(p.Paths)
				got = append(got, strings.TrimSpace(string(p.Kind)+" "+strings.Join(p.Paths, " ")))
				if p.Detail == "" || p.File == "" {
					t.Errorf("%+v", p)
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, tt.want) {
				t.Errorf("found %q", got)
			}
		})
	}
}

// Tables are read whole, and one that Badger has replaced meanwhile is none of them.
func TestScrubOfTables(t *testing.T) {
	dir := memDir(t)
	s := openTest(t, dir)
	for i := range 20 {
		putFile(t, s, fmt.Sprint("f", i), fmt.Sprint(i))
	}
	if err := s.Close(); err != nil { // writes a table
		t.Fatal(err)
	}
	s = openTest(t, dir)
	if ps := scrubAll(t, s); len(ps) > 0 {
		t.Fatalf("%+v", ps)
	}
	names, err := filepath.Glob(filepath.Join(dir, dbName, "*.sst"))
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	b, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	b[10] ^= 1
	if err := os.WriteFile(names[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	ps := scrubAll(t, s)
	if len(ps) == 0 || ps[0].Kind != Index || ps[0].File != dbName+"/"+filepath.Base(names[0]) {
		t.Errorf("%+v", ps)
	}
}

// What the disk has lost behind a page that is in memory is seen by the scrub alone.
func TestScrubLooksBehindThePageCache(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounts an image")
	}
	work := t.TempDir()
	image := filepath.Join(work, "image")
	if err := makeImage(image, 48<<20); err != nil {
		t.Skipf("no ext4: %v", err)
	}
	dir := filepath.Join(mountImage(t, work, image), "store")
	s, err := Open(dir, Options{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	random := make([]byte, 100_000)
	rng := rand.NewChaCha8([32]byte{1})
	_, _ = rng.Read(random)
	tree := putPackage(t, s, "u/p", map[string]string{"lib": string(random), "other": "other"})
	if err := s.SyncBlobs(); err != nil {
		t.Fatal(err)
	}
	// What verifying reads is in memory from now on.
	verify := func() []Problem {
		t.Helper()
		v, err := s.Verify(t.Context(), VerifyOptions{Full: true}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return v.Problems
	}
	if ps := append(verify(), scrubAll(t, s)...); len(ps) > 0 {
		t.Fatalf("%+v", ps)
	}
	onDisk, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(image, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() // checked below
	for _, part := range [][]byte{random[50_000:50_100], tree.Encode()} {
		at := bytes.Index(onDisk, part)
		if at < 0 {
			t.Fatal("the content is not in the image")
		}
		for ; at >= 0; at = nextIndex(onDisk, part, at) { // the database may have a tree too
			if _, err := f.WriteAt([]byte{part[0] ^ 1}, int64(at)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if ps := verify(); len(ps) > 0 {
		t.Fatalf("verify sees what is not in memory, and this test proves nothing: %+v", ps)
	}
	kinds := make(map[ProblemKind]int)
	for _, p := range scrubAll(t, s) {
		kinds[p.Kind]++
		if p.Kind == Content {
			// Nor is it taken for sound when it is put aside.
			if id, err := s.SetAside(p); err != nil || id == "" {
				t.Errorf("put aside as %q, %v", id, err)
			}
		}
	}
	if kinds[Content] != 1 || kinds[Journal] != 1 {
		t.Errorf("the scrub found %v", kinds)
	}
}

func nextIndex(b, part []byte, after int) int {
	if i := bytes.Index(b[after+1:], part); i >= 0 {
		return after + 1 + i
	}
	return -1
}

// The parts ask for what one walk has found.
func TestExpectation(t *testing.T) {
	s := newStore(t)
	e, err := s.newExpectation()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.close(); err != nil {
			t.Error(err)
		}
	}()
	want := make(map[hashing.Digest]int64)
	for i := range 30_000 {
		d := hashing.Sum([]byte(fmt.Sprint(i % 20_000)))
		want[d] = int64(i % 20_000)
		if err := e.add(d, want[d]); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 256 {
		part, err := e.part(byte(n))
		if err != nil {
			t.Fatal(err)
		}
		for d, size := range part {
			if want[d] != size || d[0] != byte(n) {
				t.Fatalf("part %d: %v has %d bytes, not %d", n, d, size, want[d])
			}
			delete(want, d)
		}
	}
	if len(want) > 0 {
		t.Errorf("%d are in no part", len(want))
	}
	if names, err := os.ReadDir(s.StagingDir()); err != nil || len(names) > 0 {
		t.Errorf("%v, %v", names, err)
	}
}

// A scrub stops within a part when it is told to, and when the store is closed.
func TestScrubStops(t *testing.T) {
	s := newStore(t)
	putFile(t, s, "f", "content")
	ctx, cancel := context.WithCancel(t.Context())
	stop := cancel
	x := s.NewScrub(ScrubOptions{
		Pace: func(ctx context.Context, _ int) error {
			go stop()
			<-ctx.Done()
			return ctx.Err()
		},
		Read:  func(int64, int64) {},
		Found: func(_ context.Context, ps ...Problem) error { t.Errorf("%+v", ps); return nil },
	})
	if err := x.Part(ctx, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v", err)
	}
	closed := make(chan error, 2)
	stop = func() { closed <- s.Close() }
	if err := x.Part(t.Context(), 0); err == nil {
		t.Error("it goes on in a closed store")
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if err := x.Close(); err != nil {
		t.Error(err)
	}
}

func TestScrubState(t *testing.T) {
	dir := memDir(t)
	s := openTest(t, dir)
	if st, err := s.ScrubState(); err != nil || st.Pass != nil || st.Last != nil {
		t.Errorf("of a new store: %+v, %v", st, err)
	}
	now := time.Now().UTC()
	p := &ScrubPass{Started: now, Part: 7, Bytes: 1 << 40, Found: 1}
	p.Note(Problem{Kind: Content, Digest: hashing.Sum(nil), Detail: "x"})
	for range 300 {
		p.Note(Problem{Kind: Missing})
	}
	if err := s.SetScrubState(ScrubState{Pass: p}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, dir)
	st, err := s.ScrubState()
	if err != nil || st.Pass == nil || st.Pass.Part != 7 || st.Pass.Bytes != 1<<40 || !st.Pass.Started.Equal(now) ||
		len(st.Pass.Problems) != scrubProblems || st.Pass.Problems[0].Digest != hashing.Sum(nil) || st.Last != nil {
		t.Errorf("%+v, %v", st.Pass, err)
	}
	for _, bad := range []string{"", "{", `{"pass":{"part":-1}}`, `{"pass":{"part":1000}}`, `{"last":{"part":258}}`, `[]`} {
		if err := os.WriteFile(filepath.Join(dir, scrubName), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if st, err := s.ScrubState(); err != nil || st.Pass != nil || st.Last != nil {
			t.Errorf("%q: %+v, %v", bad, st, err)
		}
	}
}

// What a collection removes meanwhile is not missing, and one that comes meanwhile is read.
func TestScrubBesideACollection(t *testing.T) {
	s := newStore(t)
	for i := range 100 {
		putFile(t, s, fmt.Sprint("u/f", i), fmt.Sprint(i))
	}
	var found []Problem
	blobs := int64(0)
	x := s.NewScrub(ScrubOptions{
		Pace:  func(ctx context.Context, _ int) error { return ctx.Err() },
		Read:  func(n, _ int64) { blobs += n },
		Found: func(_ context.Context, ps ...Problem) error { found = append(found, ps...); return nil },
	})
	defer func() {
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	}()
	for n := range ScrubParts {
		if n == 100 {
			update(t, s, func(tx *Tx) error {
				for i := range 50 {
					if err := tx.Delete(fmt.Sprint("u/f", i)); err != nil {
						return err
					}
				}
				return nil
			})
			collect(t, s)
			for i := range 50 {
				putFile(t, s, fmt.Sprint("u/new", i), fmt.Sprint("new", i))
			}
		}
		if err := x.Part(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	if len(found) == 0 || blobs < 75 {
		t.Fatalf("%d found, %d read", len(found), blobs)
	}
	real, stale, err := s.Affected(t.Context(), found)
	if err != nil || !stale || len(real) > 0 {
		t.Errorf("%+v, stale %v, %v", real, stale, err)
	}
	found = nil
	if err := x.Forget(); err != nil {
		t.Fatal(err)
	}
	for n := range ScrubParts {
		if err := x.Part(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	if len(found) > 0 {
		t.Errorf("%+v", found)
	}
}
