package index

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"condafs/fault"
	"condafs/hashing"

	"golang.org/x/sys/unix"
)

func collect(t testing.TB, s *Store) GCReport {
	t.Helper()
	r, err := s.GC(t.Context(), GCOptions{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestGCKeepsWhatIsReferredTo(t *testing.T) {
	s := newStore(t)
	content := func(name string) hashing.Digest { return hashing.Sum([]byte(name)) }
	expect := func(when string, there, gone []string) {
		t.Helper()
		for _, name := range there {
			if !s.HasBlob(content(name)) {
				t.Errorf("%s: %s is gone", when, name)
			}
		}
		for _, name := range gone {
			if s.HasBlob(content(name)) {
				t.Errorf("%s: %s is still there", when, name)
			}
		}
	}
	pkg := putPackage(t, s, "a-1-0", map[string]string{"lib/x": "package", "lib/shared": "shared"})
	putFile(t, s, "shared", "shared")
	putFile(t, s, "pinned", "pinned")
	putFile(t, s, "session", "session")
	pin := s.PinHead()
	defer pin.Release()
	if err := s.PutSession(SessionRecord{ID: "s", Seq: s.Head()}); err != nil {
		t.Fatal(err)
	}
	putFile(t, s, "between", "between") // no state that anybody keeps has it
	for _, path := range []string{"a-1-0", "pinned", "session", "between"} {
		update(t, s, func(tx *Tx) error { return tx.Delete(path) })
	}
	hold := s.NewHold()
	defer hold.Release()
	if _, err := s.PutBlob(hold, strings.NewReader("held"), 0); err != nil {
		t.Fatal(err)
	}
	loose := s.NewHold()
	if _, err := s.PutBlob(loose, strings.NewReader("loose"), 0); err != nil {
		t.Fatal(err)
	}
	loose.Release()

	dry, err := s.GC(t.Context(), GCOptions{DryRun: true}, nil)
	if err != nil || dry.Blobs != 2 || dry.Trees != 0 {
		t.Errorf("dry run: %+v, %v", dry, err)
	}
	expect("dry run", []string{"between", "loose"}, nil)
	if r := collect(t, s); r != dry {
		t.Errorf("collected %+v, the dry run said %+v", r, dry)
	}
	expect("pinned", []string{"package", "shared", "pinned", "session", "held"}, []string{"between", "loose"})
	if _, err := s.loadTree(pkg.Digest()); err != nil {
		t.Error(err)
	}

	pin.Release()
	pin.Release() // harmless
	if r := collect(t, s); r.Blobs != 0 {
		t.Errorf("the session's state lost %d blobs", r.Blobs)
	}
	held := s.NewHold()
	held.Tree(pkg.Digest())
	if err := s.DeleteSession("s"); err != nil {
		t.Fatal(err)
	}
	collect(t, s)
	expect("tree held", []string{"package", "shared", "held"}, []string{"pinned", "session"})
	held.Release()
	if r := collect(t, s); r.Trees != 1 || r.Blobs != 1 {
		t.Errorf("%+v", r)
	}
	expect("at last", []string{"shared", "held"}, []string{"package"})
	if _, err := s.loadTree(pkg.Digest()); !fault.Is(err, fault.Corrupt) {
		t.Errorf("the tree: %v", err)
	}
	// What was collected can be put again.
	putPackage(t, s, "a-1-0", map[string]string{"lib/x": "package", "lib/shared": "shared"})
	expect("again", []string{"package"}, nil)
	if stats, err := s.Stats(); err != nil || stats.Blobs != 3 || stats.ObjectBytes != int64(len("shared")+len("held")+len("package")) {
		t.Errorf("%+v, %v", stats, err)
	}
}

func TestGCStopsWhenCanceled(t *testing.T) {
	s := newStore(t)
	putFile(t, s, "a", "a")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.GC(ctx, GCOptions{}, nil); !fault.Is(err, fault.Canceled) {
		t.Errorf("err = %v", err)
	}
	if _, err := s.Verify(ctx, VerifyOptions{}, nil); !fault.Is(err, fault.Canceled) {
		t.Errorf("verify: %v", err)
	}
}

func TestGCOfADamagedStoreRemovesNothing(t *testing.T) {
	s := newStore(t)
	tree := putPackage(t, s, "a-1-0", map[string]string{"x": "x"})
	if err := s.writeRecord(op{key: partKey(treePrefix(tree.Digest()), 0)}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.GC(t.Context(), GCOptions{}, nil); !fault.Is(err, fault.Corrupt) {
		t.Errorf("err = %v", err)
	}
	if !s.HasBlob(hashing.Sum([]byte("x"))) {
		t.Error("it removed a blob of a tree that it cannot read")
	}
}

func TestGCForgetsOldCommitRecords(t *testing.T) {
	s := newStore(t)
	newest := putFile(t, s, "a", "a")
	var ops []op
	for i := range keptCommits + 5 { // of seq 0: older than any
		ops = append(ops, op{key: commitKey(0, i), value: []byte("{}")})
	}
	_, err := s.commits.do(t.Context(), &request{prepare: func(b *batch) error { b.records = ops; return nil }})
	if err != nil {
		t.Fatal(err)
	}
	collect(t, s)
	log, err := s.Log(0)
	if err != nil || len(log) != keptCommits || log[0].Seq != newest {
		t.Errorf("%d records, %v", len(log), err)
	}
}

// Sessions commit, pin, read and delete a few contents over and over while garbage is
// collected all the time: whatever a state refers to must be there.
func TestGCBesideCommits(t *testing.T) {
	s := newStore(t)
	const workers, rounds = 4, 60
	var clients, collector sync.WaitGroup
	ctx, stop := context.WithCancel(context.Background())
	collector.Go(func() {
		for ctx.Err() == nil {
			if _, err := s.GC(ctx, GCOptions{}, nil); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		}
	})
	for w := range workers {
		clients.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 1))
			for range rounds {
				if err := churn(s, rng, fmt.Sprintf("p%d", rng.IntN(5))); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	clients.Wait()
	stop()
	collector.Wait()
	r, err := s.Verify(t.Context(), VerifyOptions{Full: true}, nil)
	if err != nil || len(r.Problems) > 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

// churn commits or deletes one package, and reads all of a snapshot.
func churn(s *Store, rng *rand.Rand, path string) error {
	h := s.NewHold()
	defer h.Release()
	if rng.IntN(3) == 0 {
		_, err := s.Update(context.Background(), CommitInfo{}, func(tx *Tx) error { return tx.Delete(path) })
		if err != nil {
			return err
		}
	} else {
		b := NewTreeBuilder(TreeEntry{Mode: 0o755})
		for i := range 3 {
			name := filepath.Join(s.StagingDir(), fmt.Sprintf("%p-%d-%d", rng, i, rng.Uint64()))
			content := []byte(fmt.Sprint("content ", rng.IntN(8)))
			if err := os.WriteFile(name, content, 0o600); err != nil {
				return err
			}
			if _, err := s.AdoptFile(h, unix.AT_FDCWD, name, hashing.Sum(content)); err != nil {
				return err
			}
			if err := b.Add(fmt.Sprint(i), TreeEntry{Kind: KindFile, Size: int64(len(content)), Digest: hashing.Sum(content)}); err != nil {
				return err
			}
		}
		tree, err := b.Build()
		if err != nil {
			return err
		}
		_, err = s.Update(context.Background(), CommitInfo{}, func(tx *Tx) error {
			d, err := tx.PutTree(tree)
			return errors.Join(err, tx.Put(path, Entry{Kind: KindTree, Digest: d, Mode: 0o755}))
		})
		if err != nil {
			return err
		}
	}
	p := s.PinHead()
	defer p.Release()
	return checkReachable(s, p)
}

func checkReachable(s *Store, p *Snapshot) error {
	list, err := p.List("")
	if err != nil {
		return err
	}
	for _, e := range list {
		t, err := s.loadTree(e.Digest)
		if err != nil {
			return err
		}
		for path, te := range t.All() {
			f, err := s.OpenBlobSize(te.Digest, te.Size)
			if err != nil {
				return fmt.Errorf("%s/%s of %d: %w", e.Name, path, p.Seq(), err)
			}
			if err := f.Close(); err != nil {
				return err
			}
		}
	}
	return nil
}
