package index

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"condafs/internal/longrun"
)

// dumpEnv makes this test binary a child that opens a store and says what is in it:
// what Badger does with damaged files can end a process.
const dumpEnv = "CONDAFS_INDEX_DUMP_DIR"

func dump(dir string) int {
	s, err := Open(dir, Options{Logger: quiet})
	if err != nil {
		fmt.Println("error", err)
		return 0
	}
	fmt.Println(describe(s))
	v, err := s.Verify(s.ending, VerifyOptions{Full: true}, nil)
	if err != nil {
		fmt.Println("verify", err)
		return 1
	}
	for _, p := range v.Problems {
		fmt.Println("problem", p.Kind, p.File, p.Detail)
	}
	// A collection must not make it worse.
	if _, err := s.GC(s.ending, GCOptions{}, nil); err != nil {
		fmt.Println("gc", err)
	}
	if err := s.Close(); err != nil {
		fmt.Println("close", err)
	}
	return 0
}

// describe lists all paths of head, and which packages are whole.
func describe(s *Store) string {
	p := s.PinHead()
	defer p.Release()
	var lines []string
	var walk func(dir string)
	walk = func(dir string) {
		list, err := p.List(dir)
		if err != nil {
			lines = append(lines, "error "+err.Error())
			return
		}
		for _, e := range list {
			path := joinPath(dir, e.Name)
			lines = append(lines, fmt.Sprint("head ", path, " ", e.Digest))
			if e.Kind == KindDir {
				walk(path)
			}
			if e.Kind == KindTree {
				if err := checkTree(s, &e.Entry); err != nil {
					lines = append(lines, "error "+err.Error())
				}
			}
		}
	}
	walk("")
	return strings.Join(lines, "\n")
}

func checkTree(s *Store, e *Entry) error {
	t, err := s.loadTree(e.Digest)
	if err != nil {
		return err
	}
	for _, te := range t.All() {
		f, err := s.OpenBlobSize(te.Digest, te.Size)
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}

// dumpOf runs the child. It must not die.
func dumpOf(t *testing.T, dir string) string {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), dumpEnv+"="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("the child ended: %v\n%s", err, out)
	}
	return string(out)
}

