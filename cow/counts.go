package cow

import (
	"sync/atomic"
	"time"

	"condafs/conda"
)

// Counts says what was done since the engine was made.
type Counts struct {
	Started  int64 // sessions of processes that came by themselves
	Explicit int64 // and those that were asked for
	// Published counts what others can see now: deletions are not in it.
	Published []Published
	// Quarantined counts what failed its checks and was put aside.
	Quarantined, QuarantinedBytes int64
	// Waits counts clients that waited for others' downloads in place of making them themselves.
	Waits  int64
	Waited time.Duration
	// Known counts packages that were known to be what their archive holds, Unpacked those whose archive had to be unpacked to tell.
	Known, Unpacked int64
}

// Published counts units of one kind and trust.
type Published struct {
	Kind  conda.UnitKind
	Trust conda.Trust
	Units int64
	Bytes int64
}

// counts counts without locks.
type counts struct {
	started, explicit             atomic.Int64
	published                     [conda.Dir + 1][conda.TrustVerified + 1]struct{ units, bytes atomic.Int64 }
	quarantined, quarantinedBytes atomic.Int64
	waits, waited                 atomic.Int64
	known, unpacked               atomic.Int64
}

func (c *counts) start(explicit bool) {
	if explicit {
		c.explicit.Add(1)
		return
	}
	c.started.Add(1)
}

func (c *counts) publish(it *item) {
	kind, trust := it.unit.Kind, conda.Trust(it.public.entry.Trust)
	if int(kind) >= len(c.published) || int(trust) >= len(c.published[kind]) {
		return
	}
	p := &c.published[kind][trust]
	p.units.Add(1)
	p.bytes.Add(it.public.entry.Size)
}

func (c *counts) quarantine(bytes int64) {
	c.quarantined.Add(1)
	c.quarantinedBytes.Add(bytes)
}

func (c *counts) wait(since time.Time) {
	c.waits.Add(1)
	c.waited.Add(int64(time.Since(since)))
}

func (c *counts) recall(known bool) {
	if known {
		c.known.Add(1)
		return
	}
	c.unpacked.Add(1)
}

// Counts tells what was counted.
func (e *Engine) Counts() Counts {
	c := &e.counts
	out := Counts{
		Started: c.started.Load(), Explicit: c.explicit.Load(),
		Quarantined: c.quarantined.Load(), QuarantinedBytes: c.quarantinedBytes.Load(),
		Waits: c.waits.Load(), Waited: time.Duration(c.waited.Load()), Known: c.known.Load(), Unpacked: c.unpacked.Load(),
	}
	for kind := range c.published {
		for trust := range c.published[kind] {
			p := &c.published[kind][trust]
			if units := p.units.Load(); units > 0 {
				out.Published = append(out.Published, Published{conda.UnitKind(kind), conda.Trust(trust), units, p.bytes.Load()})
			}
		}
	}
	return out
}
