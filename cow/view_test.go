package cow

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"condafs/fault"
)

func want(t *testing.T, what string, err, errno error) {
	t.Helper()
	var no error
	if err != nil {
		no = fault.Errno(err)
	}
	if no != errno {
		t.Errorf("%s: %v, want %v", what, err, errno)
	}
}

func TestShowsTheUnionOfItsSpaces(t *testing.T) {
	r := newRig(t)
	d := r.dump()
	for path, want := range map[string]string{
		"pkgs":                       "40755 x1",
		"pkgs/urls.txt":              "100644 x1 private\n",
		"pkgs/a-1-0/lib/libz.so":     "120777 x1 -> libz.so.1",
		"pkgs/a-1-0/info/index.json": "100644 x1 {}",
		"pkgs/b-1-0/bin/b":           "100644 x1 #!",
		"pkgs/cache/1.json":          "100644 x1 {\"1\":1}",
	} {
		if d[path] != want {
			t.Errorf("%s: %q, want %q", path, d[path], want)
		}
	}
	a, err := r.stat("pkgs/a-1-0/lib/libz.so.1")
	check(t, err)
	if a.UID != 7 || a.GID != 8 || unix.TimespecToNsec(a.Mtime) != mtime {
		t.Errorf("attributes of what is below: %+v", a)
	}
	if len(r.v.root.children) != 0 || r.v.References() != 0 {
		t.Errorf("%d nodes and %d references are left", len(r.v.root.children), r.v.References())
	}
	if list, err := os.ReadDir(r.upper); err != nil || len(list) > 0 {
		t.Errorf("looking copied %v up, %v", list, err)
	}
}

func TestErrnos(t *testing.T) {
	long := strings.Repeat("n", 256)
	const exchange, noreplace = unix.RENAME_EXCHANGE, unix.RENAME_NOREPLACE
	for _, c := range []struct {
		what string
		do   func(r *rig) error
		want error
	}{
		{"create over below", func(r *rig) error { return r.create("pkgs/urls.txt", "", 0o644) }, unix.EEXIST},
		{"create in a file", func(r *rig) error { return r.create("pkgs/urls.txt/x", "", 0o644) }, unix.ENOTDIR},
		{"create in nothing", func(r *rig) error { return r.create("nowhere/x", "", 0o644) }, unix.ENOENT},
		{"create a long name", func(r *rig) error { return r.create("pkgs/"+long, "", 0o644) }, unix.ENAMETOOLONG},
		{"look a long name up", func(r *rig) error { _, err := r.stat(long); return err }, unix.ENAMETOOLONG},
		{"mkdir over a directory", func(r *rig) error { return r.mkdir("pkgs/a-1-0", 0o755) }, unix.EEXIST},
		{"symlink over a file", func(r *rig) error { return r.symlink("x", "pkgs/urls.txt") }, unix.EEXIST},
		{"empty symlink", func(r *rig) error { return r.symlink("", "pkgs/s") }, unix.ENOENT},
		{"unlink a directory", func(r *rig) error { return r.unlink("pkgs/cache") }, unix.EISDIR},
		{"unlink nothing", func(r *rig) error { return r.unlink("pkgs/none") }, unix.ENOENT},
		{"rmdir a file", func(r *rig) error { return r.rmdir("pkgs/urls.txt") }, unix.ENOTDIR},
		{"rmdir a full directory", func(r *rig) error { return r.rmdir("pkgs/cache") }, unix.ENOTEMPTY},
		{"open a directory", func(r *rig) error { _, err := r.openAt("pkgs", unix.O_RDONLY); return err }, unix.EISDIR},
		{"open a link", func(r *rig) error { _, err := r.openAt("pkgs/a-1-0/lib/libz.so", unix.O_RDONLY); return err }, unix.ELOOP},
		{"truncate a directory", func(r *rig) error { return r.setattr("pkgs", SetAttr{Valid: SetSize}) }, unix.EISDIR},
		{"truncate below zero", func(r *rig) error { return r.setattr("pkgs/urls.txt", SetAttr{Valid: SetSize, Size: -1}) }, unix.EINVAL},
		{"chown", func(r *rig) error { return r.setattr("pkgs/urls.txt", SetAttr{Valid: SetUID, UID: 0}) }, unix.EPERM},
		{"chgrp", func(r *rig) error { return r.setattr("pkgs/urls.txt", SetAttr{Valid: SetGID, GID: 0}) }, unix.EPERM},
		{"chown to oneself", func(r *rig) error {
			return r.setattr("pkgs/urls.txt", SetAttr{Valid: SetUID | SetGID, UID: 7, GID: 8})
		}, nil},
		{"link a directory", func(r *rig) error { return r.link("pkgs/cache", "pkgs/l") }, unix.EPERM},
		{"link over a file", func(r *rig) error { return r.link("pkgs/urls.txt", "pkgs/a-1-0.conda") }, unix.EEXIST},
		{"make a device", func(r *rig) error {
			return r.in("pkgs/dev", func(d *Node, n string) error { _, _, err := r.v.Mknod(d, n, unix.S_IFCHR, 0); return err })
		}, unix.EPERM},
		{"rename nothing", func(r *rig) error { return r.rename("pkgs/none", "pkgs/x", 0) }, unix.ENOENT},
		{"rename to a long name", func(r *rig) error { return r.rename("pkgs/cache", "pkgs/"+long, 0) }, unix.ENAMETOOLONG},
		{"rename into itself", func(r *rig) error { return r.rename("pkgs/a-1-0", "pkgs/a-1-0/lib/x", 0) }, unix.EINVAL},
		{"rename over a parent", func(r *rig) error { return r.rename("pkgs/a-1-0/lib", "pkgs/a-1-0", 0) }, unix.ENOTEMPTY},
		{"rename over a full directory", func(r *rig) error { return r.rename("pkgs/cache", "pkgs/a-1-0", 0) }, unix.ENOTEMPTY},
		{"rename over an empty directory", func(r *rig) error { return r.rename("pkgs/cache", "pkgs/a-1-0/share/doc", 0) }, nil},
		{"rename a directory over a file", func(r *rig) error { return r.rename("pkgs/cache", "pkgs/urls.txt", 0) }, unix.ENOTDIR},
		{"rename a file over a directory", func(r *rig) error { return r.rename("pkgs/urls.txt", "pkgs/a-1-0/share/doc", 0) }, unix.EISDIR},
		{"rename without replacing", func(r *rig) error { return r.rename("pkgs/urls.txt", "pkgs/a-1-0.conda", noreplace) }, unix.EEXIST},
		{"rename to the same", func(r *rig) error { return r.rename("pkgs/cache", "pkgs/cache", 0) }, nil},
		{"exchange with nothing", func(r *rig) error { return r.rename("pkgs/cache", "pkgs/x", exchange) }, unix.ENOENT},
		{"exchange with a parent", func(r *rig) error { return r.rename("pkgs/a-1-0/lib", "pkgs/a-1-0", exchange) }, unix.EINVAL},
		{"rename with odd flags", func(r *rig) error { return r.rename("pkgs/cache", "pkgs/x", exchange|noreplace) }, unix.EINVAL},
		{"rename leaving a whiteout", func(r *rig) error { return r.rename("pkgs/cache", "pkgs/x", unix.RENAME_WHITEOUT) }, unix.EINVAL},
		{"get what is not there", func(r *rig) error {
			return r.on("pkgs/urls.txt", func(n *Node) error { _, err := r.v.Getxattr(n, "user.x"); return err })
		}, unix.ENODATA},
		{"set a hidden attribute", func(r *rig) error {
			return r.on("pkgs/urls.txt", func(n *Node) error { return r.v.Setxattr(n, xattrOpaque, []byte("y"), 0) })
		}, unix.EPERM},
		{"set a foreign attribute", func(r *rig) error {
			return r.on("pkgs/urls.txt", func(n *Node) error { return r.v.Setxattr(n, "security.x", nil, 0) })
		}, unix.EOPNOTSUPP},
		{"set an attribute of a link", func(r *rig) error {
			return r.on("pkgs/a-1-0/lib/libz.so", func(n *Node) error { return r.v.Setxattr(n, "user.x", nil, 0) })
		}, unix.EPERM},
		{"read a link that is none", func(r *rig) error {
			return r.on("pkgs/urls.txt", func(n *Node) error { _, err := r.v.Readlink(n); return err })
		}, unix.EINVAL},
	} {
		t.Run(c.what, func(t *testing.T) {
			r := newRig(t)
			want(t, "on what is below", c.do(r), c.want)
		})
	}
}

