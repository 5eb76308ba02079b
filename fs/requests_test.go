package fs

import (
	"encoding/binary"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestBuckets(t *testing.T) {
	if bucketOf(-1) != 0 || bucketOf(0) != 0 {
		t.Error("no time at all is not in the first bucket")
	}
	for i, bound := range BucketBounds {
		if got := bucketOf(bound - 1); got != i {
			t.Errorf("%v is in bucket %d, want %d", bound-1, got, i)
		}
		if got := bucketOf(bound); got != i+1 {
			t.Errorf("%v is in bucket %d, want %d", bound, got, i+1)
		}
	}
	if got := bucketOf(time.Hour); got != len(BucketBounds) {
		t.Errorf("an hour is in bucket %d", got)
	}
}

func TestRequestsAreCounted(t *testing.T) {
	var r requests
	reply := func(errno unix.Errno) []byte {
		b := make([]byte, outHeaderSize)
		binary.NativeEndian.PutUint32(b[4:], uint32(-int32(errno)))
		return b
	}
	r.count(opRead, reply(0), 5*time.Microsecond)
	r.count(opRead, reply(unix.EIO), time.Millisecond)
	r.count(12, reply(0), time.Second) // RENAME
	r.count(45, reply(0), time.Second) // RENAME2
	r.count(opForget, nil, 0)
	r.count(1<<20, reply(0), 0)                 // of the kernel's future
	r.count(opRead, reply(unix.Errno(4000)), 0) // of nobody
	got := map[string]OpRequests{}
	for _, o := range r.read().Ops {
		got[o.Op] = o
	}
	if o := got["read"]; o.Count != 3 || o.Took != 1005*time.Microsecond || o.Buckets[1] != 1 {
		t.Errorf("read: %+v", o)
	}
	if o := got["rename"]; o.Count != 2 || o.Took != 2*time.Second {
		t.Errorf("rename: %+v", o)
	}
	if o := got["forget"]; o.Count != 1 {
		t.Errorf("forget: %+v", o)
	}
	if e := r.read().Errors; len(e) != 1 || e[0] != (ErrnoRequests{unix.EIO, 1}) {
		t.Errorf("errors: %v", e)
	}
}

// What counting costs each request.
func BenchmarkCount(b *testing.B) {
	var r requests
	reply := make([]byte, outHeaderSize)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			began := time.Now()
			r.count(opRead, reply, time.Since(began))
		}
	})
}
