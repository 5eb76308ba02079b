package cow

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"condafs/beneath"
	"condafs/conda"
	"condafs/internal/failpoint"
)

// lane is a native directory in which a client unpacks a package, past the mount: making a file
// there takes one system call in the place of four round trips. In the view, a link leads to it. When the
// package is complete, or its client has given it its name, the view takes the lane's content into the overlay: see takeOver and landLane.
//
// In the session's directory of lanes, a lane has up to three names:
//
//	ID        the directory; from when it is taken over, a link to the package on the mount, for
//	          clients that go on by the path that they have resolved before
//	ID.taken  the directory, while its content is taken over
//	ID.new    what is to take the link's place in the overlay
type lane struct {
	id   string
	born time.Time // what is older came out of an archive
	node *Node     // the link; nil when it is over. Guarded by the view's lock

	taking sync.Mutex // held by who takes it over; guards what follows
	look   time.Time  // not before then is it worth looking through all of it again
	told   bool       // that it could not be taken over
}

const (
	takenSuffix = ".taken"
	newSuffix   = ".new"
)

// lanes are those of a view.
type lanes struct {
	dir    string           // where they lie; "" for a view without an overlay
	exist  bool             // dir may hold some; guarded by View.mu, as what follows
	live   map[string]*lane // by id
	count  atomic.Int32     // of those that live, for who has no lock
	over   []*lane          // whose directories are to be removed
	target string           // the mount, to which links lead back
	// wanted is asked whether a client's process is to unpack a package in a lane.
	wanted func(path string, pid int) bool
	// made is called when there is one more.
	made func()
	// trouble hears why a lane could not be taken over.
	trouble func(err error)
}

// Volatile reports whether the name must be looked up each time: a client that makes a directory may
// find that it has become a link, and later one again.
func (n *Node) Volatile() bool { return n.lane != nil }

// liveLane returns the lane that a node is the link to, or nil. v.mu is held.
func (n *Node) liveLane() *lane {
	if n.lane == nil || n.lane.node != n {
		return nil
	}
	return n.lane
}

// Unpack is Mkdir for a client's process or thread. Where that is about to unpack a package
// whose archive lies beside, the directory may be a native one: then the name is a link from now on.
func (v *View) Unpack(dir *Node, name string, mode uint32, pid int) (*Node, Attr, error) {
	if path, ok := v.unpacks(dir, name); ok && v.lanes.wanted(path, pid) {
		n, a, err := v.makeLane(dir, name, mode)
		if err == nil {
			v.lanes.made()
		}
		return n, a, err
	}
	return v.Mkdir(dir, name, mode)
}

