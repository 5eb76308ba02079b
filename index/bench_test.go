package index

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"condafs/hashing"

	"golang.org/x/sys/unix"
)

// Store sizes of the benchmarks, in packages: go test -bench . ./index -args -sizes 100,1000
var sizes = flag.String("sizes", "100,1000,10000", "store sizes for benchmarks, in packages")

// Of one package of the benchmarks.
const (
	benchFiles = 200
	benchBytes = 4 << 10 // of each file
)

func benchSizes(b *testing.B) []int {
	var out []int
	for _, f := range strings.Split(*sizes, ",") {
		n, err := strconv.Atoi(f)
		if err != nil {
			b.Fatal(err)
		}
		out = append(out, n)
	}
	return out
}

// fillStore makes a store of n packages. Their trees and entries are as large as real
// ones, but they share their blobs: making 2 million files takes longer than anybody
// waits, and a commit does not look at other packages' blobs.
func fillStore(b *testing.B, dir string, n int) {
	b.Helper()
	s := openTest(b, dir)
	h := s.NewHold()
	defer h.Release()
	var digests []hashing.Digest
	for i := range 4 * benchFiles {
		sums, err := s.PutBlob(h, strings.NewReader(fmt.Sprint("shared ", i)), 0)
		if err != nil {
			b.Fatal(err)
		}
		digests = append(digests, sums.Blake3)
	}
	for first := 0; first < n; first += 100 {
		update(b, s, func(tx *Tx) error {
			for i := first; i < min(first+100, n); i++ {
				tb := NewTreeBuilder(TreeEntry{Mode: 0o755, Mtime: int64(i)})
				for f := range benchFiles {
					k := (i*7 + f*3) % len(digests)
					e := TreeEntry{Kind: KindFile, Mode: 0o644, Mtime: int64(i)<<40 | int64(f), Size: int64(len(fmt.Sprint("shared ", k))), Digest: digests[k]}
					if err := tb.Add(benchName(i, f), e); err != nil {
						return err
					}
				}
				if err := putBenchPackage(tx, fmt.Sprintf("shared/pkgs/package%d-1.%d-0", i, i%10), tb); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
}

func benchName(pkg, file int) string {
	return fmt.Sprintf("lib/python3.12/site-packages/package%d/part%d/module_%d.py", pkg, file/20, file)
}

func putBenchPackage(tx *Tx, path string, tb *TreeBuilder) error {
	tree, err := tb.Build()
	if err != nil {
		return err
	}
	d, err := tx.PutTree(tree)
	if err != nil {
		return err
	}
	return tx.Put(path, Entry{Kind: KindTree, Mode: 0o755, Size: tree.Bytes(), Digest: d, Content: tree.ContentDigest()})
}

// BenchmarkCommit commits a package of 200 new files of 4 KiB, as a session does:
// files that are written and hashed are adopted, then one Update.
func BenchmarkCommit(b *testing.B) {
	for _, n := range benchSizes(b) {
		dir := b.TempDir()
		fillStore(b, dir, n)
		s := openTest(b, dir)
		i := 0
		b.Run(fmt.Sprintf("packages=%d", n), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				i++
				paths, digests := stageBenchFiles(b, s, i)
				b.StartTimer()
				if err := commitBenchFiles(b, s, i, paths, digests); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/1000/float64(b.N), "ms/commit")
		})
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func stageBenchFiles(b *testing.B, s *Store, i int) (paths []string, digests []hashing.Digest) {
	for f := range benchFiles {
		content := []byte(strings.Repeat(fmt.Sprintf("%d %d\n", i, f), benchBytes)[:benchBytes])
		path := filepath.Join(s.StagingDir(), fmt.Sprint(f))
		if err := os.WriteFile(path, content, 0o600); err != nil {
			b.Fatal(err)
		}
		paths, digests = append(paths, path), append(digests, hashing.Sum(content))
	}
	return paths, digests
}

func commitBenchFiles(b *testing.B, s *Store, i int, paths []string, digests []hashing.Digest) error {
	h := s.NewHold()
	defer h.Release()
	tb := NewTreeBuilder(TreeEntry{Mode: 0o755})
	for f, path := range paths {
		if _, err := s.AdoptFile(h, unix.AT_FDCWD, path, digests[f]); err != nil {
			return err
		}
		if err := tb.Add(benchName(i, f), TreeEntry{Kind: KindFile, Mode: 0o644, Size: benchBytes, Digest: digests[f]}); err != nil {
			return err
		}
	}
	_, err := s.Update(b.Context(), CommitInfo{What: []string{"+ bench"}}, func(tx *Tx) error {
		return putBenchPackage(tx, fmt.Sprintf("shared/pkgs/new%d-1-0", i), tb)
	})
	return err
}

// BenchmarkOpen opens and closes a store, once as it was closed and once as a killed
// daemon leaves it.
func BenchmarkOpen(b *testing.B) {
	for _, n := range benchSizes(b) {
		dir := b.TempDir()
		fillStore(b, dir, n)
		b.Run(fmt.Sprintf("packages=%d", n), func(b *testing.B) {
			for b.Loop() {
				s, err := Open(dir, Options{Logger: quiet})
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				err = errors.Join(checkFilled(s, n), s.Close())
				b.StartTimer()
				if err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/1000/float64(b.N), "ms/open")
		})
	}
}

func checkFilled(s *Store, n int) error {
	p := s.PinHead()
	defer p.Release()
	_, ok, err := p.Get(fmt.Sprintf("shared/pkgs/package%d-1.%d-0", n-1, (n-1)%10))
	if err == nil && !ok {
		err = errors.New("a package is missing")
	}
	return err
}

// BenchmarkRead looks up and lists as a view does.
func BenchmarkRead(b *testing.B) {
	for _, n := range benchSizes(b) {
		dir := b.TempDir()
		fillStore(b, dir, n)
		s := openTest(b, dir)
		p := s.PinHead()
		b.Run(fmt.Sprintf("get/packages=%d", n), func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				k := i * 7919 % n
				if _, ok, err := p.Get(fmt.Sprintf("shared/pkgs/package%d-1.%d-0", k, k%10)); err != nil || !ok {
					b.Fatal(ok, err)
				}
			}
		})
		b.Run(fmt.Sprintf("list/packages=%d", n), func(b *testing.B) {
			for b.Loop() {
				if list, err := p.List("shared/pkgs"); err != nil || len(list) != n {
					b.Fatal(len(list), err)
				}
			}
		})
		b.Run(fmt.Sprintf("tree/packages=%d", n), func(b *testing.B) {
			e, _, err := p.Get("shared/pkgs/package0-1.0-0")
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, err := s.loadTree(e.Digest); err != nil {
					b.Fatal(err)
				}
			}
		})
		p.Release()
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFill makes a store of many packages and opens it again, which is when most tables are written and merged, and tells how
// much memory of its own the process had at most: anonymous, as tables that are mapped can be dropped.
func BenchmarkFill(b *testing.B) {
	for _, n := range benchSizes(b) {
		b.Run(fmt.Sprintf("packages=%d", n), func(b *testing.B) {
			for b.Loop() {
				dir := b.TempDir()
				debug.FreeOSMemory()
				before, peak := anonymous(b), watchAnonymous(b)
				fillStore(b, dir, n)
				s := openTest(b, dir)
				p := s.PinHead()
				list, err := p.List("shared/pkgs")
				if err != nil || len(list) != n {
					b.Fatalf("%d packages, %v", len(list), err)
				}
				for _, e := range list {
					if _, err := s.Tree(e.Digest); err != nil {
						b.Fatal(err)
					}
				}
				p.Release()
				b.ReportMetric(float64(peak()-before)/(1<<20), "MiB-at-most")
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// anonymous returns the bytes of anonymous memory that are resident.
func anonymous(b *testing.B) int64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "RssAnon:")
	var kb int64
	if _, err := fmt.Sscan(rest, &kb); err != nil {
		b.Fatal(err)
	}
	return kb << 10
}

// watchAnonymous looks at it again and again, and returns what ends that and tells the most.
func watchAnonymous(b *testing.B) (peak func() int64) {
	stop, most := make(chan struct{}), make(chan int64)
	go func() {
		m := int64(0)
		for {
			m = max(m, anonymous(b))
			select {
			case <-stop:
				most <- m
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	return func() int64 {
		close(stop)
		return <-most
	}
}
