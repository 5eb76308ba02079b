package fs

import (
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Requests of ioctl(2) to /dev/fuse.
const (
	iocBackingOpen  = 0x4010e501
	iocBackingClose = 0x4004e502
)

// openBacking registers a native file that the kernel may read and write in our stead.
func (d *device) openBacking(file int) (id int32, err error) {
	m := fuse.BackingMap{Fd: int32(file)}
	err = d.use(func(fd int) error {
		n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), iocBackingOpen, uintptr(unsafe.Pointer(&m)))
		if errno != 0 {
			return errno
		}
		id = int32(n)
		return nil
	})
	return id, err
}

// closeBacking takes the registration back.
func (d *device) closeBacking(id int32) error {
	return d.use(func(fd int) error {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), iocBackingClose, uintptr(unsafe.Pointer(&id)))
		if errno != 0 {
			return errno
		}
		return nil
	})
}
