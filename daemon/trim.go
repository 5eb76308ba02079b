package daemon

import (
	"context"
	"path/filepath"
	"sync"
	"time"

	"condafs/control"
	"condafs/fault"
	"condafs/index"
	"condafs/trim"
)

// collect frees what nothing refers to.
func (a *api) collect(ctx context.Context, dry bool, progress control.ProgressFunc) (index.GCReport, error) {
	began := time.Now()
	g, err := a.store.GC(ctx, index.GCOptions{DryRun: dry}, counter(progress, "collecting", "files"))
	if !dry {
		a.daemon.collected(g, time.Since(began), err)
	}
	if err == nil {
		a.shelfChanged()
	}
	return g, err
}

// trim removes what is above the limits of a request, after a collection of which out tells, and collects again.
func (a *api) trim(ctx context.Context, r control.GCRequest, out *control.GCReport, progress control.ProgressFunc) error {
	o := trim.Options{Limits: trim.Limits{MaxSize: r.MaxSize, MinFree: r.MinFree, MaxAge: time.Duration(r.MaxAge) * time.Second}, DryRun: r.DryRun, Now: time.Now()}
	if o.None() {
		return nil
	}
	if r.DryRun {
		o.Freed = out.Bytes
	}
	o.Shelves = a.shelvesOf()
	if d := a.daemon; d != nil {
		out.AwaitedBytes = d.awaited()
		o.Freed += out.AwaitedBytes
	}
	t, err := trim.Run(ctx, a.store, o)
	if err != nil {
		return err
	}
	out.RemovedBytes, out.Linked, out.Over, out.NoTimes = t.Bytes, t.Linked, t.Over, t.NoTimes
	for _, p := range t.Removed {
		out.Removed = append(out.Removed, control.RemovedPackage{Path: p.Name, Bytes: p.Bytes, Used: p.Used})
	}
	if r.DryRun || len(t.Removed) == 0 {
		return nil
	}
	g, err := a.collect(ctx, false, progress)
	if err != nil {
		return err
	}
	out.Blobs += g.Blobs
	out.Trees += g.Trees
	out.Bytes += g.Bytes
	out.KeptBlobs, out.KeptBytes = g.KeptBlobs, g.KeptBytes
	if a.daemon != nil {
		a.daemon.await(t.Bytes - g.Bytes)
	}
	return nil
}

// shelvesOf names the shelves by what they show of head. Without a daemon they are where the last one has left them.
func (a *api) shelvesOf() map[string]string {
	at := func(name string) string { return filepath.Join(a.store.Dir(), name, "pkgs") }
	return map[string]string{sharedPackages: at(shelfName), rattlerPackages(a.owner): at(rattlerShelfName)}
}

// trims remembers what was removed and is not free yet, as sessions have it: else each look at the space would remove
// more, until nothing was left, while one session that stays keeps all of it on the disk.
type trims struct {
	mu    sync.Mutex
	bytes int64
	at    time.Time
}

// await notes that so much is to be free when the sessions of now have ended.
func (d *daemon) await(bytes int64) {
	if bytes <= 0 {
		return
	}
	d.trims.mu.Lock()
	defer d.trims.mu.Unlock()
	d.trims.bytes += bytes
	d.trims.at = time.Now()
}

// awaited tells how much that still is.
func (d *daemon) awaited() int64 {
	d.trims.mu.Lock()
	defer d.trims.mu.Unlock()
	if d.trims.bytes == 0 {
		return 0
	}
	for _, s := range d.engine.Sessions() {
		if !s.Started.After(d.trims.at) {
			return d.trims.bytes
		}
	}
	d.trims.bytes = 0
	return 0
}

// How often the space is looked at, and how long after the daemon has started.
const (
	spaceDelay = 2 * time.Minute
	spaceEvery = 10 * time.Minute
)

// keepSpace keeps to the limits of space in the background, until it is told to stop.
func (d *daemon) keepSpace(ctx context.Context) (stop func()) {
	l := d.config.Space
	if l.None() {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		var seen index.Seq
		for wait := spaceDelay; ; wait = spaceEvery {
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
			seen = d.makeSpace(ctx, l, seen)
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// makeSpace collects, and removes what has not been used for longest, if the limits want it. It returns the head that it has
// left: as long as that is the newest one, and nothing can go, there is nothing to collect either.
func (d *daemon) makeSpace(ctx context.Context, l trim.Limits, seen index.Seq) index.Seq {
	log := d.config.Logger
	a := &api{store: d.store, daemon: d, all: true, owner: d.owner, version: d.config.Version, log: log}
	look, err := trim.Run(ctx, d.store, trim.Options{Limits: l, DryRun: true, Now: time.Now(), Freed: d.awaited(), Shelves: a.shelvesOf()})
	if err == nil && (len(look.Removed) > 0 || look.Over > 0 && d.store.Head() != seen) {
		var r *control.GCReport
		if r, err = a.GC(ctx, control.GCRequest{MaxSize: l.MaxSize, MinFree: l.MinFree, MaxAge: int64(l.MaxAge / time.Second)}, nil); err == nil {
			log.Info("made space", "freed", r.Bytes, "removed", len(r.Removed), "over", r.Over, "awaited", r.AwaitedBytes)
			if r.Over > 0 {
				log.Warn("the store is above its limits, and nothing more can go", "bytes", r.Over, "linked", r.Linked)
			}
		}
	}
	if err != nil && !fault.Is(err, fault.Canceled) {
		log.Error("making space", "err", err.Error())
	}
	return d.store.Head()
}