func TestReadOnlyView(t *testing.T) {
	r := newRig(t)
	r.v.Close()
	r.upper = ""
	r.open()
	before := r.dump()
	for what, err := range map[string]error{
		"create":   r.create("pkgs/x", "", 0o644),
		"mkdir":    r.mkdir("pkgs/x", 0o755),
		"unlink":   r.unlink("pkgs/urls.txt"),
		"rename":   r.rename("pkgs/urls.txt", "pkgs/x", 0),
		"write":    r.write("pkgs/urls.txt", "x", 0),
		"truncate": r.setattr("pkgs/urls.txt", SetAttr{Valid: SetSize}),
		"link":     r.link("pkgs/urls.txt", "pkgs/x"),
	} {
		want(t, what, err, unix.EROFS)
	}
	want(t, "chmod to the same", r.setattr("pkgs/urls.txt", SetAttr{Valid: SetMode, Mode: 0o644}), nil)
	if !maps.Equal(before, r.dump()) {
		t.Error("it has changed")
	}
}

func TestRetired(t *testing.T) {
	r := newRig(t)
	h, err := r.openAt("pkgs/urls.txt", unix.O_RDWR)
	check(t, err)
	r.v.Retire()
	_, err = h.WriteAt([]byte("x"), 0)
	want(t, "write", err, unix.ESTALE)
	want(t, "create", r.create("pkgs/x", "", 0o644), unix.EROFS)
	check(t, h.Release())
}

func TestModesAreExact(t *testing.T) {
	r := newRig(t)
	for _, mode := range []uint32{0, 0o400, 0o444, 0o555, 0o644, 0o777} {
		check(t, r.create("pkgs/f", "data", mode))
		check(t, r.mkdir("pkgs/d", mode))
		for range 2 {
			for _, p := range []string{"pkgs/f", "pkgs/d"} {
				if a, err := r.stat(p); err != nil || a.Mode&0o7777 != mode {
					t.Errorf("%s: %o, %v, want %o", p, a.Mode, err, mode)
				}
			}
			if s, err := r.read("pkgs/f"); s != "data" || err != nil {
				t.Errorf("file of mode %o: %q, %v", mode, s, err)
			}
			r.reopen()
		}
		check(t, r.unlink("pkgs/f"))
		check(t, r.rmdir("pkgs/d"))
	}
	check(t, r.create("pkgs/f", "", 0o6755))
	check(t, r.setattr("pkgs/f", SetAttr{Valid: SetMode, Mode: 0o6711}))
	if a, err := r.stat("pkgs/f"); err != nil || a.Mode&0o7777 != 0o711 {
		t.Errorf("set-id bits: %o, %v", a.Mode, err)
	}
}

