package fs

import (
	"encoding/binary"
	"math/bits"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Requests says what the kernel has asked for since this program serves the mount. What the kernel does by itself
// (passthrough reads and writes, what it has in its caches) is not in it.
type Requests struct {
	Ops    []OpRequests
	Errors []ErrnoRequests
}

// OpRequests are those of one operation.
type OpRequests struct {
	Op    string
	Took  time.Duration // all together, from the request's arrival to the reply
	Count uint64
	// Buckets count those that took less than BucketBounds[i], and the last one those that took longer than all.
	Buckets [len(BucketBounds) + 1]uint64
}

// ErrnoRequests are those that were answered with an error; ENOENT, for one, is an everyday answer.
type ErrnoRequests struct {
	Errno unix.Errno
	Count uint64
}

// BucketBounds are those of the latencies that are told apart: each is four times the one before.
var BucketBounds = [...]time.Duration{
	firstBound, firstBound << 2, firstBound << 4, firstBound << 6, firstBound << 8, firstBound << 10,
	firstBound << 12, firstBound << 14, firstBound << 16, firstBound << 18, firstBound << 20, firstBound << 22,
}

// firstBound is a power of two, of nanoseconds, so that a bucket is found by counting bits.
const firstBound = time.Duration(1) << firstBoundBits

const firstBoundBits = 12

// requests counts. Each request costs two looks at the clock and two additions, without a lock.
type requests struct {
	ops    [64]opCount // by opcode; what is beyond is the kernel's future
	errors [256]atomic.Uint64
}

type opCount struct {
	nanos   atomic.Uint64
	buckets [len(BucketBounds) + 1]atomic.Uint64
}

// bucketOf returns the bucket of what took so long.
func bucketOf(d time.Duration) int {
	return min((bits.Len64(uint64(max(d, 0))>>firstBoundBits)+1)/2, len(BucketBounds))
}

// count notes that a request was answered by reply, or without one.
func (r *requests) count(op uint32, reply []byte, took time.Duration) {
	if op >= uint32(len(r.ops)) {
		return
	}
	c := &r.ops[op]
	c.buckets[bucketOf(took)].Add(1)
	c.nanos.Add(uint64(max(took, 0)))
	if len(reply) < outHeaderSize {
		return
	}
	if errno := -int32(binary.NativeEndian.Uint32(reply[4:])); errno > 0 && int(errno) < len(r.errors) {
		r.errors[errno].Add(1)
	}
}

// Requests tells what was counted.
func (s *Server) Requests() Requests { return s.fs.device.requests.read() }

func (r *requests) read() Requests {
	var out Requests
	for op := range r.ops {
		c := &r.ops[op]
		o := OpRequests{Op: opNames[uint32(op)], Took: time.Duration(c.nanos.Load())}
		for i := range c.buckets {
			o.Buckets[i] = c.buckets[i].Load()
			o.Count += o.Buckets[i]
		}
		if o.Op == "" {
			o.Op = "other"
		}
		if o.Count > 0 {
			out.add(o)
		}
	}
	for errno := range r.errors {
		if n := r.errors[errno].Load(); n > 0 {
			out.Errors = append(out.Errors, ErrnoRequests{unix.Errno(errno), n})
		}
	}
	return out
}

// add adds up those that have the same name: RENAME and RENAME2, and all that have none.
func (r *Requests) add(o OpRequests) {
	for i := range r.Ops {
		if same := &r.Ops[i]; same.Op == o.Op {
			same.Took += o.Took
			same.Count += o.Count
			for b := range o.Buckets {
				same.Buckets[b] += o.Buckets[b]
			}
			return
		}
	}
	r.Ops = append(r.Ops, o)
}

// opNames are the names of opcodes in the kernel's linux/fuse.h.
var opNames = map[uint32]string{
	1: "lookup", opForget: "forget", 3: "getattr", 4: "setattr", 5: "readlink", 6: "symlink", 8: "mknod", 9: "mkdir", 10: "unlink",
	11: "rmdir", 12: "rename", 13: "link", 14: "open", opRead: "read", 16: "write", 17: "statfs", 18: "release", 20: "fsync",
	21: "setxattr", opGetxattr: "getxattr", opListxattr: "listxattr", 24: "removexattr", 25: "flush", opInit: "init", 27: "opendir",
	opReaddir: "readdir", 29: "releasedir", 30: "fsyncdir", 34: "access", 35: "create", opInterrupt: "interrupt", 38: "destroy",
	opIoctl: "ioctl", opPoll: "poll", opBatchForget: "forget", 43: "fallocate", opReaddirPlus: "readdirplus", 45: "rename", 46: "lseek",
	47: "copy_file_range", 51: "tmpfile", 52: "statx",
}
