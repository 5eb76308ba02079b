package handover

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"maps"
	"os"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"condafs/fault"
)

// all has something of each kind that is handed over.
type all struct {
	Flag    bool
	Small   int8
	Number  int64
	Large   uint64
	Text    string
	Bytes   []byte
	Digest  [4]byte
	List    []inner
	Numbers []int
	Map     map[string]uint64
	Maybe   *inner
	Inner   inner
	When    time.Time
	Digests map[string][4]byte
}

type inner struct {
	Name string
	N    uint32
	Next *inner
}

func draw(t *rapid.T) all {
	in := rapid.Custom(func(t *rapid.T) inner {
		i := inner{Name: rapid.String().Draw(t, "name"), N: rapid.Uint32().Draw(t, "n")}
		if rapid.Bool().Draw(t, "more") {
			i.Next = &inner{Name: "\xff\x00 is no UTF-8"}
		}
		return i
	})
	maybe := func() *inner {
		if rapid.Bool().Draw(t, "there") {
			i := in.Draw(t, "maybe")
			return &i
		}
		return nil
	}
	return all{
		Flag: rapid.Bool().Draw(t, "flag"), Small: rapid.Int8().Draw(t, "small"), Number: rapid.Int64().Draw(t, "number"), Large: rapid.Uint64().Draw(t, "large"),
		Text: rapid.String().Draw(t, "text"), Bytes: rapid.SliceOf(rapid.Byte()).Draw(t, "bytes"), Digest: [4]byte{rapid.Byte().Draw(t, "digest")},
		List: rapid.SliceOf(in).Draw(t, "list"), Numbers: rapid.SliceOf(rapid.Int()).Draw(t, "numbers"),
		Map: rapid.MapOf(rapid.String(), rapid.Uint64()).Draw(t, "map"), Maybe: maybe(), Inner: in.Draw(t, "inner"),
		When:    time.Unix(rapid.Int64Range(0, 1<<32).Draw(t, "when"), 5).UTC(),
		Digests: map[string][4]byte{"a": {1, 2}, "": {}},
	}
}

func TestValuesComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := draw(t)
		img := &Image{}
		if err := errors.Join(img.Put("a", want), img.Put("b", []string{"x"})); err != nil {
			t.Fatal(err)
		}
		read, err := Decode(img.Encode())
		if err != nil {
			t.Fatal(err)
		}
		var got all
		if err := read.Get("a", &got); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got\n%+v\nwant\n%+v", got, want)
		}
		if !bytes.Equal(read.sections["b"], img.sections["b"]) || read.Has("c") {
			t.Error("another section is not as it was")
		}
	})
}

// TestOtherFields reads what programs have written that knew other fields.
func TestOtherFields(t *testing.T) {
	type before struct {
		Text string
		Gone []map[string]inner
		N    int
	}
	type after struct {
		New  *inner
		N    int
		Text string
	}
	var v all
	for _, c := range []struct{ in, out, want any }{
		{before{"a", []map[string]inner{{"x": {Name: "y", Next: &inner{N: 3}}}}, 7}, &after{New: &inner{}}, &after{nil, 7, "a"}},
		{after{&inner{Name: "x"}, 9, "b"}, &before{}, &before{"b", nil, 9}},
		{struct{}{}, &after{}, &after{}},
	} {
		b, err := encode(c.in)
		if err == nil {
			err = decode(b, c.out)
		}
		if err != nil || !reflect.DeepEqual(c.out, c.want) {
			t.Errorf("%+v became %+v: %v", c.in, c.out, err)
		}
	}
	for _, in := range []any{struct{ Text int }{5}, struct{ Small int }{300}, struct{ List string }{"x"}, struct{ Map []int }{[]int{1}}, struct{ Digest []byte }{make([]byte, 5)},
		struct{ When int }{1}, struct{ Flag uint }{2}, struct{ Inner []int }{[]int{}}} {
		b, err := encode(in)
		if err != nil {
			t.Fatal(err)
		}
		if err := decode(b, &v); !errors.Is(err, errImage) {
			t.Errorf("%+v was taken: %v", in, err)
		}
	}
}

func TestWhatCannotGoOver(t *testing.T) {
	for _, v := range []any{struct{ hidden int }{1}, struct{ F func() }{func() {}}, 1.5, make(chan int), []any{1}} {
		if err := (&Image{}).Put("x", v); err == nil {
			t.Errorf("%T goes over", v)
		}
	}
}

func TestDamagedImages(t *testing.T) {
	img := &Image{}
	if err := errors.Join(img.Put("one", []int{1, 2, 3}), img.Put("two", "x")); err != nil {
		t.Fatal(err)
	}
	whole := img.Encode()
	for i := range whole {
		b := bytes.Clone(whole)
		b[i] ^= 1
		if _, err := Decode(b); err == nil {
			t.Fatalf("byte %d may be another", i)
		}
		if _, err := Decode(whole[:i]); !fault.Is(err, fault.Corrupt) {
			t.Fatalf("%d bytes are an image: %v", i, err)
		}
	}
	other := bytes.Clone(whole)
	binary.BigEndian.PutUint32(other[len(magic):], Version+1)
	if _, err := Decode(other); !fault.Is(err, fault.Version) || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("another version: %v", err)
	}
	var l []int
	for name, v := range map[string]any{"three": &l, "two": &l} {
		if err := img.Get(name, v); !fault.Is(err, fault.Corrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestImageInMemory(t *testing.T) {
	img := &Image{}
	if err := img.Put("a", "b"); err != nil {
		t.Fatal(err)
	}
	f, err := img.Store()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // it can be read again, by the program that comes back
		got, err := Load(f)
		if err != nil || !maps.EqualFunc(got.sections, img.sections, bytes.Equal) {
			t.Errorf("%v %v", got, err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if _, err := Load(dir); !fault.Is(err, fault.Corrupt) {
		t.Errorf("a directory: %v", err)
	}
}

// FuzzImage reads what may be anything, past the checksum: what is made of it takes no more than a multiple of it.
func FuzzImage(f *testing.F) {
	b, err := encode(all{Text: "x", Map: map[string]uint64{"a": 1}, List: []inner{{Name: "n", Next: &inner{}}}, When: time.Unix(5, 0), Numbers: []int{1}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{kindMap, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Add([]byte{kindStruct, 1, 0, 3, 'M', 'a', 'p', kindMap, 0x80, 0x80, 0x80, 0x80, 0x08})
	f.Fuzz(func(t *testing.T, b []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		var v all
		err := decode(b, &v)
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > 1<<16+2048*uint64(len(b)) {
			t.Errorf("%d bytes for an image of %d", used, len(b))
		}
		if err == nil {
			again, err := encode(v)
			if err != nil {
				t.Fatal(err)
			}
			var w all
			err = decode(again, &w)
			v.When, w.When = time.Time{}, time.Time{} // it reads what it would not write
			if err != nil || !reflect.DeepEqual(v, w) {
				t.Errorf("read %+v, and again %+v: %v", v, w, err)
			}
		}
		// The same as a whole image, whose checksum is right.
		c := append(binary.BigEndian.AppendUint32([]byte(magic), Version), b...)
		sum := sha256.Sum256(c)
		if img, err := Decode(append(c, sum[:]...)); err == nil {
			for _, name := range img.order {
				_ = img.Get(name, &v) // must come back
			}
		}
	})
}