func TestChangesThatChangeNothing(t *testing.T) {
	r := newRig(t)
	p := "pkgs/a-1-0/lib/libz.so.1"
	a, err := r.stat(p)
	check(t, err)
	check(t, r.setattr(p, SetAttr{Valid: SetMode, Mode: a.Mode & 0o7777}))
	check(t, r.setattr(p, SetAttr{Valid: SetSize, Size: a.Size}))
	check(t, r.setattr(p, SetAttr{Valid: SetAtime | SetMtime, Atime: a.Atime, Mtime: a.Mtime}))
	if list, _ := os.ReadDir(r.upper); len(list) > 0 || !r.v.Clean() {
		t.Error("they were copied up")
	}
	check(t, r.setattr(p, SetAttr{Valid: SetMtime, Mtime: unix.Timespec{Sec: 5}}))
	b, err := r.stat(p)
	if err != nil || b.Mtime.Sec != 5 || b.Ino != a.Ino || b.Mode != a.Mode || r.v.Clean() {
		t.Errorf("after utimes: %+v, %v", b, err)
	}
}

// TestAccessTimeIsKept sets nothing but the time of access of what comes from below.
func TestAccessTimeIsKept(t *testing.T) {
	r := newRig(t)
	p := "pkgs/a-1-0/lib/libz.so.1"
	before, err := r.stat(p)
	check(t, err)
	check(t, r.setattr(p, SetAttr{Valid: SetAtime, Atime: unix.Timespec{Sec: 7, Nsec: 8}}))
	a, err := r.stat(p)
	if err != nil || a.Atime != (unix.Timespec{Sec: 7, Nsec: 8}) || a.Mtime != before.Mtime {
		t.Errorf("%+v, %v", a, err)
	}
}

// TestRemovedLinkStillLeads reads a link that was removed after it was looked up.
func TestRemovedLinkStillLeads(t *testing.T) {
	r := newRig(t)
	check(t, r.symlink("somewhere", "pkgs/made"))
	for p, want := range map[string]string{"pkgs/made": "somewhere", "pkgs/a-1-0/lib/libz.so": "libz.so.1"} {
		n, err := r.node(p)
		check(t, err)
		check(t, r.unlink(p))
		if got, err := r.v.Readlink(n); got != want || err != nil {
			t.Errorf("%s: %q, %v, want %q", p, got, err, want)
		}
		r.v.Forget(n, 1)
	}
}

func TestLinksOfDirectories(t *testing.T) {
	r := newRig(t)
	want := func(p string, n uint32) {
		t.Helper()
		if a, err := r.stat(p); err != nil || a.Nlink != n {
			t.Errorf("%s: %d links, %v, want %d", p, a.Nlink, err, n)
		}
	}
	for _, p := range []string{"pkgs/d", "pkgs/d/one", "pkgs/d/two", "pkgs/a-1-0/new"} {
		check(t, r.mkdir(p, 0o755))
	}
	check(t, r.create("pkgs/d/file", "", 0o644))
	want("pkgs/d", 4)
	want("pkgs/d/one", 2)
	want("pkgs/a-1-0", 1) // shows what is below, too: not counted
	want("pkgs/a-1-0/new", 2)
	check(t, r.rmdir("pkgs/d/one"))
	check(t, r.rename("pkgs/d/two", "pkgs/a-1-0/new/two", 0))
	want("pkgs/d", 2)
	want("pkgs/a-1-0/new", 3)
}

// TestNamesOfAttributes checks what names of attributes are refused, and how.
func TestNamesOfAttributes(t *testing.T) {
	r := newRig(t)
	check(t, r.create("pkgs/f", "x", 0o644))
	n, err := r.node("pkgs/f")
	check(t, err)
	for _, c := range []struct {
		name             string
		set, get, remove error
	}{
		{"user.", unix.EINVAL, unix.EINVAL, unix.EINVAL},
		{"trusted.x", unix.EOPNOTSUPP, unix.ENODATA, unix.EOPNOTSUPP},
		{xattrMark, unix.EPERM, unix.ENODATA, unix.ENODATA},
		{"user.none", nil, unix.ENODATA, nil},
	} {
		if _, err := r.v.Getxattr(n, c.name); err != c.get {
			t.Errorf("get %s: %v, want %v", c.name, err, c.get)
		}
		if err := r.v.Setxattr(n, c.name, []byte("x"), 0); err != c.set {
			t.Errorf("set %s: %v, want %v", c.name, err, c.set)
		}
		if err := r.v.Removexattr(n, c.name); err != c.remove {
			t.Errorf("remove %s: %v, want %v", c.name, err, c.remove)
		}
	}
}

func TestTimesOfDirectories(t *testing.T) {
	r := newRig(t)
	get := func(p string) int64 {
		t.Helper()
		a, err := r.stat(p)
		check(t, err)
		return unix.TimespecToNsec(a.Mtime)
	}
	check(t, r.write("pkgs/a-1-0/lib/libz.so.1", "copied up", 0))
	for _, p := range []string{"pkgs", "pkgs/a-1-0", "pkgs/a-1-0/lib"} {
		if get(p) != mtime {
			t.Errorf("copying a file up has changed the time of %s", p)
		}
	}
	check(t, r.unlink("pkgs/a-1-0/lib/libz.so.1"))
	if get("pkgs/a-1-0/lib") == mtime || get("pkgs/a-1-0") != mtime {
		t.Error("removing a file must change the time of its directory alone")
	}
}

func TestCopyUpKeepsIdentity(t *testing.T) {
	r := newRig(t)
	p := "pkgs/a-1-0/lib/libz.so.1"
	n, err := r.node(p)
	check(t, err)
	before, err := r.stat(p)
	check(t, err)
	old, err := r.v.Open(n, unix.O_RDONLY)
	check(t, err)
	check(t, r.write(p, "changed", unix.O_TRUNC))
	m, err := r.node(p)
	check(t, err)
	if m != n {
		t.Error("another node")
	}
	r.v.Forget(m, 1)
	if s, err := readHandle(old); s != "elf" || err != nil {
		t.Errorf("the old handle reads %q, %v", s, err)
	}
	if !old.Immutable() {
		t.Error("the old handle is of a blob")
	}
	check(t, old.Release())
	r.v.Forget(n, 1)
	for range 2 {
		a, err := r.stat(p)
		check(t, err)
		if a.Ino != before.Ino || a.Size != 7 {
			t.Errorf("%+v, before %+v", a, before)
		}
		r.reopen()
	}
}