// damage does something bad to a file.
func damageFile(rng *rand.Rand, name string) (string, error) {
	fi, err := os.Stat(name)
	if err != nil {
		return "", err
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	size := fi.Size()
	switch kind := rng.IntN(6); {
	case kind == 0 || size == 0:
		return "removed", os.Remove(name)
	case kind == 1:
		to := rng.Int64N(size)
		return fmt.Sprint("cut to ", to), f.Truncate(to)
	case kind == 2:
		at := rng.Int64N(size)
		zeros := make([]byte, min(4096, size-at))
		_, err := f.WriteAt(zeros, at)
		return fmt.Sprint("zeroed at ", at), err
	default:
		// Near the beginning or the end most of the time: files are sparse.
		at := rng.Int64N(size)
		switch kind {
		case 3:
			at = rng.Int64N(min(size, 4096))
		case 4:
			at = size - 1 - rng.Int64N(min(size, 200))
		}
		b := make([]byte, 1)
		if _, err := f.ReadAt(b, at); err != nil {
			return "", err
		}
		b[0] ^= 1 << rng.IntN(8)
		_, err := f.WriteAt(b, at)
		return fmt.Sprint("flipped at ", at), err
	}
}

// Whatever happens to a file of the database: the store opens and is as it was, or it
// names the damage, by the error of the opening or by verify; and rebuild brings
// everything back. It never loses anything in silence, and nothing kills the daemon.
func TestDamagedDatabase(t *testing.T) {
	rounds := 400
	if !longrun.Wanted() {
		rounds = 12
	}
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)

	closed := memDir(t)
	s := openTest(t, closed)
	fillRebuild(t, s, 0, 6)
	if err := s.Close(); err != nil { // makes a table
		t.Fatal(err)
	}
	s = openTest(t, closed)
	fillRebuild(t, s, 6, 12)
	killed := copyStore(t, closed) // has the rest in a log
	want := describe(s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]int)
	for round := range rounds {
		dir := copyStore(t, []string{closed, killed}[rng.IntN(2)])
		files, err := os.ReadDir(filepath.Join(dir, dbName))
		if err != nil {
			t.Fatal(err)
		}
		files = slices.DeleteFunc(files, func(e os.DirEntry) bool { return e.Name() == "LOCK" })
		name := files[rng.IntN(len(files))].Name()
		what, err := damageFile(rng, filepath.Join(dir, dbName, name))
		if err != nil {
			t.Fatal(err)
		}
		out := dumpOf(t, dir)
		outcome := "told by verify"
		switch {
		case strings.HasPrefix(out, "error") && strings.Contains(out, "condafs rebuild"):
			outcome = "told by the opening"
		case strings.TrimSpace(out) == want:
			outcome = "no harm"
		case !strings.Contains(out, "problem index") && !strings.Contains(out, "problem tree"):
			t.Errorf("round %d: %s %s: silent loss:\n%s\nwant\n%s", round, name, what, out, want)
		}
		seen[filepath.Ext(name)+" "+outcome]++
		r := rebuild(t, dir)
		if !r.Exact || len(r.Damage) > 0 || len(r.LostTrees) > 0 {
			t.Errorf("round %d: %s %s: %+v", round, name, what, r)
		}
		if got := strings.TrimSpace(dumpOf(t, dir)); got != want {
			t.Errorf("round %d: %s %s: after the rebuild:\n%s\nwant\n%s", round, name, what, got, want)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			return
		}
	}
	t.Log(seen)
}

// The same for the journal: the store opens, serves what it has, and mends the journal
// at the latest when somebody repairs it.
func TestDamagedJournal(t *testing.T) {
	rounds := 200
	if !longrun.Wanted() {
		rounds = 20
	}
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	origin := memDir(t)
	s := openTest(t, origin)
	fillRebuild(t, s, 0, 6)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, origin)
	fillRebuild(t, s, 6, 9)
	killed := copyStore(t, origin)
	want := describe(s)
	for round := range rounds {
		dir := copyStore(t, killed)
		files, err := filepath.Glob(filepath.Join(dir, "[jt]*", "*"))
		if err != nil || len(files) == 0 {
			t.Fatal(files, err)
		}
		name := files[rng.IntN(len(files))]
		what, err := damageFile(rng, name)
		if err != nil {
			t.Fatal(err)
		}
		d, err := Open(dir, Options{Logger: quiet})
		if err != nil {
			t.Fatalf("round %d: %s %s: %v", round, name, what, err)
		}
		if got := describe(d); got != want {
			t.Errorf("round %d: %s %s: got\n%s\nwant\n%s", round, name, what, got, want)
		}
		v, err := d.Verify(t.Context(), VerifyOptions{Full: true}, nil)
		if err == nil {
			err = d.MendJournal(t.Context(), v.Problems)
		}
		if err == nil {
			v, err = d.Verify(t.Context(), VerifyOptions{Full: true}, nil)
		}
		if err != nil || len(v.Problems) > 0 {
			t.Errorf("round %d: %s %s: %+v, %v", round, name, what, v.Problems, err)
		}
		if err := errors.Join(d.Close(), os.RemoveAll(filepath.Join(dir, dbName))); err != nil {
			t.Fatal(err)
		}
		if r := rebuild(t, dir); !r.Exact {
			t.Errorf("round %d: %s %s: %+v", round, name, what, r)
		}
		d = openTest(t, dir)
		if got := describe(d); got != want {
			t.Errorf("round %d: %s %s: after the rebuild\n%s\nwant\n%s", round, name, what, got, want)
		}
		if err := errors.Join(d.Close(), os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			return
		}
	}
}
