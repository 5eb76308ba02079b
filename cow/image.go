package cow

import (
	"time"

	"condafs/hashing"
	"condafs/index"
	"condafs/proc"
)

// Image is all that an engine knows and has not on disk. Another process that gets it,
// with the open files that it names, goes on where this one stopped: see Resume.
//
// It is plain data, encoded by whoever hands it over. What is new here must mean, when
// it is missing, what was the case before there was such a thing.
type Image struct {
	LastNode uint64 // no node has a higher id
	Head     headImage
	Sessions []sessionImage
	Trees    [][]byte // encoded manifests that others refer to by their place
}

type headImage struct {
	Seq  index.Seq
	View viewImage
}

type sessionImage struct {
	ID                string
	Start             StartOptions
	Fresh             bool // StartOptions.fresh
	Explicit, Foreign bool
	Started           time.Time
	Seq               index.Seq
	Pins              []index.Seq
	Ticket, Rattler   *uint64 // the shelves' generations; nil without a shelf
	Blobs, HeldTrees  []hashing.Digest

	State     string
	Members   []memberImage
	LastUse   time.Time
	Killed    bool
	Suspended bool
	Outcome   *Outcome
	Report    Report
	Failure   *failureImage

	Jobs     []jobImage
	Items    []itemImage
	Stalled  []partImage
	Held     []string
	Trees    []int // places in Image.Trees
	Removed  []string
	Recorded bool
	Gone     bool
	Flight   []string // packages that it is on the way with

	View viewImage
}

type memberImage struct {
	ID  proc.ID
	UID uint32
}

// failureImage is an error that only people look at.
type failureImage struct {
	Kind int
	Text string
}

type jobImage struct {
	Root     string
	Complete bool
	Again    bool
}

type formImage struct {
	Entry index.Entry
	Tree  int // one more than the place in Image.Trees; 0: none
}

type itemImage struct {
	Path     string
	Public   formImage
	Base     *index.Entry
	Settled  bool
	Manifest string
	Before   *itemImage
}

type partImage struct {
	Path          string
	IsDir         bool
	Gen           uint64
	Shown, Public formImage
	Overlay       map[string]hashing.Digest // nil if Lower
	Lower         bool
}

// viewImage refers to packages, objects and nodes by their places in its lists.
type viewImage struct {
	Retired      bool
	MarkedUnseen bool
	LastGen      uint64
	At, Moved    map[string]uint64
	Gained       []gainImage
	GainedSeen   int
	Lent         []uint64
	Packages     []packageImage
	Objects      []objectImage
	Nodes        []nodeImage // the root first
	Handles      []handleImage
}

type gainImage struct {
	Path  string
	Entry index.Entry
	Ino   uint64
	Gone  bool
}

type packageImage struct {
	Digest hashing.Digest
	Seed   uint64
}

type objectImage struct {
	Entry   index.TreeEntry
	Ino     uint64
	Path    string
	Package int // one more than the place; 0: none
	At      int
}

type nodeImage struct {
	ID       uint64
	Type     uint32
	Ino      uint64
	Refs     int64
	Links    []linkImage
	Lower    int // one more than the place; 0: none
	Upper    bool
	HasNames bool
	Names    []nameImage
	Mark     markImage
	Linked   uint64
	Split    bool
	Away     bool
	Orphan   int // a descriptor, or -1
	Last     *remainsImage
	Lane     *laneImage // that it is the link to
}

type laneImage struct {
	ID   string
	Born time.Time
}

type remainsImage struct {
	Attr   Attr
	Target string
}

type linkImage struct {
	Dir  int
	Name string
}

type nameImage struct {
	Name     string
	Type     uint32
	Ino      uint64
	Whiteout bool
	Marked   bool
}

type markImage struct {
	Ino      uint64
	Mode     uint32
	HasMode  bool
	Whiteout bool
}

type handleImage struct {
	Node        int
	FD          int
	Writable    bool
	Passthrough bool
	Lower       int // one more than the place; 0: none
}

// Descriptors returns the open files that must go with the image.
func (i *Image) Descriptors() []int {
	var fds []int
	for _, v := range i.views() {
		for _, h := range v.Handles {
			fds = append(fds, h.FD)
		}
		for _, n := range v.Nodes {
			if n.Orphan >= 0 {
				fds = append(fds, n.Orphan)
			}
		}
	}
	return fds
}

// Pins returns the snapshots that must stay readable, each as often as it is pinned.
func (i *Image) Pins() []index.Seq {
	pins := []index.Seq{i.Head.Seq}
	for _, s := range i.Sessions {
		pins = append(append(pins, s.Seq), s.Pins...)
	}
	return pins
}

func (i *Image) views() []*viewImage {
	views := []*viewImage{&i.Head.View}
	for j := range i.Sessions {
		views = append(views, &i.Sessions[j].View)
	}
	return views
}
