// Package metrics shows a daemon's figures to Prometheus. It asks for them when it is asked, by the same requests that
// the command line makes: what is counted is counted anyway, and nothing runs between two scrapes.
package metrics

import (
	"context"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"condafs/control"
)

// Source is what is asked, as the store's owner.
type Source interface {
	Status(ctx context.Context) (*control.Status, error)
	Activity(ctx context.Context) (*control.Activity, error)
	Sessions(ctx context.Context) ([]control.Session, error)
}

var _ Source = control.API(nil)

// patience bounds a scrape; Prometheus itself gives up after ten seconds.
const patience = 10 * time.Second

// NewRegistry returns a registry of the source's figures and of this process's own.
func NewRegistry(s Source) (*prometheus.Registry, error) {
	r := prometheus.NewRegistry()
	for _, c := range []prometheus.Collector{
		&collector{s}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return r, nil
}

type collector struct{ source Source }

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range descriptions {
		ch <- d
	}
}

// Collect implements prometheus.Collector. What can't be had fails the scrape: a gap tells more than old figures.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	o := out{ch}
	st, err := c.source.Status(ctx)
	if err == nil {
		o.status(st)
		var a *control.Activity
		if a, err = c.source.Activity(ctx); err == nil {
			o.activity(a)
		}
	}
	if err == nil {
		var l []control.Session
		if l, err = c.source.Sessions(ctx); err == nil {
			o.sessions(l)
		}
	}
	if err != nil {
		ch <- prometheus.NewInvalidMetric(info, err)
	}
}

// out sends figures.
type out struct{ ch chan<- prometheus.Metric }

func (o out) gauge(d *prometheus.Desc, v float64, labels ...string) {
	o.ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (o out) counter(d *prometheus.Desc, v float64, labels ...string) {
	o.ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
}

// moment is a gauge of when something happened, which is absent if it never did.
func (o out) moment(d *prometheus.Desc, t time.Time) {
	if !t.IsZero() {
		o.gauge(d, float64(t.UnixNano())/1e9)
	}
}

func (o out) status(s *control.Status) {
	o.gauge(info, 1, s.Version, s.StoreID)
	o.moment(started, s.Started)
	o.gauge(head, float64(s.Head))
	o.gauge(storeBlobs, float64(s.Blobs))
	o.gauge(storeBytes, float64(s.StoredBytes))
	o.gauge(storeLogicalBytes, float64(s.LogicalBytes))
	o.gauge(quarantineEntries, float64(len(s.Quarantine)))
	o.gauge(quarantineBytes, float64(s.QuarantinedBytes))
	if s.Shelf != nil {
		o.gauge(shelfPackages, float64(s.Shelf.Packages))
	}
	if r := s.Runtime; r != nil {
		o.gauge(kernelNodes, float64(r.Nodes))
		o.gauge(openFiles, float64(r.Files))
		o.gauge(views, float64(r.Views))
	}
	o.scrub(&s.Scrub)
}

func (o out) scrub(s *control.Scrub) {
	running := 0.0
	if s.Running {
		running = 1
	}
	o.gauge(scrubRunning, running)
	o.gauge(scrubRate, float64(s.Rate))
	var bytes, total int64
	if s.Pass != nil {
		bytes, total = s.Pass.Bytes, s.Pass.Total
	}
	o.gauge(scrubPassBytes, float64(bytes))
	o.gauge(scrubPassTotal, float64(total))
	if l := s.Last; l != nil {
		o.moment(scrubFinished, l.Finished)
		for _, p := range []struct {
			outcome string
			n       int64
		}{{"found", l.Found}, {"mended", l.Mended}, {"lost", l.Lost}, {"left", l.Left}} {
			o.gauge(scrubProblems, float64(p.n), p.outcome)
		}
	}
}

func (o out) activity(a *control.Activity) {
	for _, r := range a.Requests {
		o.requests(&r, a.LatencyBounds)
	}
	o.errors(a.Errors)
	o.counter(sessionsStarted, float64(a.Explicit), "explicit")
	o.counter(sessionsStarted, float64(a.Started-a.Explicit), "process")
	for _, p := range a.Published {
		o.counter(publishedUnits, float64(p.Units), p.Kind, p.Trust)
		o.counter(publishedBytes, float64(p.Bytes), p.Kind, p.Trust)
	}
	for _, p := range a.Packages {
		o.gauge(packages, float64(p.Count), p.Kind, p.Trust)
		o.gauge(packageBytes, float64(p.Bytes), p.Kind, p.Trust)
	}
	o.counter(quarantined, float64(a.Quarantined))
	o.counter(quarantinedBytes, float64(a.QuarantinedBytes))
	o.counter(waits, float64(a.Waits))
	o.counter(waitSeconds, a.WaitedSecs)
	o.counter(evidence, float64(a.Known), "known")
	o.counter(evidence, float64(a.Unpacked), "unpacked")
	o.counter(treeCache, float64(a.Database.TreeHits), "hit")
	o.counter(treeCache, float64(a.Database.TreesAsked-a.Database.TreeHits), "miss")
	o.gauge(databaseTables, float64(a.Database.Tables))
	o.gauge(databaseBytes, float64(a.Database.FileBytes))
	o.gauge(databaseStale, float64(a.Database.StaleBytes))
	o.counter(gcRuns, float64(a.GC.Runs-a.GC.Failed), "done")
	o.counter(gcRuns, float64(a.GC.Failed), "failed")
	o.counter(gcBytes, float64(a.GC.Bytes))
	o.counter(gcBlobs, float64(a.GC.Blobs))
	o.counter(gcSeconds, a.GC.Seconds)
	o.moment(gcLast, a.GC.Last)
	o.gauge(fsFree, float64(a.FreeBytes))
	o.gauge(fsSize, float64(a.SizeBytes))
}

// alarming errors are there from the beginning: of a counter that appears with its first event, Prometheus does not see that one.
var alarming = []string{"EDQUOT", "EIO", "ENOSPC", "ESTALE"}

func (o out) errors(l []control.ErrnoCount) {
	for _, e := range l {
		o.counter(requestErrors, float64(e.Count), e.Errno)
	}
	for _, name := range alarming {
		if !slices.ContainsFunc(l, func(e control.ErrnoCount) bool { return e.Errno == name }) {
			o.counter(requestErrors, 0, name)
		}
	}
}

// requests makes a histogram. Ours counts each request in one bucket, Prometheus's in all from there on.
func (o out) requests(r *control.RequestCount, bounds []float64) {
	buckets := make(map[float64]uint64, len(bounds))
	var sum uint64
	for i, b := range bounds {
		if i < len(r.Buckets) {
			sum += r.Buckets[i]
		}
		buckets[b] = sum
	}
	o.ch <- prometheus.MustNewConstHistogram(requestSeconds, r.Count, r.Seconds, buckets, r.Op)
}

func (o out) sessions(l []control.Session) {
	type key struct{ kind, state string }
	counted := map[key]float64{}
	// Those that are always there show 0 in place of nothing.
	for _, kind := range []string{"explicit", "process"} {
		counted[key{kind, "active"}] = 0
	}
	var overlays int64
	for _, s := range l {
		k := key{"process", s.State}
		if s.Explicit {
			k.kind = "explicit"
		}
		counted[k]++
		overlays += s.OverlayBytes
	}
	for k, n := range counted {
		o.gauge(sessions, n, k.kind, k.state)
	}
	o.gauge(overlayBytes, float64(overlays))
}
