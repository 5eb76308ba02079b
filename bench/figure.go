package bench

import "slices"

// Figure is what one kind of work took in one place.
type Figure struct {
	Client  Client `json:"client"`
	Place   Place  `json:"place"`
	Clients int    `json:"clients"`
	Warm    bool   `json:"warm"`    // the cache had all packages
	AtOnce  bool   `json:"at_once"` // else one client after the other

	// Times of the runs that broke nothing: median, and all in the order in which they were made.
	Seconds float64   `json:"seconds"`
	Samples []float64 `json:"samples"`
	// CommitSeconds is how long after the last client's end all of its packages were in the head (median).
	CommitSeconds float64 `json:"commit_seconds"`
	// Ratios of Seconds to those of the same clients on the native directory. 0: not to be had.
	Ratio       float64 `json:"ratio"`         // one at a time
	RatioAtOnce float64 `json:"ratio_at_once"` // at once

	// Medians, in bytes. Hard links are counted once.
	Served     int64 `json:"served"`
	CacheBytes int64 `json:"cache_bytes"` // on disk, by the cache alone
	TotalBytes int64 `json:"total_bytes"` // with the environments

	Broken int      `json:"broken"` // runs with a client or an environment that failed
	Errors []string `json:"errors"` // the first of each broken run
}

// sample is one run.
type sample struct {
	seconds, commit      float64
	served, cache, total int64
	err                  error // what was broken first
}

// key says which runs make one figure.
type key struct {
	client Client
	place  Place
	work   work
}

// figures makes figures of runs, in the order of keys.
func figures(keys []key, runs map[key][]sample) []Figure {
	var all []Figure
	for _, k := range keys {
		f := Figure{
			Client: k.client, Place: k.place, Clients: k.work.clients, Warm: k.work.warm, AtOnce: k.work.atOnce,
			Samples: []float64{}, Errors: []string{},
		}
		var commits []float64
		var served, cache, total []int64
		for _, s := range runs[k] {
			if s.err != nil {
				f.Broken++
				f.Errors = append(f.Errors, s.err.Error())
				continue
			}
			f.Samples, commits = append(f.Samples, s.seconds), append(commits, s.commit)
			served, cache, total = append(served, s.served), append(cache, s.cache), append(total, s.total)
		}
		f.Seconds, f.CommitSeconds = median(f.Samples), median(commits)
		f.Served, f.CacheBytes, f.TotalBytes = median(served), median(cache), median(total)
		all = append(all, f)
	}
	for i := range all {
		f := &all[i]
		f.Ratio = ratio(f.Seconds, native(all, f, false))
		// One client is never more than one at once.
		if f.Clients > 1 {
			f.RatioAtOnce = ratio(f.Seconds, native(all, f, true))
		}
	}
	return all
}

// native is what the same work took on the native directory; 0 if that was not measured.
func native(all []Figure, f *Figure, atOnce bool) float64 {
	i := slices.IndexFunc(all, func(g Figure) bool {
		return g.Place == Native && g.Client == f.Client && g.Clients == f.Clients && g.Warm == f.Warm && g.AtOnce == atOnce
	})
	if i < 0 {
		return 0
	}
	return all[i].Seconds
}

func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// median is 0 of nothing, and the mean of the middle two of an even number.
func median[T int64 | float64](values []T) T {
	if len(values) == 0 {
		return 0
	}
	v := slices.Sorted(slices.Values(values))
	m := len(v) / 2
	if len(v)%2 == 1 {
		return v[m]
	}
	return (v[m-1] + v[m]) / 2
}