func TestNodeOfWhatTheKernelReadsItself(t *testing.T) {
	r := newRig(t)
	p := "pkgs/urls.txt"
	n, err := r.node(p)
	check(t, err)
	old, err := r.v.Open(n, unix.O_RDONLY)
	check(t, err)
	old.SetPassthrough(true)
	_, err = r.v.Open(n, unix.O_RDWR)
	want(t, "open for writing", err, unix.ESTALE)
	m, err := r.node(p)
	check(t, err)
	if m == n || m.ID() == n.ID() {
		t.Error("the name must be another node now")
	}
	h, err := r.v.Open(m, unix.O_RDWR)
	check(t, err)
	h.SetPassthrough(true)
	_, err = h.WriteAt([]byte("more\n"), int64(len("private\n")))
	check(t, err)
	if s, _ := readHandle(old); s != "private\n" {
		t.Errorf("the old handle reads %q", s)
	}
	if s, _ := readHandle(h); s != "private\nmore\n" {
		t.Errorf("the new handle reads %q", s)
	}
	if a, err := r.v.Getattr(n, old); err != nil || a.Size != 8 {
		t.Errorf("the old node: %+v, %v", a, err)
	}
	h2, err := r.v.Open(m, unix.O_RDONLY)
	check(t, err)
	for _, h := range []*Handle{old, h, h2} {
		check(t, h.Release())
	}
	r.v.Forget(n, 1)
	r.v.Forget(m, 1)
	if len(r.v.root.children) != 0 || r.v.OpenHandles() != 0 {
		t.Error("nodes or handles are left")
	}
}

func TestRemovedWhileOpen(t *testing.T) {
	r := newRig(t)
	check(t, r.create("pkgs/new", "new", 0o640))
	for p, data := range map[string]string{"pkgs/new": "new", "pkgs/urls.txt": "private\n"} {
		n, err := r.node(p)
		check(t, err)
		h, err := r.v.Open(n, unix.O_RDONLY)
		check(t, err)
		check(t, r.unlink(p))
		if _, err := r.stat(p); err != unix.ENOENT {
			t.Errorf("%s: %v", p, err)
		}
		if s, err := readHandle(h); s != data || err != nil {
			t.Errorf("%s: %q, %v", p, s, err)
		}
		a, err := r.v.Setattr(n, nil, SetAttr{Valid: SetMode, Mode: 0o600})
		if err != nil || a.Nlink != 0 || a.Mode != unix.S_IFREG|0o600 {
			t.Errorf("%s: chmod: %+v, %v", p, a, err)
		}
		check(t, h.Release())
		if a, err := r.v.Getattr(n, nil); err != nil || a.Nlink != 0 {
			t.Errorf("%s: after release: %+v, %v", p, a, err)
		}
		// As by /proc/PID/fd of somebody who has it with O_PATH, or who has looked the name up before it was removed.
		for range 2 {
			h, err = r.v.Open(n, unix.O_RDWR)
			check(t, err)
			if s, err := readHandle(h); len(s) != len(data) || s[1:] != data[1:] || err != nil {
				t.Errorf("%s: open again: %q, %v", p, s, err)
			}
			_, err = h.WriteAt([]byte("x"), 0)
			check(t, err)
			check(t, h.Release())
		}
		r.v.Forget(n, 1)
	}
	if len(r.v.orphans) != 0 {
		t.Errorf("%d descriptors are left", len(r.v.orphans))
	}
}

func TestRemovedWhileReferredTo(t *testing.T) {
	r := newRig(t)
	check(t, r.create("pkgs/new", "new", 0o640))
	n, err := r.node("pkgs/new")
	check(t, err)
	check(t, r.unlink("pkgs/new"))
	h, err := r.v.Open(n, unix.O_RDONLY)
	check(t, err)
	if s, err := readHandle(h); s != "new" || err != nil {
		t.Errorf("%q, %v", s, err)
	}
	check(t, h.Release())
	r.v.Forget(n, 1)
	d, err := r.node("pkgs/cache")
	check(t, err)
	check(t, r.unlink("pkgs/cache/1.json"))
	check(t, r.rmdir("pkgs/cache"))
	if list, err := r.v.ReadDir(d); len(list) > 0 || err != nil {
		t.Errorf("a removed directory has %v, %v", list, err)
	}
	_, _, err = r.v.Mkdir(d, "x", 0o755)
	want(t, "mkdir in a removed directory", err, unix.ENOENT)
	if a, err := r.v.Getattr(d, nil); err != nil || a.Nlink != 0 {
		t.Errorf("%+v, %v", a, err)
	}
	r.v.Forget(d, 1)
}

func TestHardLinks(t *testing.T) {
	r := newRig(t)
	check(t, r.link("pkgs/urls.txt", "pkgs/l1"))
	check(t, r.link("pkgs/l1", "pkgs/l2"))
	var nodes []*Node
	for _, p := range []string{"pkgs/urls.txt", "pkgs/l1", "pkgs/l2"} {
		n, err := r.node(p)
		check(t, err)
		nodes = append(nodes, n)
	}
	if nodes[0] != nodes[1] || nodes[1] != nodes[2] {
		t.Error("one file must be one node")
	}
	check(t, r.write("pkgs/l2", "P", 0))
	check(t, r.unlink("pkgs/urls.txt"))
	if a, err := r.v.Getattr(nodes[0], nil); err != nil || a.Nlink != 2 {
		t.Errorf("%+v, %v", a, err)
	}
	for _, n := range nodes {
		r.v.Forget(n, 1)
	}
	r.reopen()
	n, err := r.node("pkgs/l1")
	check(t, err)
	check(t, r.unlink("pkgs/l1")) // l2 has not been seen yet
	if a, err := r.v.Getattr(n, nil); err != nil || a.Nlink != 1 {
		t.Errorf("%+v, %v", a, err)
	}
	m, err := r.node("pkgs/l2")
	check(t, err)
	if m != n {
		t.Error("another node")
	}
	check(t, r.rename("pkgs/l2", "pkgs/l3", 0))
	if s, err := r.read("pkgs/l3"); s != "Private\n" || err != nil {
		t.Errorf("%q, %v", s, err)
	}
	r.v.Forget(n, 2)
}

