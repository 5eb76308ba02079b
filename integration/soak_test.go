package integration

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"condafs/control"
	"condafs/internal/longrun"
)

// TestSoak keeps a mount under light load for as long as CONDAFS_TEST_SOAK says: two clients at a time with pauses,
// garbage collections now and then, and for half of the time a shell that stays. What the daemon holds is sampled every
// ten seconds, into the file that CONDAFS_TEST_SOAK_CSV names.
func TestSoak(t *testing.T) {
	howLong := 5 * time.Second
	if s := os.Getenv("CONDAFS_TEST_SOAK"); s != "" {
		var err error
		if howLong, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	} else if longrun.Wanted() {
		howLong = time.Minute
	}
	l := newLoad(t, built(t, plainBinary))
	end := time.Now().Add(howLong)
	half := time.Now().Add(howLong / 2)
	endShell := startShell(t, l.mount)
	var clients sync.WaitGroup
	failed := make([]error, 2)
	counts := make([]int, len(failed))
	for w := range failed {
		clients.Go(func() {
			for i := w; time.Now().Before(end) && failed[w] == nil; i += len(failed) {
				failed[w] = l.session(i, "")
				counts[w]++
				time.Sleep(50 * time.Millisecond)
			}
		})
	}
	curve := l.watch(end, func() {
		if endShell != nil && time.Now().After(half) {
			endShell()
			endShell = nil
		}
	})
	clients.Wait()
	if endShell != nil {
		endShell()
	}
	if err := errors.Join(failed...); err != nil {
		t.Fatal(err)
	}
	l.nothingLeft()
	logCurve(t, (counts[0]+counts[1])/len(curve), curve)
	mustBeFlat(t, curve)
	l.verify()
}

// watch samples what the daemon holds, and collects garbage with every sixth sample.
func (l *load) watch(end time.Time, each func()) []control.Runtime {
	l.t.Helper()
	every := min(10*time.Second, time.Until(end)/8)
	var csv *os.File
	if name := os.Getenv("CONDAFS_TEST_SOAK_CSV"); name != "" {
		var err error
		if csv, err = os.Create(name); err != nil {
			l.t.Fatal(err)
		}
		defer csv.Close() //nolint:errcheck // each write is checked
		l.row(csv, "seconds,goroutines,descriptors,heap_bytes,resident_bytes,views,nodes,files,sessions,blobs\n")
	}
	var curve []control.Runtime
	began := time.Now()
	for n := 1; time.Now().Before(end); n++ {
		time.Sleep(every)
		s := l.status()
		r := *s.Runtime
		curve = append(curve, r)
		if csv != nil {
			l.row(csv, fmt.Sprintf("%.0f,%d,%d,%d,%d,%d,%d,%d,%d,%d\n", time.Since(began).Seconds(), r.Goroutines, r.Descriptors,
				r.HeapBytes, r.ResidentBytes, r.Views, r.Nodes, r.Files, s.Sessions, s.Blobs))
		}
		if n%6 == 0 {
			l.condafs("gc")
		}
		each()
	}
	return curve
}

func (l *load) row(csv *os.File, line string) {
	l.t.Helper()
	if _, err := csv.WriteString(line); err != nil {
		l.t.Fatal(err)
	}
}
