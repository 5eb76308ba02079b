package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"condafs/cow"
)

// The mount's own names, beside which there is nothing in its root.
const (
	pkgsName      = "pkgs"
	unshelvedName = "unshelved"
	rattlerName   = "rattler"
	sessionsName  = ".sessions"
	headName      = ".head"
	infoName      = ".condafs"
)

var fixedNames = []struct {
	name string
	id   uint64
	mode uint32
}{
	{pkgsName, idPkgs, unix.S_IFLNK},
	{unshelvedName, idUnshelved, unix.S_IFLNK},
	{rattlerName, idRattler, unix.S_IFLNK},
	{sessionsName, idSessions, unix.S_IFDIR},
	{headName, idHead, unix.S_IFDIR},
	{infoName, idInfo, unix.S_IFREG},
}

// lookupFixed finds a name in the mount's root. The names there never change; what
// the magic links lead to does, but the kernel asks for that each time.
func (f *fileSystem) lookupFixed(name string, out *fuse.EntryOut) fuse.Status {
	for _, x := range fixedNames {
		if x.name != name {
			continue
		}
		if x.id == idHead {
			attr, err := f.attr(f.find(idHead), nil)
			if err != nil {
				return f.status("lookup", err)
			}
			setEntry(out, idHead, &attr, forever)
			out.SetAttrTimeout(f.head.ttl())
			return fuse.OK
		}
		attr, _ := f.fixedAttr(x.id)
		setEntry(out, x.id, &attr, forever)
		return fuse.OK
	}
	setAbsent(out, forever)
	return fuse.OK
}

// fixedAttr returns the attributes of a node of the mount's own.
func (f *fileSystem) fixedAttr(id uint64) (cow.Attr, bool) {
	a := cow.Attr{Ino: id, Nlink: 1, UID: f.uid, GID: f.gid, Atime: f.born, Mtime: f.born, Ctime: f.born}
	switch id {
	case idRoot:
		a.Mode, a.Nlink = unix.S_IFDIR|0555, 4
	case idSessions:
		a.Mode, a.Nlink = unix.S_IFDIR|0555, 2
	case idPkgs, idUnshelved, idRattler:
		a.Mode = unix.S_IFLNK | 0777
	case idInfo:
		a.Mode, a.Size = unix.S_IFREG|0444, int64(len(f.info))
	default:
		return a, false
	}
	return a, true
}

// lookupSession finds a session's root. That a session exists may be cached, as
// SessionEnded takes it back; that one doesn't may not.
func (f *fileSystem) lookupSession(id string, out *fuse.EntryOut) fuse.Status {
	s, ok := f.engine.Session(id)
	if !ok || f.notify.ended.has(id) {
		return fuse.ENOENT
	}
	nd := f.nodes.addRoot(s.View())
	attr, err := f.attr(nd, nil)
	if err != nil {
		f.nodes.forget(nd.id, 1)
		return f.status("lookup", err)
	}
	setEntry(out, nd.id, &attr, nd.ttl())
	return fuse.OK
}

// readMagic answers the only question whose answer depends on who asks.
func (f *fileSystem) readMagic(in *fuse.InHeader) ([]byte, fuse.Status) {
	s, err := f.engine.SessionFor(int(in.Pid), in.Uid, in.Gid, in.NodeId == idUnshelved)
	if err != nil {
		return nil, f.status("session", err)
	}
	name := pkgsName
	if in.NodeId == idRattler {
		name = rattlerName
	}
	return []byte(sessionsName + "/" + s.ID() + "/" + name), fuse.OK
}
