package cow

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"condafs/beneath"
	"condafs/conda"
	"condafs/fault"
	"condafs/internal/failpoint"
)

// takeOver makes a lane's content part of the overlay, in the place of the link. Unless all is to be
// taken as it is, that is done only when the package is complete and nobody writes to it. It reports whether
// the lane is over.
//
// Nothing that comes into the overlay can be written to by who has unpacked it: directories are made anew, and
// a file moves only if nobody has it open for writing, which a lease tells, and if it has no
// other name elsewhere. Otherwise it is copied. Who opens a name by the lane's path from then on is led to the mount.
func (v *View) takeOver(l *lane, all bool) (over bool, err error) {
	l.taking.Lock()
	defer l.taking.Unlock()
	path, ok := v.lanePath(l)
	if !ok {
		return true, nil
	}
	dir, err := v.openLanes()
	if err == nil {
		defer unix.Close(dir) //nolint:errcheck // of O_PATH, it has nothing to tell
		err = v.takeFrom(dir, l, path, all)
	}
	if err == errUnpacking {
		return false, nil
	}
	if err != nil {
		return false, fault.New("take over what was unpacked", path, fault.Other, err)
	}
	return true, nil
}

// takeLane takes a lane over, and tries once more if somebody has changed a file meanwhile: what that is now is known then. What goes wrong
// is told, too.
func (v *View) takeLane(l *lane, all bool) error {
	_, err := v.takeOver(l, all)
	if fault.Is(err, fault.Busy) {
		_, err = v.takeOver(l, all)
	}
	if err != nil {
		v.laneTrouble(l, err)
	}
	return err
}

// errUnpacking says that a client is still at it.
var errUnpacking = errors.New("a client is unpacking it")

func (v *View) takeFrom(dir int, l *lane, path string, all bool) error {
	if isNativeDir(dir, l.id) { // it has not begun
		if !all && (landsByRename(path) || !l.complete(dir)) {
			return errUnpacking
		}
		if err := l.begin(dir, v.lanes.target+"/"+path); err != nil {
			return err
		}
		if err := failpoint.Err(failpoint.LaneBegun, v.upperDir); err != nil {
			return err
		}
	}
	m := &laneMover{v: v, dir: dir, id: l.id, linked: make(map[uint64]*laneFile)}
	marked, err := m.move()
	if err != nil {
		return err
	}
	if err := failpoint.Err(failpoint.LaneMoved, v.upperDir); err != nil {
		return err
	}
	if err := v.installLane(dir, l, marked); err != nil {
		return err
	}
	if err := failpoint.Err(failpoint.LaneInstalled, v.upperDir); err != nil {
		return err
	}
	return errors.Join(beneath.RemoveAll(dir, l.id+newSuffix), beneath.RemoveAll(dir, l.id+takenSuffix))
}

// lanePath returns where the lane's package is, or false if the lane is over.
func (v *View) lanePath(l *lane) (string, bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if l.node == nil || v.closed {
		return "", false
	}
	return l.node.path()
}

// begin takes the directory away from its path, at once, and leaves the way to the mount there.
func (l *lane) begin(dir int, target string) error {
	taken := l.id + takenSuffix
	if err := beneath.RemoveAll(dir, taken); err != nil {
		return err
	}
	if err := unix.Symlinkat(target, dir, taken); err != nil {
		return err
	}
	return unix.Renameat2(dir, l.id, dir, taken, unix.RENAME_EXCHANGE)
}

// A lane that is not complete, though it looks so, is left alone for lanePauses times as long as it took to find that out.
const lanePauses = 10

