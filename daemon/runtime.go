package daemon

import (
	"bytes"
	"os"
	"runtime"
	"runtime/metrics"
	"strconv"

	"condafs/control"
	"condafs/fault"
)

// heapObjects is read without stopping the world.
const heapObjects = "/memory/classes/heap/objects:bytes"

// runtime says what the process holds now.
func (d *daemon) runtime() (*control.Runtime, error) {
	r := &control.Runtime{Goroutines: runtime.NumGoroutine(), Views: d.engine.Views(), Nodes: d.mount.Nodes(), Files: d.mount.Files()}
	sample := []metrics.Sample{{Name: heapObjects}}
	metrics.Read(sample)
	if sample[0].Value.Kind() == metrics.KindUint64 {
		r.HeapBytes = int64(sample[0].Value.Uint64())
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil, fault.New("count descriptors", "", fault.Other, err)
	}
	r.Descriptors = len(fds) - 1 // ReadDir's own
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return nil, fault.New("read memory", "", fault.Other, err)
	}
	if f := bytes.Fields(statm); len(f) > 1 {
		pages, err := strconv.ParseInt(string(f[1]), 10, 64)
		if err != nil {
			return nil, fault.New("read memory", "", fault.Other, err)
		}
		r.ResidentBytes = pages * int64(os.Getpagesize())
	}
	return r, nil
}