// A mode that needs a mark, set by one name and read by another.
func TestModeOfHardLinks(t *testing.T) {
	r := newRig(t)
	check(t, r.create("pkgs/f", "", 0o644))
	check(t, r.link("pkgs/f", "pkgs/g"))
	r.reopen()
	check(t, r.setattr("pkgs/f", SetAttr{Valid: SetMode, Mode: 0o040}))
	check(t, r.unlink("pkgs/f"))
	for range 2 {
		if a, err := r.stat("pkgs/g"); err != nil || a.Mode != unix.S_IFREG|0o040 || a.Nlink != 1 {
			t.Errorf("%+v, %v", a, err)
		}
		r.reopen()
	}
}

func TestTmpfile(t *testing.T) {
	r := newRig(t)
	check(t, r.in("pkgs/t", func(dir *Node, name string) error {
		n, a, h, err := r.v.Tmpfile(dir, unix.O_RDWR, 0o444)
		check(t, err)
		if a.Nlink != 0 || a.Mode != unix.S_IFREG|0o444 {
			t.Errorf("%+v", a)
		}
		_, err = h.WriteAt([]byte("tmp"), 0)
		check(t, err)
		if a, err = r.v.Link(n, dir, name); err != nil || a.Nlink != 1 {
			t.Errorf("link: %+v, %v", a, err)
		}
		check(t, h.Release())
		r.v.Forget(n, 2)
		return nil
	}))
	if d := r.dump()["pkgs/t"]; d != "100444 x1 tmp" {
		t.Errorf("%q", d)
	}
}

func TestRenameOfDirectoriesFromBelow(t *testing.T) {
	r := newRig(t)
	check(t, r.write("pkgs/a-1-0/lib/libz.so.1", "mine", unix.O_TRUNC))
	want := map[string]string{}
	for p, d := range r.dump() {
		if p == "pkgs" || strings.HasPrefix(p, "pkgs/") {
			p = "q" + p[4:]
		}
		if p == "q/a-1-0" || strings.HasPrefix(p, "q/a-1-0/") {
			p = "q/z" + p[len("q/a-1-0"):]
		}
		want[p] = d
	}
	n, err := r.node("pkgs/a-1-0/lib")
	check(t, err)
	check(t, r.rename("pkgs/a-1-0", "pkgs/z", 0))
	check(t, r.rename("pkgs", "q", 0))
	for range 2 {
		if got := r.dump(); !maps.Equal(got, want) {
			t.Fatalf("got %v\nwant %v", got, want)
		}
		m, err := r.node("q/z/lib")
		check(t, err)
		if n != nil && m != n {
			t.Error("another node")
		}
		n = nil
		r.reopen()
	}
	check(t, r.mkdir("pkgs", 0o755))
	if list := r.dump(); list["pkgs"] == "" || list["pkgs/urls.txt"] != "" {
		t.Error("a new directory must not show what was below the old one")
	}
}

// Containers often have an overlayfs for their root, which takes no whiteouts.
func TestOverlayOnOverlayfs(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"lower", "upper", "work", "mnt"} {
		check(t, os.Mkdir(filepath.Join(dir, d), 0o755))
	}
	mnt := filepath.Join(dir, "mnt")
	opts := "lowerdir=" + dir + "/lower,upperdir=" + dir + "/upper,workdir=" + dir + "/work"
	if err := unix.Mount("overlay", mnt, "overlay", 0, opts); err != nil {
		t.Skip("cannot mount an overlayfs: ", err)
	}
	t.Cleanup(func() { check(t, unix.Unmount(mnt, 0)) })
	r := newRigIn(t, mnt)
	check(t, r.unlink("pkgs/urls.txt"))
	check(t, r.rename("pkgs/a-1-0", "pkgs/z-1-0", 0))
	check(t, r.mkdir("pkgs/a-1-0", 0o755))
	check(t, r.unlink("pkgs/cache/1.json"))
	check(t, r.rmdir("pkgs/cache"))
	check(t, r.create("pkgs/cache", "a file now", 0o444))
	check(t, r.unlink("pkgs/b-1-0/bin/b"))
	check(t, r.rename("pkgs/b-1-0/bin", "pkgs/a-1-0/bin", 0))
	before := r.dump()
	want, err := r.v.Changes()
	check(t, err)
	r.reopen()
	if got := r.dump(); !maps.Equal(got, before) {
		t.Errorf("got %v\nwant %v", got, before)
	}
	if got, err := r.v.Changes(); err != nil || !slices.Equal(got, want) || len(got) != 5 {
		t.Errorf("got %v, %v\nwant %v", got, err, want)
	}
}

