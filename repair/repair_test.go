package repair

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"condafs/conda"
	"condafs/conda/condatest"
	"condafs/fault"
	"condafs/hashing"
	"condafs/index"
	"condafs/internal/longrun"
	"condafs/internal/storetest"
	"condafs/transfer"
)

func pack(name string) condatest.Package {
	return condatest.Package{Name: name, Version: "1.0", Build: "0", Files: []condatest.File{
		{Path: "bin/" + name, Body: "#!/bin/sh\necho " + name + "\n", Exec: true},
		{Path: "lib/data", Body: strings.Repeat(name, 5000)},
		{Path: "share/common", Body: "the same in all\n"},
	}}
}

func write(t *testing.T, name, body string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(body), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// fill imports packages; those in without have no archive.
func fill(t *testing.T, s *index.Store, without string, names ...string) {
	t.Helper()
	dir := t.TempDir()
	for i, name := range names {
		p := pack(name)
		fn, b := p.Dist()+".conda", p.Conda()
		if i%2 == 1 {
			fn, b = p.Dist()+".tar.bz2", p.TarBz2()
		}
		if name != without {
			write(t, filepath.Join(dir, fn), string(b))
		}
		for _, f := range p.All() {
			at := filepath.Join(dir, p.Dist(), f.Path)
			write(t, at, f.Body)
			if f.Exec {
				if err := os.Chmod(at, 0o755); err != nil {
					t.Fatal(err)
				}
			}
		}
		write(t, filepath.Join(dir, p.Dist(), conda.CompletionMarker), p.Record(fn, b))
	}
	r, err := transfer.Import(t.Context(), s, transfer.ImportOptions{Dir: dir, Spaces: transfer.Spaces{Shared: "shared", Private: "u0"}})
	if err != nil || len(r.Rejected) > 0 {
		t.Fatal(r, err)
	}
}

// contents reads all of head: by path of the index, packages with their own paths.
// What cannot be read is an error.
func contents(s *index.Store, p *index.Snapshot) (map[string]string, error) {
	out := make(map[string]string)
	read := func(path string, d hashing.Digest, size int64) error {
		f, err := s.OpenBlobSize(d, size)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		b, err := io.ReadAll(f)
		if err == nil && hashing.Sum(b) != d {
			err = fmt.Errorf("%s: wrong bytes", path)
		}
		out[path] = string(b)
		return errors.Join(err, f.Close())
	}
	var errs []error
	for _, space := range []string{"shared", "u0"} {
		list, err := p.List(space + "/pkgs")
		if err != nil {
			return nil, err
		}
		for _, e := range list {
			at := space + "/pkgs/" + e.Name
			switch e.Kind {
			case index.KindFile:
				errs = append(errs, read(at, e.Digest, e.Size))
			case index.KindTree:
				tree, err := s.Tree(e.Digest)
				if err != nil {
					return nil, err
				}
				for path, te := range tree.All() {
					if te.Kind == index.KindFile {
						errs = append(errs, read(at+"/"+path, te.Digest, te.Size))
					}
				}
			}
		}
	}
	return out, errors.Join(errs...)
}

func mustContents(t *testing.T, s *index.Store) map[string]string {
	t.Helper()
	p := s.PinHead()
	defer p.Release()
	c, err := contents(s, p)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func blobFile(s *index.Store, content string) string {
	hex := hashing.Sum([]byte(content)).String()
	return filepath.Join(s.Dir(), "objects", hex[:2], hex[2:])
}

// flip changes a byte and leaves no trace.
func flip(name string, at int64) error {
	fi, err := os.Stat(name)
	if err != nil {
		return err
	}
	b, err := os.ReadFile(name)
	if err != nil || len(b) == 0 {
		return err
	}
	b[at%int64(len(b))] ^= 0x10
	return errors.Join(os.Chmod(name, 0o600), os.WriteFile(name, b, 0o600), os.Chtimes(name, time.Time{}, fi.ModTime()), os.Chmod(name, 0o444))
}

func repairAll(t *testing.T, s *index.Store, o Options) *Report {
	t.Helper()
	v, err := s.Verify(t.Context(), index.VerifyOptions{Full: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Run(t.Context(), s, v.Problems, o)
	if err != nil {
		t.Fatal(err)
	}
	if v, err = s.Verify(t.Context(), index.VerifyOptions{Full: true}, nil); err != nil || len(v.Problems) > 0 {
		t.Errorf("after the repair: %+v, %v", v.Problems, err)
	}
	return r
}

func TestRepair(t *testing.T) {
	data := strings.Repeat("a", 5000)
	all := "a-1.0-0 a-1.0-0.conda b-1.0-0 b-1.0-0.tar.bz2 c-1.0-0"
	tests := []struct {
		name    string
		damage  func(s *index.Store) error
		packs   string // what head has afterwards
		fixed   string // what the first problem's outcome says
		removed int
	}{
		{"nothing", func(*index.Store) error { return nil }, all, "", 0},
		{"a file, and its archive is there", func(s *index.Store) error { return flip(blobFile(s, data), 7) }, all, "the archive a-1.0-0.conda", 0},
		{"a lost file", func(s *index.Store) error { return os.Remove(blobFile(s, data)) }, all, "the archive a-1.0-0.conda", 0},
		{"a cut file", func(s *index.Store) error {
			name := blobFile(s, data)
			return errors.Join(os.Chmod(name, 0o600), os.Truncate(name, 10))
		}, all, "the archive a-1.0-0.conda", 0},
		{"a file of a .tar.bz2", func(s *index.Store) error { return flip(blobFile(s, strings.Repeat("b", 5000)), 0) }, all, "the archive b-1.0-0.tar.bz2", 0},
		{"a file that several packages have", func(s *index.Store) error { return flip(blobFile(s, "the same in all\n"), 3) }, all, "the archive ", 0},
		{"a file, and no archive is there", func(s *index.Store) error { return flip(blobFile(s, strings.Repeat("c", 5000)), 7) },
			"a-1.0-0 a-1.0-0.conda b-1.0-0 b-1.0-0.tar.bz2", "left the newest snapshot", 1},
		{"a record, which no archive has", func(s *index.Store) error {
			p := pack("a")
			return flip(blobFile(s, p.Record(p.Dist()+".conda", p.Conda())), 7)
		}, "a-1.0-0.conda b-1.0-0 b-1.0-0.tar.bz2 c-1.0-0", "left the newest snapshot", 1},
		{"an archive", func(s *index.Store) error { return flip(blobFile(s, string(pack("a").Conda())), 70) },
			"a-1.0-0 b-1.0-0 b-1.0-0.tar.bz2 c-1.0-0", "left the newest snapshot", 1},
		{"an archive and a file", func(s *index.Store) error {
			return errors.Join(flip(blobFile(s, string(pack("a").Conda())), 70), flip(blobFile(s, data), 70))
		}, "b-1.0-0 b-1.0-0.tar.bz2 c-1.0-0", "left the newest snapshot", 2},
		{"a file that lies in quarantine", func(s *index.Store) error {
			dir := s.QuarantineDir("x")
			return errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "f"), []byte(strings.Repeat("c", 5000)), 0o600),
				os.Remove(blobFile(s, strings.Repeat("c", 5000))))
		}, all, "quarantine", 0},
		{"a file that a session has", func(s *index.Store) error {
			dir := filepath.Join(s.SessionDir("x"), "upper", "pkgs")
			return errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "f"), []byte(strings.Repeat("c", 5000)), 0o600),
				os.Symlink("/dev/zero", filepath.Join(dir, "zero")), os.Remove(blobFile(s, strings.Repeat("c", 5000))))
		}, all, "the overlay of a session", 0},
		{"foreign things", func(s *index.Store) error {
			return errors.Join(os.WriteFile(filepath.Join(s.Dir(), "objects", "note"), nil, 0o600),
				os.Mkdir(filepath.Join(s.Dir(), "objects", "ab", "dir"), 0o700), os.Symlink("/", filepath.Join(s.Dir(), "objects", "ab", "link")))
		}, all, "put aside", 0},
		{"the journal", func(s *index.Store) error { return os.RemoveAll(filepath.Join(s.Dir(), "trees")) }, all, "written anew", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := storetest.Open(t)
			fill(t, s, "c", "a", "b", "c")
			before := mustContents(t, s)
			if err := tt.damage(s); err != nil {
				t.Fatal(err)
			}
			r := repairAll(t, s, Options{})
			if len(r.Removed) != tt.removed || r.Left != 0 {
				t.Errorf("%+v", r)
			}
			if tt.fixed != "" && (len(r.Problems) == 0 || !strings.Contains(r.Problems[0].Fixed, tt.fixed)) {
				t.Errorf("%+v", r.Problems)
			}
			after := mustContents(t, s)
			packs := make(map[string]bool)
			for path, content := range after {
				if before[path] != content {
					t.Errorf("%s has changed", path)
				}
				packs[strings.Split(path, "/")[2]] = true
			}
			if got := strings.Join(slices.Sorted(maps.Keys(packs)), " "); got != tt.packs {
				t.Errorf("packages %s, not %s", got, tt.packs)
			}
		})
	}
}

