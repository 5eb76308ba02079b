package fs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"condafs/cow"
	"condafs/fault"
)

// Image is all that a server knows and the kernel relies on. Another process that gets
// it, with the open connection, serves the same mount from where this one stopped: see
// Resume. It is plain data.
type Image struct {
	FD            int    // the connection
	Hello, Answer []byte // the kernel's first request, and what it was answered
	MountPoint    string
	Abort         string
	Born          unix.Timespec
	Passthrough   bool

	Nodes    []nodeImage
	Files    []fileImage
	LastFile uint64
	Dirs     []dirImage
	LastDir  uint64
	Notices  []noticeImage
	Ended    map[string]int
}

type nodeImage struct {
	ID       uint64
	Refs     uint64
	Over     bool
	Handles  int
	Backing  *backingImage
	Bypassed bool
	Cached   identityImage
}

type backingImage struct {
	ID   int32
	File identityImage
}

type identityImage struct {
	Major, Minor uint32
	Ino          uint64
	BornSec      int64
	BornNsec     uint32
}

type fileImage struct {
	FH, Node uint64
	Handle   int // a number of cow's
}

type dirImage struct {
	FH, Node uint64
	Listed   bool
	List     []cow.Dirent
	Kept     int
}

type noticeImage struct {
	Node uint64
	Name string
}

func (i identity) image() identityImage {
	return identityImage{i.major, i.minor, i.ino, i.born.Sec, i.born.Nsec}
}

func (i identityImage) restore() identity {
	return identity{i.Major, i.Minor, i.Ino, unix.StatxTimestamp{Sec: i.BornSec, Nsec: i.BornNsec}}
}

// Pause stops to take requests and returns when those that had been taken are answered.
// Clients that make more wait. If that takes longer than patience, it fails with
// fault.Busy, and all goes on. The engine must be paused.
func (s *Server) Pause(patience time.Duration) error {
	end := time.Now().Add(patience)
	// Notices first: the kernel may have them wait for requests.
	if !s.fs.notify.pause(patience) {
		return fault.New("pause", s.mountPoint, fault.Busy, errors.New("the kernel does not take a notice"))
	}
	if !s.fs.device.pause(time.Until(end)) {
		s.fs.notify.goOn()
		return fault.New("pause", s.mountPoint, fault.Busy, errors.New("a request is not answered"))
	}
	return nil
}

// Continue lets all go on after a Pause.
func (s *Server) Continue() {
	s.fs.device.start()
	s.fs.notify.goOn()
}

// Draw makes the images of a paused server and of its engine.
func (s *Server) Draw() (*Image, *cow.Image, error) {
	f := s.fs
	nodes := f.nodes.all()
	f.files.mu.RLock()
	defer f.files.mu.RUnlock()
	for _, fl := range f.files.m {
		nodes[fl.nd] = true // the kernel may have forgotten it by name
	}
	var known []*cow.Node
	for nd := range nodes {
		known = append(known, nd.tree)
	}
	engine, numbers, err := f.engine.Draw(known)
	if err != nil {
		return nil, nil, err
	}
	img := &Image{
		Hello: f.device.hello, Answer: f.device.answer, MountPoint: s.mountPoint, Abort: s.abort, Born: f.born,
		Passthrough: f.passthrough.Load(), LastFile: f.files.last, Ended: f.notify.ended.last(), Notices: f.notify.image(),
	}
	err = f.device.use(func(fd int) error {
		img.FD = fd
		return nil
	})
	if err != nil {
		return nil, nil, fault.New("hand over", s.mountPoint, fault.NotMounted, err)
	}
	for nd := range nodes {
		img.Nodes = append(img.Nodes, nd.image())
	}
	for fh, fl := range f.files.m {
		img.Files = append(img.Files, fileImage{fh, fl.nd.id, numbers[fl.h]})
	}
	f.dirs.mu.RLock()
	defer f.dirs.mu.RUnlock()
	img.LastDir = f.dirs.last
	for fh, d := range f.dirs.m {
		img.Dirs = append(img.Dirs, dirImage{fh, d.id, d.listed, d.list, d.kept})
	}
	return img, engine, nil
}

func (nd *node) image() nodeImage {
	nd.open.mu.Lock()
	defer nd.open.mu.Unlock()
	img := nodeImage{ID: nd.id, Refs: nd.refs, Over: nd.over.Load(), Handles: nd.open.handles, Bypassed: nd.open.bypassed, Cached: nd.open.cached.image()}
	if b := nd.open.backing; b != nil {
		img.Backing = &backingImage{b.id, b.file.image()}
	}
	return img
}

// Compatible tells whether this program would have agreed with the kernel on the same
// as the one that has mounted: that can't be changed while the mount lives.
func Compatible(store string, hello, answer []byte) error {
	f := &fileSystem{log: slog.New(slog.DiscardHandler), store: store}
	d := &device{server: f.protocol(), hello: hello}
	got, err := d.negotiate()
	if err == nil && !bytes.Equal(got, answer) {
		err = errors.New("this condafs would have mounted with other features of the kernel")
	}
	if err != nil {
		return fault.New("take over", "", fault.Version, err).WithHint("unmount, and mount with the new one")
	}
	return nil
}

