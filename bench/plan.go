package bench

import "slices"

// Client is a kind of client.
type Client string

// The kinds of clients. Rattler's lock each package in the cache, so that they may share a plain directory.
const (
	Conda   Client = "conda"
	Rattler Client = "rattler"
)

// Place is where clients keep their packages.
type Place string

// The places. Environments always lie on the native disk.
const (
	Native Place = "native" // one plain directory, linked from
	Copies Place = "copies" // one plain directory, copied from, as where links don't reach
	Each   Place = "each"   // a plain directory for each client
	Mount  Place = "mount"  // condafs, through the plain mount alone
	Shelf  Place = "shelf"  // condafs, through the plain mount and its shelf
	Run    Place = "run"    // condafs, each client started by `condafs run`
)

func (p Place) String() string {
	switch p {
	case Native:
		return "native directory"
	case Copies:
		return "native directory, copying"
	case Each:
		return "a directory each"
	case Mount:
		return "condafs mount"
	case Shelf:
		return "condafs mount and shelf"
	}
	return "condafs run"
}

// condafs tells whether a place is a mount.
func (p Place) condafs() bool { return p == Mount || p == Shelf || p == Run }

// work is what clients do in one measurement.
type work struct {
	clients int
	warm    bool
	atOnce  bool
}

// pass is measurements on one cache, the first of which fills it.
type pass struct {
	client Client
	place  Place
	works  []work
}

// plan lists what one round measures. What breaks a cache (conda clients, cold, at once on one plain directory) is not
// in it: package demo shows that.
func plan(n int, rattler bool) []pass {
	cold, warm := work{clients: n}, work{clients: n, warm: true}
	coldAtOnce, warmAtOnce := cold, warm
	coldAtOnce.atOnce, warmAtOnce.atOnce = true, true

	var passes []pass
	single := func(c Client, places ...Place) {
		for _, p := range places {
			passes = append(passes, pass{c, p, []work{{clients: 1}, {clients: 1, warm: true}}})
		}
	}
	many := func(c Client, p Place, works ...work) {
		if n > 1 {
			passes = append(passes, pass{c, p, works})
		}
	}
	single(Conda, Native, Copies, Mount, Shelf, Run)
	many(Conda, Native, cold, warm, warmAtOnce)
	many(Conda, Copies, cold, warm, warmAtOnce)
	many(Conda, Each, coldAtOnce, warmAtOnce)
	many(Conda, Mount, coldAtOnce, warm, warmAtOnce)
	many(Conda, Shelf, coldAtOnce, warm, warmAtOnce)
	many(Conda, Run, coldAtOnce, warm, warmAtOnce)
	if rattler {
		single(Rattler, Native, Mount, Run)
		many(Rattler, Native, cold, warm, warmAtOnce)
		many(Rattler, Native, coldAtOnce)
		many(Rattler, Mount, coldAtOnce, warm, warmAtOnce)
		many(Rattler, Run, coldAtOnce, warm, warmAtOnce)
	}
	return passes
}

// coldOnly leaves out what downloads nothing.
func coldOnly(passes []pass) []pass {
	var cold []pass
	for _, p := range passes {
		p.works = slices.DeleteFunc(slices.Clone(p.works), func(w work) bool { return w.warm })
		if len(p.works) > 0 {
			cold = append(cold, p)
		}
	}
	return cold
}

// turns is the plan once for each round, every second time backwards.
func turns(passes []pass, rounds int) []pass {
	var all []pass
	for r := range rounds {
		for i := range passes {
			if r%2 == 1 {
				i = len(passes) - 1 - i
			}
			all = append(all, passes[i])
		}
	}
	return all
}