func TestXattrs(t *testing.T) {
	r := newRig(t)
	p := "pkgs/urls.txt"
	check(t, r.on(p, func(n *Node) error { return r.v.Setxattr(n, "user.x", []byte("1"), unix.XATTR_CREATE) }))
	r.reopen()
	check(t, r.on(p, func(n *Node) error {
		names, err := r.v.Listxattr(n)
		if !slices.Equal(names, []string{"user.x"}) {
			t.Errorf("%v, %v", names, err)
		}
		b, err := r.v.Getxattr(n, "user.x")
		if string(b) != "1" || err != nil {
			t.Errorf("%q, %v", b, err)
		}
		_, err = r.v.Getxattr(n, xattrMark)
		want(t, "get a hidden one", err, unix.ENODATA)
		check(t, r.v.Removexattr(n, "user.x"))
		want(t, "remove it again", r.v.Removexattr(n, "user.x"), unix.ENODATA)
		return nil
	}))
}

func TestEvents(t *testing.T) {
	r := newRig(t)
	check(t, r.mkdir("pkgs/c-1-0", 0o755))
	check(t, r.create("pkgs/c-1-0/f", "x", 0o644))
	check(t, r.rename("pkgs/c-1-0", "pkgs/d-1-0", 0))
	check(t, r.unlink("pkgs/d-1-0/f"))
	check(t, r.rmdir("pkgs/d-1-0"))
	want := []Event{
		{Op: Created, Path: "pkgs/c-1-0", IsDir: true},
		{Op: Created, Path: "pkgs/c-1-0/f"},
		{Op: Closed, Path: "pkgs/c-1-0/f"},
		{Op: Renamed, Path: "pkgs/d-1-0", OldPath: "pkgs/c-1-0", IsDir: true},
		{Op: Removed, Path: "pkgs/d-1-0/f"},
		{Op: Removed, Path: "pkgs/d-1-0", IsDir: true},
	}
	if !slices.Equal(r.events, want) {
		t.Errorf("got %+v", r.events)
	}
}

func TestGenerations(t *testing.T) {
	r := newRig(t)
	last := r.v.Generation("pkgs/a-1-0")
	other := r.v.Generation("pkgs/cache/1.json")
	changed := func(what string, err error) {
		t.Helper()
		check(t, err)
		if g := r.v.Generation("pkgs/a-1-0"); g == last {
			t.Errorf("%s did not count", what)
		} else {
			last = g
		}
	}
	changed("write", r.write("pkgs/a-1-0/lib/libz.so.1", "x", 0))
	changed("chmod", r.setattr("pkgs/a-1-0/lib/libz.so.1", SetAttr{Valid: SetMode, Mode: 0o600}))
	changed("create", r.create("pkgs/a-1-0/new", "", 0o644))
	changed("link", r.link("pkgs/a-1-0/new", "pkgs/a-1-0/new2"))
	changed("unlink", r.unlink("pkgs/a-1-0/new2"))
	changed("rename", r.rename("pkgs/a-1-0/new", "pkgs/a-1-0/newer", 0))
	changed("rename of a parent", r.rename("pkgs", "p", 0))
	if r.v.Generation("pkgs/cache/1.json") == other {
		t.Error("what has moved away has changed")
	}
}

func TestChanges(t *testing.T) {
	r := newRig(t)
	check(t, r.setattr("pkgs/cache", SetAttr{Valid: SetMtime, Mtime: unix.Timespec{Sec: 1}}))
	check(t, r.setattr("pkgs/b-1-0", SetAttr{Valid: SetMtime, Mtime: unix.Timespec{Sec: 1}}))
	if !r.v.Clean() {
		t.Error("times of directories are no change")
	}
	check(t, r.create("pkgs/new", "", 0o644))
	check(t, r.mkdir("pkgs/https", 0o755))
	check(t, r.mkdir("pkgs/c-1-0", 0o755))
	check(t, r.create("pkgs/c-1-0/f", "", 0o644))
	check(t, r.write("pkgs/urls.txt", "x", 0))
	check(t, r.write("pkgs/a-1-0/lib/libz.so.1", "x", 0))
	check(t, r.unlink("pkgs/a-1-0.conda"))
	check(t, r.rename("pkgs/b-1-0", "pkgs/b-1-0.c~", 0))
	want := []Change{
		{Path: "pkgs/a-1-0", Op: Changed, IsDir: true},
		{Path: "pkgs/a-1-0.conda", Op: Deleted, IsDir: false},
		{Path: "pkgs/b-1-0", Op: Deleted, IsDir: true},
		{Path: "pkgs/b-1-0.c~", Op: Added, IsDir: true},
		{Path: "pkgs/c-1-0", Op: Added, IsDir: true},
		{Path: "pkgs/https", Op: Added, IsDir: true},
		{Path: "pkgs/new", Op: Added, IsDir: false},
		{Path: "pkgs/urls.txt", Op: Changed, IsDir: false},
	}
	for range 2 {
		got, err := r.v.Changes()
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("got %+v, %v", got, err)
		}
		r.reopen()
	}
}

func TestChangesInDirectoriesMadeAnew(t *testing.T) {
	r := newRig(t)
	r.src.file(t, "shared/pkgs/cache/2.json", "2")
	check(t, r.unlink("pkgs/cache/1.json"))
	check(t, r.rename("pkgs/cache", "pkgs/cache2", 0))
	check(t, r.mkdir("pkgs/cache", 0o755))
	check(t, r.create("pkgs/cache/2.json", "", 0o644))
	want := []Change{
		{Path: "pkgs/cache/1.json", Op: Deleted, IsDir: false},
		{Path: "pkgs/cache/2.json", Op: Changed, IsDir: false},
		{Path: "pkgs/cache2", Op: Added, IsDir: true},
		{Path: "pkgs/cache2/2.json", Op: Added, IsDir: false},
	}
	for range 2 {
		got, err := r.v.Changes()
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("got %+v, %v", got, err)
		}
		r.reopen()
	}
}