// Resume serves a mount that another process has mounted, from where it stopped, with
// the engine that was resumed and its Refs. Requests are taken from Continue on. What
// fails has changed nothing.
func Resume(engine *cow.Engine, refs *cow.Refs, img *Image, o MountOptions) (*Server, error) {
	const op = "take over"
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	info, err := o.info()
	if err != nil {
		return nil, fault.New(op, img.MountPoint, fault.Other, err)
	}
	f := newFileSystem(engine, o.Logger, info, o.Store)
	f.born = img.Born
	f.passthrough.Store(img.Passthrough)
	if f.device, err = newDevice(img.FD, f.protocol(), img.MountPoint, o.Logger); err != nil {
		return nil, fault.New(op, img.MountPoint, fault.Other, err)
	}
	f.device.hello, f.device.answer = img.Hello, img.Answer
	answer, err := f.device.negotiate()
	if err == nil && !bytes.Equal(answer, img.Answer) {
		err = errors.New("the kernel was promised something else")
	}
	if err != nil {
		return nil, fault.New(op, img.MountPoint, fault.Version, err)
	}
	if err := f.restore(refs, img); err != nil {
		return nil, fault.New(op, img.MountPoint, fault.Corrupt, err)
	}
	s := &Server{mountPoint: img.MountPoint, direct: direct(), abort: img.Abort, fs: f, done: make(chan struct{})}
	f.device.paused = true
	f.notify.pause(0) // nothing has begun: it succeeds
	f.notify.add(notice{idInfo, ""})
	s.serve()
	return s, nil
}

var errImage = errors.New("the image of the mount makes no sense")

// restore fills the tables.
func (f *fileSystem) restore(refs *cow.Refs, img *Image) error {
	over := make(map[*cow.View]*atomic.Bool)
	nodes := make(map[uint64]*node)
	for _, n := range img.Nodes {
		if n.ID < idOffset || refs.Nodes[n.ID-idOffset] == nil || nodes[n.ID] != nil {
			return fmt.Errorf("%w: node %d is unknown, or twice there (%t)", errImage, n.ID, nodes[n.ID] != nil)
		}
		tree := refs.Nodes[n.ID-idOffset]
		view := tree.View()
		if over[view] == nil {
			over[view] = new(atomic.Bool)
		}
		if n.Over {
			over[view].Store(true)
		}
		nd := &node{id: n.ID, tree: tree, view: view, over: over[view], valid: forever, refs: n.Refs, private: tree == view.Root()}
		if view == f.head.view {
			nd.valid = briefly
		}
		nd.open.handles, nd.open.bypassed, nd.open.cached = n.Handles, n.Bypassed, n.Cached.restore()
		if n.Backing != nil {
			nd.open.backing = &backing{n.Backing.ID, n.Backing.File.restore()}
		}
		nodes[n.ID] = nd
		f.nodes.shard(n.ID).m[n.ID] = nd
	}
	f.files.last, f.files.m = img.LastFile, make(map[uint64]*file)
	for _, x := range img.Files {
		if nodes[x.Node] == nil || x.Handle < 0 || x.Handle >= len(refs.Handles) || x.FH == 0 || x.FH > img.LastFile {
			return errImage
		}
		f.files.m[x.FH] = &file{nodes[x.Node], refs.Handles[x.Handle]}
	}
	f.dirs.last, f.dirs.m = img.LastDir, make(map[uint64]*dir)
	for _, x := range img.Dirs {
		d := &dir{id: x.Node, nd: nodes[x.Node], listed: x.Listed, list: x.List, kept: x.Kept}
		if x.Node == idHead {
			d.nd = f.head
		}
		if x.FH == 0 || x.FH > img.LastDir || d.nd == nil && x.Node >= idOffset {
			return errImage
		}
		if d.nd != nil {
			if err := d.nd.view.KeepListing(-1, d.kept); err != nil {
				return err
			}
		}
		f.dirs.m[x.FH] = d
	}
	f.notify.ended.restore(img.Ended)
	for _, x := range img.Notices {
		f.notify.add(notice{x.Node, x.Name})
	}
	return nil
}

// all returns all nodes.
func (t *nodeTable) all() map[*node]bool {
	set := make(map[*node]bool)
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.RLock()
		for _, nd := range s.m {
			set[nd] = true
		}
		s.mu.RUnlock()
	}
	return set
}

// image returns what has not been sent.
func (n *notifier) image() []noticeImage {
	n.mu.Lock()
	defer n.mu.Unlock()
	var list []noticeImage
	for _, x := range n.queue {
		list = append(list, noticeImage{x.node, x.name})
	}
	return list
}

// restore takes up sessions that were over for an earlier process.
func (e *endedSessions) restore(live map[string]int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	maps.Copy(e.live, live)
	if len(live) > 0 {
		e.pause = firstReap
	}
}

// info is the content of MOUNT/.condafs.
func (o *MountOptions) info() ([]byte, error) {
	b, err := json.Marshal(struct {
		Socket  string `json:"socket"`
		Store   string `json:"store"`
		Shelf   string `json:"shelf,omitempty"`
		PID     int    `json:"pid"`
		Version string `json:"version"`
	}{o.Socket, o.Store, o.Shelf, os.Getpid(), o.Version})
	return append(b, '\n'), err
}
