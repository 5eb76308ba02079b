package index

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"condafs/hashing"
)

func TestVerify(t *testing.T) {
	d := func(content string) hashing.Digest { return hashing.Sum([]byte(content)) }
	overwrite := func(s *Store, content, by string) error {
		path := s.blobPath(d(content))
		return errors.Join(os.Chmod(path, 0o600), os.WriteFile(path, []byte(by), 0o600))
	}
	// unseen is what a flip that leaves no trace looks like: bad memory, a bad disk.
	unseen := func(s *Store, content, by string) error {
		return errors.Join(overwrite(s, content, by), os.Chtimes(s.blobPath(d(content)), blobTime, blobTime))
	}
	paths := []string{"other", "pkgs/a-1-0/bin/shared", "pkgs/b-1-0/shared"}
	tests := []struct {
		name   string
		damage func(s *Store) error
		quick  []Problem // Kind and Paths are compared
		full   []Problem
	}{
		{"nothing", func(*Store) error { return nil }, nil, nil},
		{"touched only", func(s *Store) error { return os.Chtimes(s.blobPath(d("shared")), time.Now(), time.Now()) }, nil, nil},
		{"missing", func(s *Store) error { return os.Remove(s.blobPath(d("shared"))) },
			[]Problem{{Kind: Missing, Paths: paths}}, []Problem{{Kind: Missing, Paths: paths}}},
		{"truncated", func(s *Store) error { return unseen(s, "shared", "sha") },
			[]Problem{{Kind: Size, Paths: paths}}, []Problem{{Kind: Size, Paths: paths}}},
		{"flipped by a write", func(s *Store) error { return overwrite(s, "shared", "sHared") },
			[]Problem{{Kind: Content, Paths: paths}}, []Problem{{Kind: Content, Paths: paths}}},
		{"flipped unseen", func(s *Store) error { return unseen(s, "shared", "sHared") },
			nil, []Problem{{Kind: Content, Paths: paths}}},
		{"flipped garbage", func(s *Store) error { return unseen(s, "garbage", "Garbage") },
			nil, []Problem{{Kind: Content}}},
		{"foreign", func(s *Store) error {
			return errors.Join(os.WriteFile(filepath.Join(s.dir, "objects/note"), nil, 0o600), os.WriteFile(filepath.Join(s.dir, "objects/ab/note"), nil, 0o600))
		}, []Problem{{Kind: Foreign}, {Kind: Foreign}}, []Problem{{Kind: Foreign}, {Kind: Foreign}}},
		{"lost tree", func(s *Store) error {
			p := s.PinHead()
			defer p.Release()
			e, _, err := p.Get("pkgs/b-1-0")
			return errors.Join(err, s.writeRecord(op{key: partKey(treePrefix(e.Digest), 0)}))
		}, []Problem{{Kind: BadTree, Paths: []string{"pkgs/b-1-0"}}}, []Problem{{Kind: BadTree, Paths: []string{"pkgs/b-1-0"}}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newStore(t)
			putPackage(t, s, "pkgs/a-1-0", map[string]string{"bin/shared": "shared", "a": "a"})
			putPackage(t, s, "pkgs/b-1-0", map[string]string{"shared": "shared", "b": "b"})
			putFile(t, s, "other", "shared")
			putFile(t, s, "gone", "garbage")
			update(t, s, func(tx *Tx) error { return tx.Delete("gone") })
			if err := tt.damage(s); err != nil {
				t.Fatal(err)
			}
			for _, full := range []bool{false, true} {
				want := tt.quick
				if full {
					want = tt.full
				}
				last := int64(0)
				r, err := s.Verify(t.Context(), VerifyOptions{Full: full}, func(done, total int64) {
					if done < last || done > total {
						t.Errorf("progress %d of %d after %d", done, total, last)
					}
					last = done
				})
				if err != nil {
					t.Fatal(err)
				}
				same := slices.EqualFunc(r.Problems, want, func(a, b Problem) bool {
					slices.Sort(a.Paths)
					return a.Kind == b.Kind && slices.Equal(a.Paths, b.Paths) && a.Detail != ""
				})
				if !same {
					t.Errorf("full %v: %+v", full, r.Problems)
				}
				if full && r.Hashed+int64(len(r.Problems)) < 4 {
					t.Errorf("hashed %d blobs", r.Hashed)
				}
			}
		})
	}
}