// complete reports whether the client has done: the record, which clients write last, is there and was written
// since the lane was made, by nobody else than a client, as what comes out of an archive is older; everything that the
// package lists is there; and no file is open for writing.
func (l *lane) complete(dir int) bool {
	const record = "/" + conda.CompletionMarker
	var st unix.Stat_t
	if fstatat(dir, l.id+record, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || time.Unix(st.Mtim.Unix()).Before(l.born) {
		return false
	}
	begun := time.Now()
	if begun.Before(l.look) {
		return false
	}
	if f, err := beneath.OpenFile(dir, l.id+record); err != nil || errors.Join(unwritten(int(f.Fd())), f.Close()) != nil {
		return false // before anything that costs more
	}
	if l.hasAll(dir) {
		if top, err := beneath.Open(dir, l.id, unix.O_RDONLY|unix.O_DIRECTORY); err == nil {
			quiet := unwrittenBelow(top)
			if unix.Close(top) == nil && quiet {
				return true
			}
		}
	}
	ended := time.Now()
	l.look = ended.Add(lanePauses * ended.Sub(begun))
	return false
}

// hasAll reports whether everything is there that the package says it has. One that doesn't say so, or not in words that can be
// read, has what it has: whoever wrote the record was done.
func (l *lane) hasAll(dir int) bool {
	f, err := beneath.OpenFile(dir, l.id+"/"+conda.PathsPath)
	if err != nil {
		return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ELOOP) || err == beneath.ErrNotRegular
	}
	list, err := conda.ParsePaths(f)
	if cerr := f.Close(); cerr != nil || err != nil {
		return cerr == nil
	}
	top, err := beneath.Open(dir, l.id, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return false
	}
	defer unix.Close(top) //nolint:errcheck // of O_PATH, it has nothing to tell
	var st unix.Stat_t
	for i := range list.Paths {
		if fstatat(top, list.Paths[i].Path, &st) != nil {
			return false
		}
	}
	return true
}

// unwritten fails if anybody has a file open for writing, or mapped so: a lease to read it is given then to nobody.
func unwritten(fd int) error {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_RDLCK)
	return err // closing gives it back
}

// errWritten says that somebody has a file open for writing.
var errWritten = errors.New("it is being written")

// unwrittenBelow reports whether no file in a directory is open for writing. What cannot be opened does not count.
func unwrittenBelow(top int) bool {
	return eachLevel([]string{""}, func(rel string) ([]string, error) { return unwrittenIn(top, rel) }) == nil
}

