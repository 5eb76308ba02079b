package daemon

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"condafs/conda"
	"condafs/control"
	"condafs/fault"
	"condafs/fs"
	"condafs/index"
)

// programStarted is when counting began: an upgrade starts another program.
var programStarted = time.Now()

// figures are what the daemon itself counts, beside what its parts do.
type figures struct {
	mu sync.Mutex
	gc control.GCCount

	// What the head is made of is counted anew only when it has moved.
	head     index.Seq
	packages []control.PackageCount
}

// collected notes what came of a collection. Without a daemon nobody asks.
func (d *daemon) collected(r index.GCReport, took time.Duration, err error) {
	if d == nil {
		return
	}
	d.figures.mu.Lock()
	defer d.figures.mu.Unlock()
	g := &d.figures.gc
	g.Runs++
	g.Blobs += r.Blobs
	g.Bytes += r.Bytes
	g.Seconds += took.Seconds()
	if err != nil {
		g.Failed++
		return
	}
	g.Last = time.Now()
}

// Activity adds up what the parts of the daemon have counted.
func (a *api) Activity(context.Context) (*control.Activity, error) {
	d := a.daemon
	if d == nil {
		return nil, a.noDaemon("tell the activity of")
	}
	out := &control.Activity{Since: programStarted, Requests: []control.RequestCount{}, Errors: []control.ErrnoCount{}, Published: []control.PublishedCount{}}
	for _, b := range fs.BucketBounds {
		out.LatencyBounds = append(out.LatencyBounds, b.Seconds())
	}
	requests := d.mount.Requests()
	for _, o := range requests.Ops {
		out.Requests = append(out.Requests, control.RequestCount{Op: o.Op, Count: o.Count, Seconds: o.Took.Seconds(), Buckets: o.Buckets[:]})
	}
	for _, e := range requests.Errors {
		out.Errors = append(out.Errors, control.ErrnoCount{Errno: unix.ErrnoName(e.Errno), Count: e.Count})
	}
	c := d.engine.Counts()
	out.Started, out.Explicit = c.Started+c.Explicit, c.Explicit
	out.Quarantined, out.QuarantinedBytes = c.Quarantined, c.QuarantinedBytes
	out.Waits, out.WaitedSecs = c.Waits, c.Waited.Seconds()
	out.Known, out.Unpacked = c.Known, c.Unpacked
	for _, p := range c.Published {
		out.Published = append(out.Published, control.PublishedCount{Kind: p.Kind.String(), Trust: p.Trust.String(), Units: p.Units, Bytes: p.Bytes})
	}
	db, err := a.store.Database()
	if err != nil {
		return nil, err
	}
	out.Database = control.DatabaseState(db)
	var st unix.Statfs_t
	if err := unix.Statfs(a.store.Dir(), &st); err != nil {
		return nil, fault.New("look at the space of", a.store.Dir(), fault.Other, err)
	}
	out.FreeBytes, out.SizeBytes = int64(st.Bavail)*st.Bsize, int64(st.Blocks)*st.Bsize
	d.figures.mu.Lock()
	defer d.figures.mu.Unlock()
	out.GC = d.figures.gc
	out.Packages, err = d.figures.countPackages(a)
	return out, err
}

// countPackages counts everybody's packages and archives by trust. f.mu is held.
func (f *figures) countPackages(a *api) ([]control.PackageCount, error) {
	head := a.store.PinHead()
	defer head.Release()
	if f.packages != nil && f.head == head.Seq() {
		return f.packages, nil
	}
	counted := map[[2]string]*control.PackageCount{}
	all := []control.PackageCount{}
	err := a.each(head, func(_, _ string, e index.DirEntry) {
		key := [2]string{conda.Package.String(), conda.Trust(e.Trust).String()}
		if e.Kind == index.KindFile {
			key[0] = conda.Archive.String()
		}
		c := counted[key]
		if c == nil {
			c = &control.PackageCount{Kind: key[0], Trust: key[1]}
			counted[key] = c
		}
		c.Count++
		c.Bytes += e.Size
	})
	if err != nil {
		return nil, err
	}
	for _, c := range counted {
		all = append(all, *c)
	}
	f.head, f.packages = head.Seq(), all
	return all, nil
}
