package doctor

import (
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"condafs/control"
)

// scarce is how much room of a store's file system is little: less than 2 GiB, or a
// twentieth of it if that is less.
const scarce = 2 << 30

// space looks at the room that stores have.
func (p *Patient) space(mounted map[string]control.Info) []Finding {
	stores := map[string]bool{p.Store: true}
	for _, i := range mounted {
		stores[i.Store] = true
	}
	var l []Finding
	for _, store := range slices.Sorted(maps.Keys(stores)) {
		var st unix.Statfs_t
		if err := unix.Statfs(store, &st); err != nil {
			continue // it is made when it is needed; what is mounted says itself what is wrong
		}
		l = append(l, room(store, st.Blocks*uint64(st.Bsize), st.Bavail*uint64(st.Bsize), st.Files, st.Ffree))
	}
	return l
}

func room(store string, total, free, files, filesFree uint64) Finding {
	f := Finding{Check: "store " + store, State: Fine, What: fmt.Sprintf("%.1f GB are free", float64(free)/1e9)}
	const mend = "condafs gc; then see `condafs status` and `df`"
	switch {
	case free < min(scarce, total/20):
		f.State, f.Mend = Warning, mend
		f.What += ": few for packages, and without any left nothing can be committed"
	case files > 0 && filesFree < files/50:
		f.State, f.Mend = Warning, mend
		f.What = fmt.Sprintf("only %d files more can be made (df -i)", filesFree)
	}
	return f
}
