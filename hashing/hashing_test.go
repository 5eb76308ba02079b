package hashing

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"condafs/fault"

	"pgregory.net/rapid"
)

// emptyHex is BLAKE3's published digest of no bytes.
const emptyHex = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"

func TestSumOfNothing(t *testing.T) {
	if got := Sum(nil).String(); got != emptyHex {
		t.Errorf("Sum(nil) = %s", got)
	}
}

func TestParseDigest(t *testing.T) {
	tests := []struct {
		name, in string
		ok       bool
	}{
		{"good", emptyHex, true},
		{"zero", strings.Repeat("0", 64), true},
		{"empty", "", false},
		{"short", emptyHex[1:], false},
		{"long", emptyHex + "0", false},
		{"upper case", strings.ToUpper(emptyHex), false},
		{"not hex", "g" + emptyHex[1:], false},
		{"path", "../" + emptyHex[3:], false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, err := ParseDigest(tt.in)
			if (err == nil) != tt.ok {
				t.Fatalf("err = %v", err)
			}
			if tt.ok && d.String() != tt.in {
				t.Errorf("round trip gave %s", d)
			}
			if !tt.ok && !fault.Is(err, fault.Usage) {
				t.Errorf("kind %v", fault.KindOf(err))
			}
		})
	}
}

func FuzzParseDigest(f *testing.F) {
	f.Add(emptyHex)
	f.Add("")
	f.Add(strings.ToUpper(emptyHex))
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDigest(s)
		if err == nil && d.String() != s {
			t.Errorf("%q parsed to %s", s, d)
		}
	})
}

func TestDigestInJSON(t *testing.T) {
	type pair struct{ A, B Digest }
	in := pair{A: Sum([]byte("x"))}
	b, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var out pair
	if err := json.Unmarshal(b, &out); err != nil || out != in {
		t.Errorf("%s gave %v, %v", b, out, err)
	}
	if err := json.Unmarshal([]byte(`{"A":"zz"}`), &out); err == nil {
		t.Error("a bad digest was taken")
	}
}

// Hashing in pieces must give what each algorithm gives in one go.
func TestHasherProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		chunks := rapid.SliceOf(rapid.SliceOf(rapid.Byte())).Draw(t, "chunks")
		extra := Extra(rapid.IntRange(0, 3).Draw(t, "extra"))
		h := New(extra)
		if rapid.Bool().Draw(t, "reset") {
			h.Write([]byte("rubbish"))
			h.Reset()
		}
		for _, c := range chunks {
			h.Write(c)
		}
		all := bytes.Join(chunks, nil)
		want := Sums{Blake3: Sum(all), Size: int64(len(all)), Has: extra}
		if extra&SHA256 != 0 {
			want.SHA256 = sha256.Sum256(all)
		}
		if extra&MD5 != 0 {
			want.MD5 = md5.Sum(all)
		}
		if got := h.Sums(); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if got := h.Sums(); got != want {
			t.Errorf("a second time: %+v", got)
		}
		got, err := Reader(bytes.NewReader(all), extra)
		if err != nil || got != want {
			t.Errorf("Reader: %+v, %v", got, err)
		}
	})
}

func TestFileKeepsTheOffset(t *testing.T) {
	data := bytes.Repeat([]byte("condafs"), 100_000)
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Seek(11, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	s, err := File(f, SHA256)
	if err != nil {
		t.Fatal(err)
	}
	if s.Blake3 != Sum(data) || s.Size != int64(len(data)) || s.SHA256 != sha256.Sum256(data) {
		t.Errorf("wrong sums %+v", s)
	}
	if off, err := f.Seek(0, io.SeekCurrent); err != nil || off != 11 {
		t.Errorf("offset moved to %d, %v", off, err)
	}
}

func TestReaderError(t *testing.T) {
	boom := errors.New("boom")
	if _, err := Reader(io.MultiReader(strings.NewReader("x"), failing{boom}), 0); !errors.Is(err, boom) {
		t.Errorf("err = %v", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestPoolRunsAllWithinItsBound(t *testing.T) {
	p := NewPool(3)
	var running, most, done atomic.Int64
	var callers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			err := p.Each(t.Context(), 50, func(context.Context, int) error {
				n := running.Add(1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				done.Add(1)
				running.Add(-1)
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	callers.Wait()
	if done.Load() != 200 || most.Load() > 3 {
		t.Errorf("%d done, %d at once", done.Load(), most.Load())
	}
}

func TestPoolStopsAtTheFirstError(t *testing.T) {
	boom := errors.New("boom")
	calls := 0
	err := NewPool(1).Each(t.Context(), 100, func(_ context.Context, i int) error {
		calls++
		if i == 5 {
			return boom
		}
		return nil
	})
	if !errors.Is(err, boom) || calls != 6 {
		t.Errorf("err = %v after %d calls", err, calls)
	}
}

func TestPoolCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	err := NewPool(2).Each(ctx, 100, func(ctx context.Context, i int) error {
		cancel()
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v", err)
	}
	if err := NewPool(0).Each(ctx, 0, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled context with nothing to do: %v", err)
	}
}

func BenchmarkReader(b *testing.B) {
	data := make([]byte, 8<<20)
	for _, c := range []struct {
		name  string
		extra Extra
	}{{"blake3", 0}, {"blake3+sha256", SHA256}, {"blake3+sha256+md5", SHA256 | MD5}} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				if _, err := Reader(bytes.NewReader(data), c.extra); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
