package fault

import (
	"context"
	"errors"
	"io/fs"
	"syscall"
)

// KindOf returns the kind of the outermost *Error in err's chain that has one, or
// else the kind of the operating system's error below. It is Other for nil.
func KindOf(err error) Kind {
	for e := err; e != nil; {
		f, ok := errors.AsType[*Error](e)
		if !ok {
			break
		}
		if f.Kind != Other {
			return f.Kind
		}
		e = f.Err
	}
	return kindOfCause(err)
}

// Is reports whether err is of kind k.
func Is(err error, k Kind) bool { return err != nil && KindOf(err) == k }

func kindOfCause(err error) Kind {
	if no, ok := errors.AsType[syscall.Errno](err); ok {
		return kindOfErrno(no)
	}
	switch {
	case err == nil:
		return Other
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return Canceled
	case errors.Is(err, fs.ErrNotExist):
		return NotFound
	case errors.Is(err, fs.ErrExist):
		return Exists
	case errors.Is(err, fs.ErrPermission):
		return Permission
	case errors.Is(err, errors.ErrUnsupported):
		return Unsupported
	}
	return Other
}

func kindOfErrno(no syscall.Errno) Kind {
	switch no {
	case syscall.ENOENT, syscall.ENOTDIR, syscall.ENXIO:
		return NotFound
	case syscall.EEXIST, syscall.ENOTEMPTY:
		return Exists
	case syscall.EACCES, syscall.EPERM:
		return Permission
	case syscall.ENOSPC, syscall.EDQUOT:
		return Full
	case syscall.EROFS:
		return ReadOnly
	case syscall.EBUSY, syscall.EAGAIN, syscall.ETXTBSY, syscall.EDEADLK:
		return Busy
	case syscall.EINVAL, syscall.ENAMETOOLONG, syscall.EISDIR, syscall.ELOOP:
		return Usage
	case syscall.ENOSYS, syscall.EOPNOTSUPP, syscall.EXDEV:
		return Unsupported
	case syscall.EINTR, syscall.ECANCELED:
		return Canceled
	case syscall.EIO, syscall.EPIPE, syscall.ECONNRESET:
		return IO
	case syscall.ESTALE:
		return Stale
	case syscall.ENOTCONN, syscall.ECONNREFUSED:
		return NotMounted
	case syscall.EMFILE, syscall.ENFILE, syscall.EMLINK, syscall.EFBIG, syscall.E2BIG:
		return TooMany
	case syscall.EBADMSG, syscall.EUCLEAN:
		return Corrupt
	}
	return Other
}

// errnos is what a client of the mount sees for a kind.
var errnos = map[Kind]syscall.Errno{
	Usage:       syscall.EINVAL,
	NotFound:    syscall.ENOENT,
	Exists:      syscall.EEXIST,
	Corrupt:     syscall.EIO,
	Busy:        syscall.EBUSY,
	Permission:  syscall.EACCES,
	Full:        syscall.ENOSPC,
	ReadOnly:    syscall.EROFS,
	Version:     syscall.EIO,
	NotMounted:  syscall.ENOTCONN,
	Unsupported: syscall.EOPNOTSUPP,
	Canceled:    syscall.EINTR,
	IO:          syscall.EIO,
	Stale:       syscall.ESTALE,
	TooMany:     syscall.ENFILE,
}

// Errno returns what to answer a system call with: 0 for nil, the errno that err
// wraps if there is one, else one that fits its kind, else EIO.
//
// Corrupt is always EIO: the errno below it (an ENOENT, say, of a missing blob)
// would tell a client that its file does not exist.
func Errno(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	k := KindOf(err)
	if k == Corrupt {
		return syscall.EIO
	}
	if no, ok := errors.AsType[syscall.Errno](err); ok && no != 0 {
		return no
	}
	if no, ok := errnos[k]; ok {
		return no
	}
	return syscall.EIO
}
