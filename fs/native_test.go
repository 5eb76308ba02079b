package fs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// transcript is what a case saw: the mount has to answer as the disk below does.
type transcript struct {
	dir   string
	lines []string
}

func (r *transcript) path(name string) string { return filepath.Join(r.dir, name) }

func (r *transcript) say(format string, args ...any) {
	r.lines = append(r.lines, fmt.Sprintf(format, args...))
}

// err notes an outcome: the errno by name.
func (r *transcript) err(what string, err error) {
	var no syscall.Errno
	switch {
	case err == nil:
		r.say("%s: ok", what)
	case errors.As(err, &no):
		r.say("%s: %s", what, unix.ErrnoName(no))
	default:
		r.say("%s: %v", what, err)
	}
}

// stat notes what must not depend on the file system.
func (r *transcript) stat(name string) {
	var st unix.Stat_t
	if err := unix.Lstat(r.path(name), &st); err != nil {
		r.err("stat "+name, err)
		return
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		st.Size, st.Nlink = 0, 0
	}
	r.say("stat %s: mode %o size %d nlink %d uid %d rdev %d", name, st.Mode, st.Size, st.Nlink, st.Uid, st.Rdev)
}

func (r *transcript) content(name string) {
	b, err := os.ReadFile(r.path(name))
	if err != nil {
		r.err("read "+name, err)
		return
	}
	r.say("read %s: %q", name, b)
}

func (r *transcript) write(name, content string) {
	r.err("write "+name, os.WriteFile(r.path(name), []byte(content), 0o644))
}

