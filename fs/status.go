package fs

import (
	"log/slog"
	"runtime/debug"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"condafs/fault"
)

// status turns an error of cow into a reply. What an errno alone would hide from
// the people who have to mend it (a damaged blob, a disk that fails) is logged.
func (f *fileSystem) status(op string, err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	if no, ok := err.(syscall.Errno); ok {
		return fuse.Status(no)
	}
	if fault.Is(err, fault.Corrupt) || fault.Is(err, fault.IO) {
		f.log.Error("request failed", "op", op, "error", err)
	}
	return fuse.Status(fault.Errno(err))
}

// panicHandler makes a bug in one request that request's EIO, not the end of
// every client's file system.
func panicHandler(log *slog.Logger) func(any) fuse.Status {
	return func(v any) fuse.Status {
		log.Error("panic in a request, answered with EIO", "panic", v, "stack", string(debug.Stack()))
		return fuse.EIO
	}
}
