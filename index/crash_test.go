package index

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"

	"condafs/hashing"
	"condafs/internal/longrun"
	"condafs/internal/racetest"
)

// crashEnv makes this test binary a child that commits until it is killed. lifeEnv counts
// such children, bootEnv says that the machine has started again before each.
const (
	crashEnv = "CONDAFS_INDEX_CRASH_DIR"
	lifeEnv  = "CONDAFS_INDEX_CRASH_LIFE"
	bootEnv  = "CONDAFS_INDEX_CRASH_BOOT"
	closeEnv = "CONDAFS_INDEX_CRASH_CLOSE" // it makes one commit, and says how the store closed
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashEnv); dir != "" {
		if os.Getenv(bootEnv) != "" {
			bootID = func() string { return "boot " + os.Getenv(lifeEnv) }
		}
		if err := commitForEver(dir); err != nil {
			fmt.Println("failed", err)
			os.Exit(1)
		}
	}
	if dir := os.Getenv(dumpEnv); dir != "" {
		os.Exit(dump(dir))
	}
	if err := racetest.Children(); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// commitForEver commits small packages, a large group now and then, deletions and
// collections, from several goroutines, and says what was committed: it holds from
// then on.
func commitForEver(dir string) error {
	s, err := Open(dir, Options{Logger: quiet})
	if err != nil {
		return err
	}
	if os.Getenv(closeEnv) != "" {
		err := commitPackage(s, "w/1", "1", false)
		fmt.Println("committed", err)
		fmt.Println("closed", s.Close())
		os.Exit(0)
	}
	life, err := strconv.Atoi(cmp.Or(os.Getenv(lifeEnv), "0"))
	if err != nil {
		return err
	}
	var say sync.Mutex
	failed := make(chan error)
	for w := range 3 {
		go func() {
			for i := life * 100_000; ; i++ { // later lives have later numbers
				content := fmt.Sprintf("%d-%d-%d", os.Getpid(), w, i)
				path := fmt.Sprintf("w%d/%s", w, content)
				err := commitPackage(s, path, content, w == 0 && i%50 == 20)
				if err == nil && i%25 == 24 {
					_, err = s.GC(context.Background(), GCOptions{}, nil)
				}
				if err != nil {
					failed <- err
					return
				}
				say.Lock()
				fmt.Println("done", path)
				say.Unlock()
			}
		}()
	}
	return <-failed
}

// commitPackage replaces what is in the package's directory by one with this content
// in two files, and if large by many links beside it.
func commitPackage(s *Store, path, content string, large bool) error {
	h := s.NewHold()
	defer h.Release()
	b := NewTreeBuilder(TreeEntry{})
	for _, c := range []string{content, "common"} {
		sums, err := s.PutBlob(h, strings.NewReader(c), 0)
		if err != nil {
			return err
		}
		if err := b.Add("lib/"+c, TreeEntry{Kind: KindFile, Size: sums.Size, Digest: sums.Blake3}); err != nil {
			return err
		}
	}
	tree, err := b.Build()
	if err != nil {
		return err
	}
	dir := path[:strings.IndexByte(path, '/')]
	_, err = s.Update(context.Background(), CommitInfo{}, func(tx *Tx) error {
		d, err := tx.PutTree(tree)
		if err != nil {
			return err
		}
		if err := tx.Delete(dir); err != nil {
			return err
		}
		if large {
			for i := range 13_000 {
				if err := tx.Put(fmt.Sprintf("%s/many/%d", dir, i), Entry{Kind: KindSymlink, Link: content}); err != nil {
					return err
				}
			}
		}
		return tx.Put(path, Entry{Kind: KindTree, Digest: d, Size: tree.Bytes()})
	})
	return err
}

// A child is killed at any moment, over and over on the same store. Each time it
// opens, has what was said to be committed or something newer, whole, and every blob
// that it refers to.
func TestKilledDaemon(t *testing.T) {
	rounds := 6
	if !longrun.Wanted() {
		rounds = 2
	}
	dir := memDir(t)
	rng := rand.New(rand.NewPCG(rand.Uint64(), 0))
	for round := range rounds {
		last := runAndKill(t, dir, rng.IntN(120))
		s, err := Open(dir, Options{Logger: quiet})
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if err := checkAfterCrash(s, last); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// runAndKill returns the last package of each directory that the child said it has
// committed.
func runAndKill(t *testing.T, dir string, after int) map[string]string {
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
	last := make(map[string]string)
	lines := bufio.NewScanner(out)
	for n := 0; lines.Scan(); n++ {
		word, path, _ := strings.Cut(lines.Text(), " ")
		if word != "done" {
			t.Fatalf("the child says %q", lines.Text())
		}
		worker, name, _ := strings.Cut(path, "/")
		last[worker] = name
		if n == after {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != -1 {
		t.Fatalf("the child was not killed: %v", err)
	}
	return last
}

func checkAfterCrash(s *Store, last map[string]string) error {
	p := s.PinHead()
	defer p.Release()
	for worker, said := range last {
		list, err := p.List(worker)
		if err != nil {
			return err
		}
		packages := 0
		for _, e := range list {
			switch e.Kind {
			case KindTree:
				packages++
				if number(e.Name) < number(said) {
					return fmt.Errorf("%s has %s, which is older than %s", worker, e.Name, said)
				}
				if err := checkPackage(s, e); err != nil {
					return err
				}
			case KindDir:
				many, err := p.List(worker + "/" + e.Name)
				if err != nil || len(many) != 13_000 {
					return fmt.Errorf("%s has a part of a group: %d entries, %v", worker, len(many), err)
				}
			}
		}
		if packages != 1 {
			return fmt.Errorf("%s has %d packages", worker, packages)
		}
	}
	r, err := s.Verify(context.Background(), VerifyOptions{Full: true}, nil)
	if err == nil && len(r.Problems) > 0 {
		err = fmt.Errorf("problems: %+v", r.Problems)
	}
	if err == nil {
		_, err = s.GC(context.Background(), GCOptions{}, nil)
	}
	return err
}

func checkPackage(s *Store, e DirEntry) error {
	tree, err := s.loadTree(e.Digest)
	if err != nil {
		return err
	}
	if _, ok := tree.Find("lib/" + e.Name); !ok || tree.Len() != 4 || !s.HasBlob(hashing.Sum([]byte(e.Name))) {
		return fmt.Errorf("%s is not whole", e.Name)
	}
	return nil
}

// number is the counter at the end of a package's name.
func number(name string) int {
	n, err := strconv.Atoi(name[strings.LastIndexByte(name, '-')+1:])
	if err != nil {
		return -1
	}
	return n
}
