package fs

import "golang.org/x/sys/unix"

// immutable is FS_IMMUTABLE_FL of linux/fs.h: nobody can change the file or, for a directory, the names in it; chattr(1) calls it i.
const immutable = 0x10

// shut makes a mount point that only root could write to immutable: what clients of root's left there while nothing is
// mounted would be in no view, and in the way of the next mount. Where the file system or a container forbids that, it stays as it is.
func shut(path string) {
	if !direct() {
		return
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return // mounting will tell why
	}
	defer unix.Close(fd) //nolint:errcheck // read only
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Uid != 0 || st.Mode&0o222 != 0 {
		return
	}
	if flags, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS); err == nil && flags&immutable == 0 {
		_ = unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, flags|immutable) // see above
	}
}