// A session that sees what has left head keeps it, without the lost file; once a client
// has brought the content again, it has that too.
func TestRepairAndSessions(t *testing.T) {
	s := storetest.Open(t)
	fill(t, s, "a", "a", "b")
	old := s.PinHead()
	defer old.Release()
	data := strings.Repeat("a", 5000)
	if err := flip(blobFile(s, data), 9); err != nil {
		t.Fatal(err)
	}
	if r := repairAll(t, s, Options{}); len(r.Removed) != 1 || r.Removed[0] != "shared/pkgs/a-1.0-0" && r.Removed[0] != "u0/pkgs/a-1.0-0" {
		t.Errorf("%+v", r)
	}
	c, err := contents(s, old)
	if !fault.Is(errors.Unwrap(firstOf(err)), fault.Corrupt) || len(c) < 5 {
		t.Errorf("%d files, %v", len(c), err)
	}
	hold := s.NewHold()
	defer hold.Release()
	if _, err := s.PutBlob(hold, strings.NewReader(data), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := contents(s, old); err != nil {
		t.Error(err)
	}
}

func firstOf(err error) error {
	if j, ok := err.(interface{ Unwrap() []error }); ok && len(j.Unwrap()) == 1 {
		return j.Unwrap()[0]
	}
	return err
}

// Whatever is damaged, and in whichever way: after a repair head is whole, nothing in it
// has changed, and what is gone is gone as a whole.
func TestRepairRandomDamage(t *testing.T) {
	rounds := 30
	if !longrun.Wanted() {
		rounds = 5
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range rounds {
		s := storetest.Open(t)
		fill(t, s, "", "a", "b", "c", "d")
		before := mustContents(t, s)
		files, err := filepath.Glob(filepath.Join(s.Dir(), "objects", "??", "*"))
		if err != nil || len(files) < 10 {
			t.Fatal(len(files), err)
		}
		for range rng.IntN(12) {
			name := files[rng.IntN(len(files))]
			switch rng.IntN(4) {
			case 0:
				err = os.Remove(name)
			case 1:
				if fi, serr := os.Stat(name); serr == nil && fi.Size() > 0 {
					err = errors.Join(os.Chmod(name, 0o600), os.Truncate(name, rng.Int64N(fi.Size())))
				}
			default:
				err = flip(name, rng.Int64N(1<<40))
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
		}
		r := repairAll(t, s, Options{})
		after := mustContents(t, s)
		removed := func(path string) bool {
			return slices.ContainsFunc(r.Removed, func(gone string) bool { return path == gone || strings.HasPrefix(path, gone+"/") })
		}
		for path, content := range before {
			got, there := after[path]
			if there == removed(path) || there && got != content {
				t.Errorf("%s: there %v, removed %v, the same %v", path, there, removed(path), got == content)
			}
		}
		if len(after) > len(before) || r.Left > 0 {
			t.Errorf("%d files, %+v", len(after), r)
		}
	}
}