func TestSeal(t *testing.T) {
	r := newRig(t)
	check(t, r.mkdir("pkgs/c-1-0", 0o700))
	check(t, r.create("pkgs/c-1-0/f", "ff", 0o444))
	check(t, r.symlink("f", "pkgs/c-1-0/l"))
	check(t, r.link("pkgs/c-1-0/f", "pkgs/c-1-0/g"))
	check(t, r.setattr("pkgs", SetAttr{Valid: SetMtime, Mtime: unix.Timespec{Sec: 9}}))
	f, err := r.node("pkgs/c-1-0/f")
	check(t, err)
	h, err := r.v.Open(f, unix.O_RDONLY)
	check(t, err)
	h.SetPassthrough(true)
	before := r.dump()
	check(t, r.seal("pkgs/c-1-0"))
	if s, err := r.read("pkgs/c-1-0/f"); s != "ff" || err != nil { // by another node than h's
		t.Errorf("%q, %v", s, err)
	}
	// As files of their own, the names are no longer one file.
	before["pkgs/c-1-0/f"] = "100444 x1 ff"
	before["pkgs/c-1-0/g"] = "100444 x1 ff"
	compare := func() {
		t.Helper()
		if got := r.dump(); !maps.Equal(got, before) {
			t.Errorf("got %v\nwant %v", got, before)
		}
		if a, err := r.stat("pkgs"); err != nil || a.Mtime.Sec != 9 {
			t.Errorf("time of the directory: %+v, %v", a, err)
		}
		if _, err := os.Stat(filepath.Join(r.upper, "pkgs/c-1-0")); !os.IsNotExist(err) {
			t.Errorf("it is still in the overlay: %v", err)
		}
		if list, err := r.v.Changes(); len(list) > 0 || err != nil {
			t.Errorf("%+v, %v", list, err)
		}
	}
	compare()
	if s, err := readHandle(h); s != "ff" || err != nil {
		t.Errorf("%q, %v", s, err)
	}
	check(t, h.Release())
	r.v.Forget(f, 1)
	r.reopen()
	compare()
	check(t, r.rename("pkgs/c-1-0", "pkgs/c-1-0.c~", 0))
	if got, err := r.v.Changes(); err != nil || !slices.Equal(got, []Change{{Path: "pkgs/c-1-0", Op: Deleted, IsDir: true}, {Path: "pkgs/c-1-0.c~", Op: Added, IsDir: true}}) {
		t.Errorf("%+v, %v", got, err)
	}
	check(t, r.mkdir("pkgs/c-1-0", 0o755))
	check(t, r.rmdir("pkgs/c-1-0"))
	if got, err := r.v.Changes(); err != nil || len(got) != 2 || got[0].Op != Deleted {
		t.Errorf("%+v, %v", got, err)
	}
}

// Names of one file are files of their own once they are sealed, also for who knows the file already.
func TestSealSplitsLinks(t *testing.T) {
	r := newRig(t)
	check(t, r.mkdir("pkgs/c-1-0", 0o700))
	check(t, r.create("pkgs/c-1-0/f", "ff", 0o644))
	check(t, r.link("pkgs/c-1-0/f", "pkgs/c-1-0/g"))
	f, err := r.node("pkgs/c-1-0/f")
	check(t, err)
	h, err := r.v.Open(f, unix.O_RDONLY)
	check(t, err)
	check(t, r.seal("pkgs/c-1-0"))
	check(t, r.write("pkgs/c-1-0/f", "FF", 0))
	if s, err := r.read("pkgs/c-1-0/g"); s != "ff" || err != nil {
		t.Errorf("the other name: %q, %v", s, err)
	}
	check(t, h.Release())
	r.v.Forget(f, 1)
}

func TestSealIsRefused(t *testing.T) {
	r := newRig(t)
	check(t, r.create("pkgs/c-1-0.conda", "c", 0o644))
	h, err := r.v.Harvest("pkgs/c-1-0.conda")
	check(t, err)
	entry, err := r.entryOf(h)
	check(t, err)
	move := moveFunc(func(string, int, string) error { t.Error("moved"); return nil })
	check(t, r.setattr("pkgs/c-1-0.conda", SetAttr{Valid: SetMode, Mode: 0o600}))
	if err := r.v.Seal("pkgs/c-1-0.conda", h.Gen, entry, move); !fault.Is(err, fault.Busy) {
		t.Errorf("changed since: %v", err)
	}
	w, err := r.openAt("pkgs/c-1-0.conda", unix.O_RDWR)
	check(t, err)
	if n := r.v.Writers("pkgs"); n != 1 {
		t.Errorf("%d writers", n)
	}
	if err := r.v.Seal("pkgs/c-1-0.conda", r.v.Generation("pkgs/c-1-0.conda"), entry, move); !fault.Is(err, fault.Busy) {
		t.Errorf("open for writing: %v", err)
	}
	check(t, w.Release())
}

func TestSealCanBeRepeated(t *testing.T) {
	r := newRig(t)
	check(t, r.mkdir("pkgs/c-1-0", 0o755))
	for _, f := range []string{"1", "2", "3"} {
		check(t, r.create("pkgs/c-1-0/"+f, f, 0o644))
	}
	before := r.dump()
	h, err := r.v.Harvest("pkgs/c-1-0")
	check(t, err)
	entry, err := r.entryOf(h)
	check(t, err)
	moves := 0
	err = r.v.Seal("pkgs/c-1-0", h.Gen, entry, moveFunc(func(_ string, dirfd int, name string) error {
		if moves++; moves == 2 {
			return unix.ENOSPC
		}
		return unix.Unlinkat(dirfd, name, 0)
	}))
	want(t, "a full disk", err, unix.ENOSPC)
	seen := map[string]bool{}
	check(t, r.v.Seal("pkgs/c-1-0", h.Gen, entry, moveFunc(func(rel string, dirfd int, name string) error {
		seen[rel] = true
		if err := unix.Unlinkat(dirfd, name, 0); err != unix.ENOENT {
			return err
		}
		return nil
	})))
	if len(seen) < 2 || !maps.Equal(before, r.dump()) {
		t.Errorf("%v moved, shows %v", seen, r.dump())
	}
}