func (r *transcript) list(name string) {
	d, err := os.Open(r.path(name))
	if err != nil {
		r.err("list "+name, err)
		return
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	slices.Sort(names)
	r.say("list %s: %q %v", name, names, err)
}

func (r *transcript) open(name string, flags int, mode uint32) int {
	fd, err := unix.Open(r.path(name), flags|unix.O_CLOEXEC, mode)
	r.err(fmt.Sprintf("open %s %#x", name, flags), err)
	return fd
}

func (r *transcript) close(fds ...int) {
	for _, fd := range fds {
		r.err("close", unix.Close(fd))
	}
}

var likeNative = []struct {
	name string
	run  func(r *transcript)
}{
	{"open flags", func(r *transcript) {
		r.open("none", unix.O_RDONLY, 0)
		r.close(r.open("f", unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o640))
		r.stat("f")
		r.open("f", unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o644)
		r.write("f", "content")
		r.close(r.open("f", unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC, 0o644))
		r.stat("f")
		r.open("f/x", unix.O_RDONLY, 0)
		r.open("f", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		r.err("mkdir", unix.Mkdir(r.path("d"), 0o755))
		r.open("d", unix.O_WRONLY, 0)
		r.open("d", unix.O_WRONLY|unix.O_CREAT, 0o644)
		r.err("symlink", unix.Symlink("f", r.path("l")))
		r.open("l", unix.O_RDONLY|unix.O_NOFOLLOW, 0)
		r.open("l", unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o644)
		r.close(r.open("l", unix.O_WRONLY|unix.O_CREAT, 0o644))
		r.err("dangling", unix.Symlink("made", r.path("dangling")))
		r.close(r.open("dangling", unix.O_WRONLY|unix.O_CREAT, 0o600))
		r.stat("made")
		fd := r.open("f", unix.O_PATH, 0)
		_, err := unix.Read(fd, make([]byte, 1))
		r.err("read O_PATH", err)
		r.close(fd)
	}},
	{"umask", func(r *transcript) {
		old := unix.Umask(0o027)
		defer unix.Umask(old)
		r.close(r.open("f", unix.O_RDWR|unix.O_CREAT, 0o666))
		r.err("mkdir", unix.Mkdir(r.path("d"), 0o777))
		r.err("mkfifo", unix.Mkfifo(r.path("p"), 0o666))
		r.stat("f")
		r.stat("d")
		r.stat("p")
	}},
	{"append", func(r *transcript) {
		r.write("f", "one")
		a := r.open("f", unix.O_WRONLY|unix.O_APPEND, 0)
		b := r.open("f", unix.O_WRONLY|unix.O_APPEND, 0)
		for _, fd := range []int{a, b, a} {
			_, err := unix.Write(fd, []byte("two"))
			r.err("append", err)
		}
		w := r.open("f", unix.O_RDWR, 0)
		_, err := unix.Pwrite(w, []byte("ONE"), 0)
		r.err("pwrite", err)
		r.content("f")
		_, err = unix.Write(a, []byte("end"))
		r.err("append", err)
		r.close(a, b, w)
		r.content("f")
		r.stat("f")
	}},
	{"truncate and holes", func(r *transcript) {
		r.write("f", "0123456789")
		r.err("shrink", unix.Truncate(r.path("f"), 4))
		r.content("f")
		r.err("grow", unix.Truncate(r.path("f"), 8))
		r.content("f")
		fd := r.open("f", unix.O_RDWR, 0)
		_, err := unix.Pwrite(fd, []byte("far"), 1<<20)
		r.err("pwrite far", err)
		r.err("ftruncate", unix.Ftruncate(fd, 1<<20+1))
		r.stat("f")
		off, err := unix.Seek(fd, 100_000, unix.SEEK_DATA)
		r.say("data at %d", off)
		r.err("seek", err)
		off, err = unix.Seek(fd, 0, unix.SEEK_HOLE)
		r.say("hole at %d", off)
		r.err("seek", err)
		_, err = unix.Seek(fd, 1<<30, unix.SEEK_DATA)
		r.err("seek beyond", err)
		r.err("allocate", unix.Fallocate(fd, 0, 0, 2<<20))
		r.stat("f")
		r.err("punch", unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4096))
		buf := make([]byte, 4)
		_, err = unix.Pread(fd, buf, 0)
		r.err("pread", err)
		r.say("%q", buf)
		r.err("fsync", unix.Fsync(fd))
		r.err("fdatasync", unix.Fdatasync(fd))
		r.err("syncfs", unix.Syncfs(fd))
		r.close(fd)
		r.err("negative", unix.Truncate(r.path("f"), -1))
		ro := r.open("f", unix.O_RDONLY, 0)
		r.err("read-only ftruncate", unix.Ftruncate(ro, 0))
		r.close(ro)
	}},
	{"attributes", func(r *transcript) {
		r.write("f", "x")
		r.err("chmod", unix.Chmod(r.path("f"), 0o751))
		r.stat("f")
		ts := []unix.Timespec{{Sec: 1_000_000_000, Nsec: 123_456_789}, {Sec: 1_500_000_000, Nsec: 987_654_321}}
		r.err("utimens", unix.UtimesNanoAt(unix.AT_FDCWD, r.path("f"), ts, 0))
		var st unix.Stat_t
		r.err("stat", unix.Stat(r.path("f"), &st))
		r.say("atime %v mtime %v", st.Atim, st.Mtim)
		ts = []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: -1, Nsec: 5}}
		r.err("omit", unix.UtimesNanoAt(unix.AT_FDCWD, r.path("f"), ts, 0))
		r.err("stat", unix.Stat(r.path("f"), &st))
		r.say("atime %v mtime %v", st.Atim, st.Mtim)
		r.err("symlink", unix.Symlink("nowhere", r.path("l")))
		r.err("lutimes", unix.UtimesNanoAt(unix.AT_FDCWD, r.path("l"), ts[1:], 0))
		ts = []unix.Timespec{{Sec: 7}, {Sec: 8}}
		r.err("lutimes", unix.UtimesNanoAt(unix.AT_FDCWD, r.path("l"), ts, unix.AT_SYMLINK_NOFOLLOW))
		r.err("lstat", unix.Lstat(r.path("l"), &st))
		r.say("mtime %v", st.Mtim)
		r.err("mkdir", unix.Mkdir(r.path("d"), 0o700))
		r.err("chmod dir", unix.Chmod(r.path("d"), 0o755))
		r.err("utimes dir", unix.UtimesNanoAt(unix.AT_FDCWD, r.path("d"), ts, 0))
		r.err("stat dir", unix.Stat(r.path("d"), &st))
		r.say("mode %o mtime %v", st.Mode, st.Mtim)
		r.err("chown self", unix.Lchown(r.path("f"), os.Getuid(), os.Getgid()))
		r.err("access", unix.Access(r.path("f"), unix.R_OK|unix.W_OK))
		r.err("access", unix.Access(r.path("none"), unix.F_OK))
	}},
	{"rename", func(r *transcript) {
		r.write("a", "a")
		r.write("b", "b")
		r.err("over", unix.Rename(r.path("a"), r.path("b")))
		r.content("b")
		r.stat("a")
		r.write("a", "new a")
		at := func(from, to string, flags uint) {
			r.err(fmt.Sprintf("rename %s %s %d", from, to, flags), unix.Renameat2(unix.AT_FDCWD, r.path(from), unix.AT_FDCWD, r.path(to), flags))
		}
		at("a", "b", unix.RENAME_NOREPLACE)
		at("a", "c", unix.RENAME_NOREPLACE)
		at("c", "b", unix.RENAME_EXCHANGE)
		at("c", "none", unix.RENAME_EXCHANGE)
		r.content("b")
		r.content("c")
		for _, d := range []string{"d", "d/sub", "e", "full"} {
			r.err("mkdir "+d, unix.Mkdir(r.path(d), 0o755))
		}
		r.write("full/x", "x")
		at("d", "d/sub/below", 0)
		at("d", "b", 0)
		at("b", "d", 0)
		at("d", "full", 0)
		at("d", "e", 0)
		r.list("e")
		at("full", "e", unix.RENAME_EXCHANGE)
		r.list("e")
		r.list("full")
		at("e/x", "full/x", 0)
		at("none", "x", 0)
		at("full", "full", 0)
		r.list(".")
		r.err("bad flags", unix.Renameat2(unix.AT_FDCWD, r.path("b"), unix.AT_FDCWD, r.path("q"), unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE))
	}},
	{"links", func(r *transcript) {
		r.write("f", "f")
		r.err("link", unix.Link(r.path("f"), r.path("g")))
		r.err("link again", unix.Link(r.path("f"), r.path("g")))
		r.stat("f")
		r.stat("g")
		r.write("g", "through g")
		r.content("f")
		r.err("unlink", unix.Unlink(r.path("f")))
		r.stat("g")
		r.content("g")
		r.err("mkdir", unix.Mkdir(r.path("d"), 0o755))
		r.err("link dir", unix.Link(r.path("d"), r.path("dd")))
		r.err("symlink", unix.Symlink(strings.Repeat("x", 4000), r.path("long")))
		l, err := os.Readlink(r.path("long"))
		r.say("%d", len(l))
		r.err("readlink", err)
		r.err("symlink exists", unix.Symlink("x", r.path("g")))
		_, err = os.Readlink(r.path("g"))
		r.err("readlink of a file", err)
		r.err("loop", unix.Symlink("loop", r.path("loop")))
		r.open("loop", unix.O_RDONLY, 0)
		r.err("link a symlink", unix.Linkat(unix.AT_FDCWD, r.path("loop"), unix.AT_FDCWD, r.path("loop2"), 0))
		r.stat("loop2")
		r.stat("long")
	}},
	{"unlink while open", func(r *transcript) {
		r.write("f", "before")
		fd := r.open("f", unix.O_RDWR, 0)
		r.err("unlink", unix.Unlink(r.path("f")))
		r.stat("f")
		_, err := unix.Pwrite(fd, []byte("AFTER"), 1)
		r.err("pwrite", err)
		buf := make([]byte, 10)
		n, err := unix.Pread(fd, buf, 0)
		r.err("pread", err)
		r.say("%q", buf[:n])
		var st unix.Stat_t
		r.err("fstat", unix.Fstat(fd, &st))
		r.say("nlink %d size %d", st.Nlink, st.Size)
		r.err("ftruncate", unix.Ftruncate(fd, 3))
		r.err("fchmod", unix.Fchmod(fd, 0o600))
		r.write("f", "another")
		r.err("fstat", unix.Fstat(fd, &st))
		r.say("nlink %d size %d", st.Nlink, st.Size)
		r.close(fd)
		r.content("f")
		r.err("mkdir", unix.Mkdir(r.path("d"), 0o755))
		dfd := r.open("d", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		r.err("rmdir", unix.Rmdir(r.path("d")))
		_, err = unix.Openat(dfd, "x", unix.O_CREAT|unix.O_WRONLY, 0o644)
		r.err("create in a removed directory", err)
		n, err = unix.ReadDirent(dfd, make([]byte, 4096))
		r.say("%d", n)
		r.err("list a removed directory", err)
		r.close(dfd)
	}},
	{"directories", func(r *transcript) {
		r.err("mkdir", unix.Mkdir(r.path("d"), 0o755))
		r.err("mkdir again", unix.Mkdir(r.path("d"), 0o755))
		r.write("d/f", "x")
		r.err("rmdir full", unix.Rmdir(r.path("d")))
		r.err("unlink dir", unix.Unlink(r.path("d")))
		r.err("rmdir file", unix.Rmdir(r.path("d/f")))
		r.err("rmdir none", unix.Rmdir(r.path("none")))
		r.err("mkdir below file", unix.Mkdir(r.path("d/f/x"), 0o755))
		r.err("rmdir dot", unix.Rmdir(r.path("d/.")))
		r.err("rmdir dotdot", unix.Rmdir(r.path("d/..")))
		r.err("unlink", unix.Unlink(r.path("d/f")))
		r.err("unlink again", unix.Unlink(r.path("d/f")))
		r.err("rmdir", unix.Rmdir(r.path("d")))
		r.err("mkdir p", os.MkdirAll(r.path("a/b/c/d"), 0o755))
		r.list("a/b")
		r.err("removeall", os.RemoveAll(r.path("a")))
		r.list(".")
	}},
	{"names", func(r *transcript) {
		for _, name := range []string{strings.Repeat("n", 255), strings.Repeat("n", 256), "\xff\xfe not utf-8", "new\nline", "ünï-çødé", " ", "-", "..."} {
			r.write(name, name)
			r.content(name)
			r.err("mkdir", unix.Mkdir(r.path(name+"d"), 0o755))
			r.err("rename", unix.Rename(r.path(name), r.path("x")))
			r.err("rename", unix.Rename(r.path("x"), r.path(name)))
			r.err("symlink", unix.Symlink(name, r.path("l"+name)))
		}
		r.list(".")
		long := strings.Repeat("/"+strings.Repeat("d", 99), 42)
		r.err("long path", unix.Mkdir(r.path(long), 0o755))
	}},
	{"special files", func(r *transcript) {
		r.err("fifo", unix.Mkfifo(r.path("fifo"), 0o600))
		r.stat("fifo")
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		r.err("socket", err)
		dir := r.open(".", unix.O_PATH, 0) // a socket's path must be short
		r.err("bind", unix.Bind(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/s", dir)}))
		r.close(fd, dir)
		r.stat("s")
		r.err("mknod", unix.Mknod(r.path("reg"), unix.S_IFREG|0o644, 0))
		r.stat("reg")
		rd := r.open("fifo", unix.O_RDONLY|unix.O_NONBLOCK, 0)
		wr := r.open("fifo", unix.O_WRONLY|unix.O_NONBLOCK, 0)
		_, err = unix.Write(wr, []byte("through"))
		r.err("write", err)
		buf := make([]byte, 10)
		n, err := unix.Read(rd, buf)
		r.err("read", err)
		r.say("%q", buf[:n])
		r.close(rd, wr)
		r.err("unlink", unix.Unlink(r.path("fifo")))
	}},
	{"xattrs", func(r *transcript) {
		r.write("f", "x")
		r.err("mkdir", unix.Mkdir(r.path("d"), 0o755))
		for _, name := range []string{"f", "d"} {
			p := r.path(name)
			r.err("set", unix.Lsetxattr(p, "user.a", []byte("1"), 0))
			r.err("create again", unix.Lsetxattr(p, "user.a", []byte("2"), unix.XATTR_CREATE))
			r.err("replace none", unix.Lsetxattr(p, "user.b", []byte("2"), unix.XATTR_REPLACE))
			r.err("empty", unix.Lsetxattr(p, "user.empty", nil, 0))
			buf := make([]byte, 100)
			n, err := unix.Lgetxattr(p, "user.a", buf)
			r.err("get", err)
			r.say("%q", buf[:max(n, 0)])
			_, err = unix.Lgetxattr(p, "user.none", buf)
			r.err("get none", err)
			n, err = unix.Llistxattr(p, buf)
			r.err("list", err)
			names := strings.Split(strings.Trim(string(buf[:max(n, 0)]), "\x00"), "\x00")
			slices.Sort(names)
			r.say("%q", names)
			_, err = unix.Llistxattr(p, buf[:3])
			r.err("list in a small buffer", err)
			r.err("remove", unix.Lremovexattr(p, "user.a"))
			r.err("remove again", unix.Lremovexattr(p, "user.a"))
			_, err = unix.Lgetxattr(p, "security.capability", buf)
			r.err("capability", err)
		}
	}},
	{"copy_file_range", func(r *transcript) {
		r.write("from", strings.Repeat("0123456789", 100_000))
		r.write("to", "head")
		from, to := r.open("from", unix.O_RDONLY, 0), r.open("to", unix.O_RDWR, 0)
		total := 0
		for in, out := int64(10), int64(4); total < 500_000; {
			n, err := unix.CopyFileRange(from, &in, to, &out, 500_000-total, 0)
			if err != nil || n == 0 {
				r.err("copy", err)
				break
			}
			total += n
		}
		r.say("copied %d", total)
		buf := make([]byte, 24)
		_, err := unix.Pread(to, buf, 0)
		r.err("pread", err)
		r.say("%q", buf)
		r.stat("to")
		_, err = unix.CopyFileRange(to, nil, from, nil, 10, 0)
		r.err("to a read-only descriptor", err)
		r.close(from, to)
	}},
	{"anonymous file", func(r *transcript) {
		fd := r.open(".", unix.O_TMPFILE|unix.O_RDWR, 0o640)
		_, err := unix.Write(fd, []byte("anonymous"))
		r.err("write", err)
		var st unix.Stat_t
		r.err("fstat", unix.Fstat(fd, &st))
		r.say("mode %o nlink %d size %d", st.Mode, st.Nlink, st.Size)
		r.list(".")
		r.err("linkat", unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, r.path("named"), unix.AT_SYMLINK_FOLLOW))
		r.stat("named")
		r.content("named")
		r.close(fd)
	}},
	{"relative to descriptors", func(r *transcript) {
		r.err("mkdir", os.MkdirAll(r.path("a/b"), 0o755))
		a := r.open("a", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		r.err("rename its directory", unix.Rename(r.path("a"), r.path("z")))
		r.err("mkdirat", unix.Mkdirat(a, "b/c", 0o755))
		fd, err := unix.Openat(a, "b/c/f", unix.O_CREAT|unix.O_WRONLY, 0o644)
		r.err("openat", err)
		r.close(fd)
		r.err("renameat", unix.Renameat(a, "b/c/f", a, "g"))
		r.err("linkat", unix.Linkat(a, "g", a, "b/h", 0))
		r.err("symlinkat", unix.Symlinkat("g", a, "s"))
		r.list("z")
		r.err("unlinkat", unix.Unlinkat(a, "g", 0))
		r.err("unlinkat dir", unix.Unlinkat(a, "b/c", unix.AT_REMOVEDIR))
		up, err := unix.Openat(a, "..", unix.O_RDONLY, 0)
		r.err("openat ..", err)
		r.err("fstatat", unix.Fstatat(up, "z/b/h", &unix.Stat_t{}, 0))
		r.close(a, up)
		r.list("z/b")
	}},
	{"listing while it changes", func(r *transcript) {
		for i := range 100 {
			if err := os.WriteFile(r.path(fmt.Sprintf("f%03d", i)), nil, 0o644); err != nil {
				r.err("write", err)
			}
		}
		d, err := os.Open(r.dir)
		r.err("open", err)
		defer d.Close()
		seen := 0
		for {
			names, err := d.Readdirnames(7)
			for _, n := range names {
				seen++
				if err := os.Remove(r.path(n)); err != nil {
					r.err("remove", err)
				}
			}
			if err == io.EOF {
				break
			}
		}
		r.say("saw %d", seen)
		_, err = d.Seek(0, io.SeekStart)
		r.err("rewind", err)
		names, err := d.Readdirnames(-1)
		r.say("left %d %v", len(names), err)
		r.write("fresh", "")
		_, err = d.Seek(0, io.SeekStart)
		r.err("rewind", err)
		names, err = d.Readdirnames(-1)
		r.say("%q %v", names, err)
	}},
	{"a file read while another descriptor writes it", func(r *transcript) {
		r.write("f", "first")
		rd := r.open("f", unix.O_RDONLY, 0)
		wr := r.open("f", unix.O_WRONLY, 0)
		buf := make([]byte, 100)
		for _, s := range []string{"second", "the third", "4"} {
			_, err := unix.Pwrite(wr, []byte(s), 0)
			r.err("pwrite", err)
			n, err := unix.Pread(rd, buf, 0)
			r.err("pread", err)
			r.say("%q", buf[:n])
		}
		r.err("truncate", unix.Truncate(r.path("f"), 2))
		n, err := unix.Pread(rd, buf, 0)
		r.err("pread", err)
		r.say("%q", buf[:n])
		_, err = unix.Pwrite(rd, []byte("x"), 0)
		r.err("write to a read-only descriptor", err)
		r.close(rd, wr)
		r.content("f")
	}},
	{"one name, one file after the other", func(r *transcript) {
		for i := range 20 {
			r.write("f", fmt.Sprint("content ", i))
			r.content("f")
			if i%2 == 0 {
				r.err("unlink", unix.Unlink(r.path("f")))
				r.stat("f")
			}
		}
	}},
}

func TestLikeNative(t *testing.T) {
	native := make([][]string, len(likeNative))
	for i, c := range likeNative {
		r := &transcript{dir: t.TempDir()}
		c.run(r)
		native[i] = r.lines
	}
	bothWays(t, nil, func(t *testing.T, m *testMount) {
		for i, c := range likeNative {
			t.Run(c.name, func(t *testing.T) {
				r := &transcript{dir: filepath.Join(m.pkg, fmt.Sprint(i))}
				must(t, os.Mkdir(r.dir, 0o755))
				c.run(r)
				for j := range max(len(r.lines), len(native[i])) {
					got, want := at(r.lines, j), at(native[i], j)
					if got != want {
						t.Errorf("line %d:\n   mount %s\n  native %s", j, got, want)
					}
				}
			})
		}
	})
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "(nothing)"
}
