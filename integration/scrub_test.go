package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"condafs/control"
	"condafs/internal/longrun"
)

// TestScrubUnderClients flips bits in, cuts and removes files of a store, and puts foreign ones there, while clients work
// and one scrub follows the other. Then nothing of it is left, the last scrub has found all that nobody else could, and
// what clients get is right.
func TestScrubUnderClients(t *testing.T) {
	t.Parallel()
	rounds, working := 4, 4
	if !longrun.Wanted() {
		rounds, working = 1, 2
	}
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	// What is linked to the blobs themselves would be damaged with them, in the environments too.
	how := []string{"off", "copy"}[rng.IntN(2)]
	s, env, m := serve(t), envs(t), newMount(t, "--shelf="+how, "--scrub=off")
	first := conda(t, s, m.pkgs(), env("first", 0), app)
	atOnce(t, first)
	mustBeRight(t, first)
	m.settle()
	packages := m.packages()
	var total control.ScrubPass
	for round := range rounds {
		// What clients read before anybody has found out may be wrong, so nothing is asked of them but that they end.
		clients := several(working, func(i int) *client { return conda(t, s, m.pkgs(), env("during", 100*round+i), app) })
		for _, c := range clients {
			c.start(t)
		}
		for range 3 {
			for range 1 + rng.IntN(3) {
				damageBlob(t, rng, m.store, nil)
			}
			m.scrub(&total)
		}
		for _, c := range clients {
			c.wait(t)
		}
		m.settle()
		m.scrub(&total)
		// What nothing refers to may be missing. Readers replace nothing, so all of this is the scrub's to find.
		m.condafs("gc")
		damaged := make(map[string]bool)
		for len(damaged) < 6 {
			if digest := damageBlob(t, rng, m.store, damaged); digest != "" {
				damaged[digest] = true
			}
		}
		stop, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			for {
				select {
				case <-stop:
					return
				default:
					readAllBelow(m.head())
				}
			}
		}()
		last := m.scrub(&total)
		close(stop)
		<-done
		for _, p := range last.Problems {
			if p.Fixed == "" {
				t.Errorf("round %d: nothing became of %+v", round, p)
			}
			delete(damaged, p.Digest)
		}
		if len(damaged) > 0 {
			t.Errorf("round %d: not found: %v in %+v", round, damaged, last)
		}
		m.allComesBack(packages, conda(t, s, m.pkgs(), env("after", round), app))
		t.Logf("--shelf=%s, round %d: in all %d found, %d mended, %d lost, %d names removed and fetched again", how, round, total.Found, total.Mended, total.Lost, total.Removed)
	}
	st := m.status()
	if st.Scrub.Last == nil || st.Scrub.Pass != nil || st.Scrub.Running || st.Scrub.Error != "" {
		t.Errorf("status: %+v", st.Scrub)
	}
	m.mustBeIntact()
}

// TestFoundByAClient: who opens a damaged file gets an error, and who comes a little later its content, without anybody's
// doing.
func TestFoundByAClient(t *testing.T) {
	t.Parallel()
	s, env, m := serve(t), envs(t), newMount(t, "--shelf=off")
	c := conda(t, s, m.pkgs(), env("first", 0), "lib00")
	atOnce(t, c)
	mustBeRight(t, c)
	m.settle()
	dir := one(t, m.head(), "lib00-", "")
	var damaged control.File
	for _, f := range query[control.PackageFiles](m, "ls", filepath.Base(dir)).Entries {
		if f.Size > 1000 && f.Blake3 != "" && !strings.HasPrefix(f.Path, "info/") {
			damaged = f
		}
	}
	if damaged.Path == "" {
		t.Fatal("nothing to damage")
	}
	object, file := filepath.Join(m.store, "objects", damaged.Blake3[:2], damaged.Blake3[2:]), filepath.Join(dir, damaged.Path)
	if err := os.Truncate(object, 10); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(file); !errors.Is(err, syscall.EIO) {
		t.Errorf("%d bytes are read, %v", len(b), err)
	}
	m.await("the file to be mended", func() bool {
		b, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, syscall.EIO) || err == nil && int64(len(b)) != damaged.Size {
			t.Fatalf("%d bytes, %v", len(b), err)
		}
		return err == nil
	})
	m.mustBeIntact()
}

// scrub has all of the store read now. What is lost makes the exit status 3.
func (m *mount) scrub(total *control.ScrubPass) control.ScrubPass {
	m.t.Helper()
	cmd := m.commandFor("scrub", "--json")
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	err := cmd.Run()
	var p control.ScrubPass
	if jsonErr := json.Unmarshal(out.Bytes(), &p); jsonErr != nil {
		m.t.Fatalf("condafs scrub: %v, %v: %s%s\n%s", err, jsonErr, out.String(), stderr.String(), tail(m.log.String()))
	}
	status := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		status = exit.ExitCode()
	}
	if want := map[bool]int{false: 0, true: 3}[p.Lost+p.Left > 0]; status != want || p.Left > 0 {
		m.t.Errorf("exit status %d, %s: %+v", status, stderr.String(), p)
	}
	total.Found += p.Found
	total.Mended += p.Mended
	total.Lost += p.Lost
	total.Removed += p.Removed
	return p
}

// damageBlob does something to a random blob, but those, and returns its digest; or "" if there is nothing to be found: it
// was put aside in that moment, or something foreign was added.
func damageBlob(t *testing.T, rng *rand.Rand, store string, but map[string]bool) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(store, "objects", "??", "*"))
	if err != nil || len(files) < 20 {
		t.Fatalf("%d blobs, %v", len(files), err)
	}
	name := files[rng.IntN(len(files))]
	digest := filepath.Base(filepath.Dir(name)) + filepath.Base(name)
	if but[digest] {
		return "" // to flip a bit twice is no damage
	}
	if rng.IntN(8) == 0 {
		if err := os.WriteFile(filepath.Join(filepath.Dir(name), "foreign"), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		return ""
	}
	before, err := os.Stat(name)
	if err == nil && before.Size() > 0 {
		err = os.Chmod(name, 0o600)
	}
	if errors.Is(err, fs.ErrNotExist) || err == nil && before.Size() == 0 || strings.HasSuffix(name, "/foreign") {
		return ""
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	removed := false
	switch rng.IntN(6) {
	case 0:
		err = os.Remove(name)
		removed = true
	case 1:
		err = f.Truncate(rng.Int64N(before.Size()))
	default:
		b, at := make([]byte, 1), rng.Int64N(before.Size())
		if _, err = f.ReadAt(b, at); err == nil {
			b[0] ^= 1 << rng.IntN(8)
			_, err = f.WriteAt(b, at)
		}
		if err == nil && rng.IntN(3) > 0 {
			err = os.Chtimes(name, before.ModTime(), before.ModTime())
		}
	}
	if err := errors.Join(err, f.Close()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	after, err := os.Stat(name)
	if !removed && (err != nil || after.Sys().(*syscall.Stat_t).Ino != before.Sys().(*syscall.Stat_t).Ino) {
		return ""
	}
	return digest
}