func TestGain(t *testing.T) {
	r := newRig(t)
	r.src.tree(t, "elsewhere/c", map[string]string{"f": "gained"})
	entry := r.src.entries["elsewhere/c"]
	var heard []string
	r.v.onInvalid(func(_ *Node, name string) { heard = append(heard, name) })
	gain := func(path string, want bool) {
		t.Helper()
		if ok, err := r.v.Gain(path, entry); ok != want || err != nil {
			t.Errorf("gain %s: %v, %v", path, ok, err)
		}
	}
	gain("pkgs/c-1-0", true)
	gain("pkgs/c-1-0", true)
	gain("pkgs/a-1-0", false)
	gain("nowhere/c-1-0", false)
	gain("pkgs/urls.txt/c-1-0", false)
	check(t, r.rename("pkgs/b-1-0", "pkgs/x-1-0", 0))
	gain("pkgs/b-1-0", false)
	if !slices.Equal(heard, []string{"c-1-0"}) {
		t.Errorf("heard of %v", heard)
	}
	for range 2 {
		if s, err := r.read("pkgs/c-1-0/f"); s != "gained" || err != nil {
			t.Errorf("%q, %v", s, err)
		}
		r.reopen()
	}
	check(t, r.unlink("pkgs/c-1-0/f"))
	check(t, r.rmdir("pkgs/c-1-0"))
	gain("pkgs/c-1-0", false)
	r.reopen()
	if _, err := r.stat("pkgs/c-1-0"); err != unix.ENOENT {
		t.Error(err)
	}
	gain("pkgs/c-1-0", false)
}

func TestRebase(t *testing.T) {
	r := newRig(t)
	next := &memSource{dir: r.src.dir, entries: maps.Clone(r.src.entries), trees: r.src.trees}
	next.file(t, "u7/pkgs/urls.txt", "newer\n")
	next.tree(t, "shared/pkgs/c-1-0", map[string]string{"f": "new"})
	delete(next.entries, "shared/pkgs/a-1-0")
	var heard []string
	r.v.onInvalid(func(_ *Node, name string) { heard = append(heard, name) })
	check(t, r.create("pkgs/x", "", 0o644))
	if err := r.v.rebase(next); !fault.Is(err, fault.Busy) {
		t.Errorf("with changes: %v", err)
	}
	check(t, r.unlink("pkgs/x"))
	var nodes []*Node
	for _, p := range []string{"pkgs/urls.txt", "pkgs/a-1-0/lib", "pkgs/cache/1.json"} {
		n, err := r.node(p)
		check(t, err)
		nodes = append(nodes, n)
	}
	check(t, r.v.rebase(next))
	slices.Sort(heard)
	if !slices.Equal(heard, []string{"a-1-0", "c-1-0", "urls.txt"}) {
		t.Errorf("heard of %v", heard)
	}
	if n, err := r.node("pkgs/cache/1.json"); n != nodes[2] || err != nil {
		t.Errorf("the same is another node, %v", err)
	}
	r.v.Forget(nodes[2], 1)
	if s, err := r.read("pkgs/urls.txt"); s != "newer\n" || err != nil {
		t.Errorf("%q, %v", s, err)
	}
	if _, err := r.stat("pkgs/a-1-0"); err != unix.ENOENT {
		t.Error(err)
	}
	if a, err := r.v.Getattr(nodes[1], nil); err != nil || a.Nlink != 0 {
		t.Errorf("%+v, %v", a, err)
	}
	for _, n := range nodes {
		r.v.Forget(n, 1)
	}
	fresh, err := openView(next, filepath.Join(t.TempDir(), "upper"), r.v.lower.spaces, 7, 8, nil)
	check(t, err)
	other := &rig{t: t, src: next, v: fresh}
	if got, want := r.dump(), other.dump(); !maps.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	check(t, fresh.Close())
}

func TestDeepAndLongNames(t *testing.T) {
	r := newRig(t)
	name := strings.Repeat("\xffx", 127)
	dir := r.v.Root()
	var held []*Node
	for range 40 { // deeper than a path can be long
		n, _, err := r.v.Mkdir(dir, name, 0o755)
		check(t, err)
		held = append(held, n)
		dir = n
	}
	n, _, h, err := r.v.Create(dir, "f", unix.O_RDWR, 0o644)
	check(t, err)
	check(t, h.Release())
	r.v.Forget(n, 1)
	check(t, r.v.Unlink(dir, "f"))
	for _, n := range held {
		r.v.Forget(n, 1)
	}
	if len(r.v.root.children) != 0 {
		t.Error("nodes are left")
	}
}

func TestGainedLogSurvivesTornWrite(t *testing.T) {
	r := newRig(t)
	r.src.tree(t, "elsewhere/c", map[string]string{"f": "gained"})
	for _, p := range []string{"pkgs/c-1-0", "pkgs/d-1-0"} {
		if ok, err := r.v.Gain(p, r.src.entries["elsewhere/c"]); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	file := filepath.Join(filepath.Dir(r.upper), "gained")
	fi, err := os.Stat(file)
	check(t, err)
	check(t, os.Truncate(file, fi.Size()-5))
	r.reopen()
	ok, err := r.v.Gain("pkgs/e-1-0", r.src.entries["elsewhere/c"])
	if !ok || err != nil {
		t.Fatal(ok, err)
	}
	r.reopen()
	for p, want := range map[string]error{"pkgs/c-1-0/f": nil, "pkgs/d-1-0/f": unix.ENOENT, "pkgs/e-1-0/f": nil} {
		if _, err := r.stat(p); err != want {
			t.Errorf("%s: %v, want %v", p, err, want)
		}
	}
}