// unpacks reports whether somebody who makes a directory is about to unpack an archive into it: conda's clients have that beside it,
// rattler's what they know of it.
func (v *View) unpacks(dir *Node, name string) (path string, ok bool) {
	if v.lanes.wanted == nil {
		return "", false
	}
	v.mu.RLock()
	at, ok := dir.path()
	v.mu.RUnlock()
	path = join(at, name)
	if !ok {
		return "", false
	}
	var beside []string
	if u := conda.Classify(path, true); u.Kind == conda.Package && u.Root == path {
		beside = conda.Archives(name)
	} else if pkg, ok := conda.RattlerTarget(path); ok {
		for _, sidecar := range conda.Classify(pkg, true).Sidecars {
			beside = append(beside, lastName(sidecar))
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, name := range beside {
		if _, err := v.find(dir, name, true); err == nil {
			return path, true
		}
	}
	return "", false
}

func (v *View) makeLane(dir *Node, name string, mode uint32) (*Node, Attr, error) {
	defer v.queue.flush()
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.vacant(dir, name); err != nil {
		return nil, Attr{}, err
	}
	l := &lane{id: newID()}
	native := filepath.Join(v.lanes.dir, l.id)
	made := made{v: v}
	if err := unix.Mkdir(native, 0o700); err != nil {
		return nil, Attr{}, err
	}
	var st unix.Stat_t
	err := unix.Chmod(native, nativeMode(unix.S_IFDIR, mode)) // whatever the daemon's umask is
	if err == nil {
		err = unix.Lstat(native, &st)
	}
	if err == nil {
		err = v.make(dir, name, int64(len(native)), func(dirfd int, name string) error {
			if err := unix.Symlinkat(native, dirfd, name); err != nil {
				return err
			}
			return fstatat(dirfd, name, &made.st)
		})
	}
	if err != nil {
		_ = unix.Rmdir(native) // the error is told already; what stays goes with the session
		return nil, Attr{}, err
	}
	failpoint.Hit(failpoint.LaneMade, v.upperDir)
	l.born = time.Unix(made.st.Mtim.Unix())
	v.enterLane(l, v.addedAs(dir, name, &made, true))

	// Who makes a directory is to get one. This one has no name: the next lookup finds the link.
	d := v.newNode(unix.S_IFDIR, st.Ino)
	d.upper, d.lane = true, l
	a := v.nativeAttr(d, &st)
	a.Mode = unix.S_IFDIR | mode&modeBits
	d.last = &remains{Attr: a}
	v.take(d)
	return d, a, nil
}

// enterLane notes that a node is the link to a lane. v.mu is held for writing.
func (v *View) enterLane(l *lane, n *Node) {
	l.node, n.lane = n, l
	if v.lanes.live == nil {
		v.lanes.live = make(map[string]*lane)
	}
	v.lanes.live[l.id] = l
	v.lanes.count.Store(int32(len(v.lanes.live)))
	v.lanes.exist = true
}

// foundLink makes a new node of a link in the overlay a lane's, if it leads to one. v.mu is held for writing.
func (v *View) foundLink(n *Node, dirfd int, name string, st *unix.Stat_t) error {
	if !v.lanes.exist {
		return nil
	}
	buf := make([]byte, unix.PathMax)
	size, err := unix.Readlinkat(dirfd, name, buf)
	if err != nil {
		return err
	}
	id, ok := v.lanes.leadsTo(string(buf[:size]))
	if !ok || v.lanes.live[id] != nil {
		return nil
	}
	native := filepath.Join(v.lanes.dir, id)
	if isNativeDir(unix.AT_FDCWD, native) || isNativeDir(unix.AT_FDCWD, native+takenSuffix) || isNativeDir(unix.AT_FDCWD, native+newSuffix) {
		v.enterLane(&lane{id: id, born: time.Unix(st.Mtim.Unix())}, n)
	}
	return nil
}

func isNativeDir(dirfd int, name string) bool {
	var st unix.Stat_t
	return fstatat(dirfd, name, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

// isLane reports whether a name in the overlay is the link to a lane. v.mu is held for writing.
func (v *View) isLane(dir *Node, name string, u upperName) (bool, error) {
	if u.typ != unix.S_IFLNK || !v.lanes.exist {
		return false, nil
	}
	n, err := v.child(dir, name)
	if err != nil {
		return false, err
	}
	defer v.tidy(n)
	return n.liveLane() != nil, nil
}

// leadsTo returns the id of the lane that a link leads to. The store may lie elsewhere by now.
func (l *lanes) leadsTo(target string) (id string, ok bool) {
	session := filepath.Base(filepath.Dir(l.dir))
	dir, id := filepath.Split(target)
	if !strings.HasSuffix(dir, "/"+session+"/"+filepath.Base(l.dir)+"/") || len(id) == 0 || strings.Trim(id, idAlphabet) != "" {
		return "", false
	}
	return id, true
}

// leaveLane notes that the link to a lane has lost its last name. v.mu is held for writing.
func (v *View) leaveLane(l *lane) {
	v.closeLane(l)
	v.lanes.over = append(v.lanes.over, l)
}

// closeLane notes that nothing leads to a lane any more. v.mu is held for writing.
func (v *View) closeLane(l *lane) {
	l.node = nil
	delete(v.lanes.live, l.id)
	v.lanes.count.Store(int32(len(v.lanes.live)))
}

// liveLanes returns the lanes that there are.
func (v *View) liveLanes() []*lane {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if v.closed {
		return nil
	}
	list := make([]*lane, 0, len(v.lanes.live))
	for _, l := range v.lanes.live {
		list = append(list, l)
	}
	return list
}

// hasLanes reports whether there are any, or what they have left to be removed.
func (v *View) hasLanes() bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return !v.closed && len(v.lanes.live)+len(v.lanes.over) > 0
}

// dropLanes gives all lanes up. The view takes no changes any more.
func (v *View) dropLanes() error {
	v.mu.Lock()
	for _, l := range v.lanes.live {
		v.leaveLane(l)
	}
	v.mu.Unlock()
	return v.sweepLanes()
}

// passLane has a lane taken over, if the package is complete in it, before a client goes through its name.
func (v *View) passLane(dir *Node, name string) {
	l := v.laneAt(dir, name)
	if l == nil {
		return
	}
	if _, err := v.takeOver(l, false); err != nil {
		v.laneTrouble(l, err)
	}
}

// laneAt returns the lane that a name leads to, or nil.
func (v *View) laneAt(dir *Node, name string) *lane {
	if v.lanes.count.Load() == 0 {
		return nil
	}
	v.mu.RLock()
	defer v.mu.RUnlock()
	if n := dir.children[name]; n != nil {
		return n.liveLane()
	}
	return nil
}

// landLane has a lane taken over before its client gives it another name, if that is how the client says that all of the package is there.
func (v *View) landLane(dir *Node, name string) error {
	l := v.laneAt(dir, name)
	if l == nil {
		return nil
	}
	if path, ok := v.lanePath(l); !ok || !landsByRename(path) {
		return nil
	}
	return v.takeLane(l, true)
}

// landsByRename reports whether a package is complete when its directory gets its name, and not before: rattler's are.
func landsByRename(path string) bool {
	_, ok := conda.RattlerTarget(path)
	return ok
}

// laneTrouble tells once that a lane could not be taken over.
func (v *View) laneTrouble(l *lane, err error) {
	l.taking.Lock()
	told := l.told
	l.told = true
	l.taking.Unlock()
	if f := v.lanes.trouble; f != nil && !told {
		f(err)
	}
}

// sweepLanes removes what clients have removed.
func (v *View) sweepLanes() error {
	v.mu.Lock()
	over := v.lanes.over
	v.lanes.over = nil
	v.mu.Unlock()
	for i, l := range over {
		if err := v.removeLane(l); err != nil {
			v.mu.Lock()
			v.lanes.over = append(v.lanes.over, over[i:]...)
			v.mu.Unlock()
			return err
		}
	}
	return nil
}

// dropStrayLanes has removed what no link leads to: its daemon died before it could do that.
func (v *View) dropStrayLanes() error {
	list, err := os.ReadDir(v.lanes.dir)
	if err != nil {
		return err
	}
	v.mu.Lock()
	for _, e := range list {
		id, _, _ := strings.Cut(e.Name(), ".")
		if v.lanes.live[id] == nil && e.Type() != os.ModeSymlink {
			v.lanes.over = append(v.lanes.over, &lane{id: id})
		}
	}
	v.mu.Unlock()
	return v.sweepLanes()
}

// removeLane removes what is on disk of a lane that is over. The way back to the mount stays for those who know it.
func (v *View) removeLane(l *lane) error {
	l.taking.Lock()
	defer l.taking.Unlock()
	dir, err := v.openLanes()
	if err != nil {
		return err
	}
	defer unix.Close(dir) //nolint:errcheck // of O_PATH, it has nothing to tell
	for _, suffix := range []string{takenSuffix, newSuffix} {
		if err := beneath.RemoveAll(dir, l.id+suffix); err != nil {
			return err
		}
	}
	if !isNativeDir(dir, l.id) {
		return nil
	}
	return beneath.RemoveAll(dir, l.id)
}

func (v *View) openLanes() (int, error) {
	fd, err := openat(unix.AT_FDCWD, v.lanes.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", v.lanes.dir, err)
	}
	return fd, nil
}

// laneUsage tells how much there is in lanes.
func (v *View) laneUsage() beneath.Usage {
	if !v.hasLanes() {
		return beneath.Usage{}
	}
	fd, err := v.openLanes()
	if err != nil {
		return beneath.Usage{}
	}
	defer unix.Close(fd)             //nolint:errcheck // of O_PATH, it has nothing to tell
	u, _ := beneath.Measure(fd, ".") // files come and go meanwhile: it is about right
	return u
}