// eachLevel calls f for directories, those that are equally deep in parallel, and then for those that f has found in them.
func eachLevel[T any](dirs []T, f func(dir T) (below []T, err error)) error {
	for len(dirs) > 0 {
		found := make([][]T, len(dirs))
		var g errgroup.Group
		g.SetLimit(runtime.GOMAXPROCS(0))
		for i, d := range dirs {
			g.Go(func() (err error) {
				found[i], err = f(d)
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
		dirs = slices.Concat(found...)
	}
	return nil
}

// unwrittenIn looks at the files of one directory, and returns the directories in it.
func unwrittenIn(top int, rel string) (dirs []string, err error) {
	if strings.Count(rel, "/") >= maxLaneLevels {
		return nil, nil
	}
	fd, err := beneath.Open(top, rel, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, nil
	}
	defer unix.Close(fd) //nolint:errcheck // read only
	list, err := readNames(fd)
	if err != nil {
		return nil, err
	}
	for _, e := range list {
		switch e.typ {
		case unix.S_IFDIR:
			dirs = append(dirs, join(rel, e.name))
		case unix.S_IFREG, 0:
			f, err := openat(fd, e.name, unix.O_RDONLY|laneFileFlags, 0)
			if err != nil {
				continue
			}
			if err := errors.Join(unwritten(f), unix.Close(f)); errors.Is(err, unix.EAGAIN) {
				return nil, errWritten
			}
		}
	}
	return dirs, nil
}

// laneFileFlags open what is a file, as it seems: should it be another thing by now, nobody waits for that.
const laneFileFlags = unix.O_NOFOLLOW | unix.O_NONBLOCK

// maxLaneLevels is how deep a package is taken over: what is deeper no path leads to.
const maxLaneLevels = unix.PathMax / 2

// laneMover moves what is in a lane into directories of the daemon's own. What it has done before it died stays done.
type laneMover struct {
	v      *View
	dir    int // that of the lanes
	id     string
	mu     sync.Mutex           // guards what follows
	dirs   []*laneDir           // those that were moved, parents first
	linked map[uint64]*laneFile // files with several names, by inode number
}

// laneFile is a file with several names.
type laneFile struct {
	names []string // its paths in the lane
	links int      // names in all
}

// laneDir is a directory, by its path in the lane, and what it was like.
type laneDir struct {
	rel string
	st  unix.Stat_t
}

func (m *laneMover) from(rel string) string { return join(m.id+takenSuffix, rel) }
func (m *laneMover) to(rel string) string   { return join(m.id+newSuffix, rel) }

// move moves everything. It returns the mark of the new directory.
func (m *laneMover) move() (top mark, err error) {
	err = eachLevel([]*laneDir{{}}, func(d *laneDir) ([]*laneDir, error) {
		below, err := m.moveNames(d)
		if err != nil {
			return nil, fault.New("", d.rel, fault.Other, err)
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		m.dirs = append(m.dirs, d)
		return below, nil
	})
	if err != nil {
		return mark{}, err
	}
	for _, f := range m.linked {
		if err := m.moveLinked(f); err != nil {
			return mark{}, fault.New("", f.names[0], fault.Other, err)
		}
	}
	for _, d := range slices.Backward(m.dirs) { // when nothing comes into them any more
		if top, err = m.finishDir(d); err != nil {
			return mark{}, fault.New("", d.rel, fault.Other, err)
		}
	}
	return top, nil
}

// moveNames makes a directory anew and moves what is in it, but for directories, which it returns.
func (m *laneMover) moveNames(d *laneDir) (below []*laneDir, err error) {
	if strings.Count(d.rel, "/") >= maxLaneLevels {
		return nil, fault.New("", "", fault.Unsupported, fmt.Errorf("more than %d directories inside of each other", maxLaneLevels))
	}
	src, err := m.openDir(d)
	if err == unix.ENOENT {
		return nil, nil // moved before
	}
	if err != nil {
		return nil, err
	}
	defer unix.Close(src) //nolint:errcheck // read only
	to, err := m.makeDir(d.rel)
	if err != nil {
		return nil, err
	}
	defer unix.Close(to) //nolint:errcheck // read only
	list, err := readNames(src)
	if err != nil {
		return nil, err
	}
	for _, e := range list {
		isDir := false
		err := failpoint.Err(failpoint.LaneFile, m.v.upperDir)
		if err == nil {
			isDir, err = m.moveName(join(d.rel, e.name), src, to, &e)
		}
		if err != nil {
			return nil, fault.New("", e.name, fault.Other, err)
		}
		if isDir {
			below = append(below, &laneDir{rel: join(d.rel, e.name)})
		}
	}
	return below, nil
}

// makeDir makes a directory, if a try before has not, and opens it.
func (m *laneMover) makeDir(rel string) (int, error) {
	at, name, err := beneath.Parent(m.dir, m.to(rel))
	if err != nil {
		return -1, err
	}
	defer unix.Close(at) //nolint:errcheck // of O_PATH, it has nothing to tell
	if err := unix.Mkdirat(at, name, 0o700); err != nil && err != unix.EEXIST {
		return -1, err
	}
	return openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
}

// finishDir gives a new directory the mode and the times of the one that it stands for.
func (m *laneMover) finishDir(d *laneDir) (mark, error) {
	at, name, err := beneath.Parent(m.dir, m.to(d.rel))
	if err != nil {
		return mark{}, err
	}
	defer unix.Close(at)                       //nolint:errcheck // of O_PATH, it has nothing to tell
	if d.st.Mode&unix.S_IFMT != unix.S_IFDIR { // it was moved, and finished, before
		return readMark(at, name)
	}
	c := made{v: m.v}
	m.v.mu.RLock()
	err = c.finishName(at, name, unix.S_IFDIR, d.st.Mode)
	m.v.mu.RUnlock()
	if err == nil {
		err = setTimes(at, name, d.st.Atim, d.st.Mtim)
	}
	return c.mark, err
}

// openDir opens a directory of a client's, and takes the right to if its mode forbids that. It notes what it was like before.
func (m *laneMover) openDir(d *laneDir) (int, error) {
	at, err := beneath.Open(m.dir, m.from(d.rel), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return -1, err
	}
	defer unix.Close(at) //nolint:errcheck // of O_PATH, it has nothing to tell
	if err := unix.Fstat(at, &d.st); err != nil {
		return -1, err
	}
	if d.st.Mode&0o700 != 0o700 {
		if err := unix.Chmod(procPath(at, ""), d.st.Mode&0o777|0o700); err != nil {
			return -1, err
		}
	}
	return openat(at, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
}

// moveName moves a name, unless it is a directory's.
func (m *laneMover) moveName(rel string, src, to int, e *dirEntry) (isDir bool, err error) {
	typ := e.typ
	if typ == 0 {
		var st unix.Stat_t
		if err := fstatat(src, e.name, &st); err != nil {
			return false, unlessGone(err)
		}
		typ = st.Mode & unix.S_IFMT
	}
	switch typ {
	case unix.S_IFDIR:
		return true, nil
	case unix.S_IFREG:
		return false, m.moveFile(rel, src, to, e.name)
	case unix.S_IFLNK, unix.S_IFIFO, unix.S_IFSOCK:
		return false, unlessGone(unix.Renameat(src, e.name, to, e.name))
	}
	return false, unlessGone(unix.Unlinkat(src, e.name, 0)) // a device, which nobody can make on the mount either; one of them is a whiteout
}

func unlessGone(err error) error {
	if err == unix.ENOENT {
		return nil
	}
	return err
}

// moveFile moves a file, or notes that it has several names.
func (m *laneMover) moveFile(rel string, src, to int, name string) error {
	fd, st, err := openLaneFile(src, name)
	if err != nil {
		return unlessGone(err)
	}
	defer unix.Close(fd) //nolint:errcheck // read only
	if st.Nlink > 1 {
		m.mu.Lock()
		defer m.mu.Unlock()
		f := m.linked[st.Ino]
		if f == nil {
			f = &laneFile{}
			m.linked[st.Ino] = f
		}
		f.names, f.links = append(f.names, rel), int(st.Nlink)
		return nil
	}
	if unwritten(fd) != nil {
		return m.copyFile(fd, st, src, to, name)
	}
	if err := m.own(fd, st); err != nil {
		return err
	}
	return renameFile(src, to, name, st.Ino, 1)
}

// renameFile moves the file that was looked at. If it is another by now, or has other names, that fails, and another try copies it.
func renameFile(src, to int, name string, ino uint64, links int) error {
	if err := unix.Renameat(src, name, to, name); err != nil {
		return err
	}
	var st unix.Stat_t
	err := fstatat(to, name, &st)
	if err == nil && (st.Ino != ino || int(st.Nlink) != links) {
		err = errors.Join(fault.New("", "", fault.Busy, errors.New("somebody has changed it meanwhile")), unix.Renameat(to, name, src, name))
	}
	return err
}

// openLaneFile opens a regular file of a client's. It returns what it was like before.
func openLaneFile(dirfd int, name string) (fd int, st *unix.Stat_t, err error) {
	st = new(unix.Stat_t)
	fd, err = openat(dirfd, name, unix.O_RDONLY|laneFileFlags, 0)
	switch err {
	case nil:
		err = unix.Fstat(fd, st)
	case unix.EACCES:
		fd, err = openForbidden(dirfd, name, st)
	}
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = beneath.ErrNotRegular
	}
	if err != nil && fd >= 0 {
		err = errors.Join(err, unix.Close(fd))
	}
	return fd, st, err
}

// openForbidden opens a file whose mode does not let its owner read it, and so is changed.
func openForbidden(dirfd int, name string, st *unix.Stat_t) (int, error) {
	at, err := openat(dirfd, name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(at) //nolint:errcheck // of O_PATH, it has nothing to tell
	if err := unix.Fstat(at, st); err != nil {
		return -1, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return -1, beneath.ErrNotRegular
	}
	if err := unix.Chmod(procPath(at, ""), st.Mode&0o777|0o600); err != nil {
		return -1, err
	}
	return openat(unix.AT_FDCWD, procPath(at, ""), unix.O_RDONLY, 0)
}

// own gives a file what files of the overlay have: the daemon's user, a mode that it can open it with, and a mark where it shows another, or
// another inode number. Marks that are not ours go, and what would let anybody do more than the mode says.
func (m *laneMover) own(fd int, was *unix.Stat_t) error {
	if uid, gid := os.Geteuid(), os.Getegid(); int(was.Uid) != uid || int(was.Gid) != gid {
		if err := unix.Fchown(fd, uid, gid); err != nil {
			return err
		}
	}
	names, err := listXattrs(fd)
	if err != nil {
		return err
	}
	for _, name := range names {
		if hiddenXattr(name) || name == "security.capability" || name == "system.posix_acl_access" {
			if err := unix.Fremovexattr(fd, name); err != nil && err != unix.ENODATA {
				return err
			}
		}
	}
	c := made{v: m.v}
	m.v.mu.RLock()
	defer m.v.mu.RUnlock()
	return c.finish(fd, unix.S_IFREG, was.Mode)
}

func listXattrs(fd int) ([]string, error) {
	var none [0]byte
	size, err := unix.Flistxattr(fd, none[:])
	if err == unix.EOPNOTSUPP || err == nil && size == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	buf := make([]byte, size)
	if size, err = unix.Flistxattr(fd, buf); err != nil {
		return nil, err
	}
	return splitXattrs(buf[:size]), nil
}

// copyFile copies a file that somebody else can write to. What is written to the original from now on is lost.
func (m *laneMover) copyFile(from int, st *unix.Stat_t, src, to int, name string) error {
	f, err := os.Open(procPath(from, ""))
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // read only
	fd, err := openat(to, name, unix.O_RDWR|unix.O_CREAT|unix.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	dst := os.NewFile(uintptr(fd), name)
	if err = unix.IoctlFileClone(fd, from); err != nil {
		_, err = io.Copy(dst, f)
	}
	if err == nil {
		err = m.own(fd, st)
	}
	if err = closeAfter(dst, err); err != nil {
		return err
	}
	if err := setTimes(to, name, st.Atim, st.Mtim); err != nil {
		return err
	}
	return unix.Unlinkat(src, name, 0)
}

// moveLinked moves a file with several names, if all are in the lane; else a copy takes them.
func (m *laneMover) moveLinked(f *laneFile) error {
	first := ""
	for _, rel := range f.names {
		if err := m.moveLink(f, rel, &first); err != nil {
			return err
		}
	}
	return nil
}

// moveLink moves one name. first is that of the copy, once there is one.
func (m *laneMover) moveLink(l *laneFile, rel string, first *string) error {
	src, name, err := beneath.Parent(m.dir, m.from(rel))
	if err != nil {
		return err
	}
	defer unix.Close(src) //nolint:errcheck // of O_PATH, it has nothing to tell
	to, _, err := beneath.Parent(m.dir, m.to(rel))
	if err != nil {
		return err
	}
	defer unix.Close(to) //nolint:errcheck
	if *first != "" {
		if err := unix.Unlinkat(to, name, 0); err != nil && err != unix.ENOENT { // of a try before
			return err
		}
		at, one, err := beneath.Parent(m.dir, m.to(*first))
		if err != nil {
			return err
		}
		err = unix.Linkat(at, one, to, name, 0)
		if err = errors.Join(err, unix.Close(at)); err != nil {
			return err
		}
		return unix.Unlinkat(src, name, 0)
	}
	f, st, err := openLaneFile(src, name)
	if err != nil {
		return err
	}
	defer unix.Close(f) //nolint:errcheck // read only
	if l.links > len(l.names) || unwritten(f) != nil {
		*first = rel
		return m.copyFile(f, st, src, to, name)
	}
	if rel == l.names[0] {
		if err := m.own(f, st); err != nil {
			return err
		}
	}
	return renameFile(src, to, name, st.Ino, l.links)
}

// installLane puts what was moved in the place of the link.
func (v *View) installLane(dir int, l *lane, marked mark) error {
	defer v.queue.flush()
	v.mu.Lock()
	defer v.mu.Unlock()
	n := l.node
	if n == nil {
		return nil // its client has removed it
	}
	if v.closed {
		return unix.ESTALE
	}
	at := n.links[0]
	path := at.dir.at(at.name)
	fresh := l.id + newSuffix
	// A link hides what is below; a directory would show it.
	cover, err := v.covers(at.dir, at.name)
	if err == nil && cover {
		err = setOpaque(dir, fresh)
	}
	var st unix.Stat_t
	if err == nil {
		err = fstatat(dir, fresh, &st)
	}
	if err != nil {
		return err
	}
	a, err := v.attr(n)
	if err != nil {
		return err
	}
	n.last = &remains{Attr: a}
	if n.last.target, err = v.readlink(n); err != nil {
		return err
	}
	d, err := v.dir(at.dir)
	if err != nil {
		return err
	}
	defer d.release()
	if err := keepMtime(d.fd, func() error { return unix.Renameat2(dir, fresh, d.fd, at.name, unix.RENAME_EXCHANGE) }); err != nil {
		return err
	}
	c := made{st: st, mark: marked}
	at.dir.names[at.name] = upperName{typ: unix.S_IFDIR, ino: c.ino(), marked: marked != mark{}}
	v.closeLane(l)
	n.detach(at.dir, at.name)
	v.tidy(n)
	v.gens.bumpBelow(path)
	v.invalidate(at.dir, at.name)
	v.queue.emit(Event{Op: Closed, Path: join(path, conda.CompletionMarker)})
	return nil
}
