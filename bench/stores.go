package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"condafs/demo"
)

// Memory is what a daemon has in memory, in bytes: all of it, and without pages of files that the kernel may drop.
type Memory struct {
	Resident  int64 `json:"resident"`
	Anonymous int64 `json:"anonymous"`
}

// StoreFigure is what a store of some size costs. Times are medians, in seconds.
type StoreFigure struct {
	Packages      int     `json:"packages"`
	StoreBytes    int64   `json:"store_bytes"`    // on disk
	MountSeconds  float64 `json:"mount_seconds"`  // `condafs mount`, until the mount answers
	ListSeconds   float64 `json:"list_seconds"`   // the first listing of MOUNT/pkgs
	LookSeconds   float64 `json:"look_seconds"`   // the first stat of each package's info/index.json, as clients do
	CommitSeconds float64 `json:"commit_seconds"` // from the last byte of a package of 200 files until it is in the head

	Mounted Memory `json:"mounted"` // right after the mount
	Listed  Memory `json:"listed"`  // after the listing
	Looked  Memory `json:"looked"`  // after those stats
}

// StoreReport is the result of RunStores.
type StoreReport struct {
	Machine Machine       `json:"machine"`
	Rounds  int           `json:"rounds"`
	Stores  []StoreFigure `json:"stores"`
}

// RunStores fills a store of each size in turn and measures it through the condafs binary. N, Size and Python of the
// options do not count. It has show take the report before it removes what was written.
func RunStores(ctx context.Context, o Options, sizes []int, show func(*StoreReport) error) error {
	if err := o.complete(); err != nil {
		return err
	}
	r := &StoreReport{Machine: machine(), Rounds: o.Rounds}
	return o.inScratch(func(dir string) error {
		samples, err := makeSamples(ctx, &o, dir)
		if err != nil {
			return err
		}
		for i, n := range sizes {
			f, err := measureStore(ctx, &o, filepath.Join(dir, strconv.Itoa(i)), n, samples)
			if err != nil {
				return err
			}
			r.Stores = append(r.Stores, *f)
		}
		return show(r)
	})
}

// makeSamples has a client fill a plain package directory, and returns packages of 200 files in it, one for each round.
func makeSamples(ctx context.Context, o *Options, dir string) (_ []string, err error) {
	lab, err := demo.NewLab(demo.Size{Modules: o.Rounds, Sources: 200}, demo.Link{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lab.Close()) }()
	b := &bench{o: *o, lab: lab}
	c := &cache{b: b, client: Conda, place: Native, dir: filepath.Join(dir, "samples")}
	prefix := filepath.Join(dir, "samples", "env")
	cl := &client{prefix: prefix, cmd: c.command(ctx, 0, prefix)}
	if err := runAll([]*client{cl}, false); err != nil {
		return nil, err
	}
	if err := cl.judge(lab); err != nil {
		return nil, fmt.Errorf("bench: make packages to commit: %w", err)
	}
	samples, err := filepath.Glob(filepath.Join(c.path(0, "pkgs"), "mod*_0"))
	if err == nil && len(samples) != o.Rounds {
		err = fmt.Errorf("bench: %d packages were made, not %d", len(samples), o.Rounds)
	}
	return samples, err
}

func measureStore(ctx context.Context, o *Options, dir string, n int, samples []string) (_ *StoreFigure, err error) {
	m, err := newMounted(o.Executable, dir)
	if err != nil {
		return nil, err
	}
	what := fmt.Sprintf("fill a store with %d packages", n)
	if err := fill(ctx, m.store, n, func(done int) { o.Progress(what, done, n) }); err != nil {
		return nil, err
	}
	o.Progress(fmt.Sprintf("measure with %d packages", n), 0, 0)
	f := &StoreFigure{Packages: n}
	if f.StoreBytes, err = diskUse(m.store); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.umount()) }()
	var mounts, commits []float64
	for range o.Rounds {
		if err := m.umount(); err != nil {
			return nil, err
		}
		mounts = append(mounts, timed(&err, func() error { return m.mount() }))
	}
	f.MountSeconds = median(mounts)
	pkgs := filepath.Join(m.point, "pkgs")
	f.Mounted = m.memory(&err)
	f.ListSeconds = timed(&err, func() error { return list(pkgs, n) })
	f.Listed = m.memory(&err)
	f.LookSeconds = timed(&err, func() error { return look(pkgs, n) })
	f.Looked = m.memory(&err)
	for _, s := range samples {
		if err == nil {
			var seconds float64
			seconds, err = m.commit(ctx, s)
			commits = append(commits, seconds)
		}
	}
	f.CommitSeconds = median(commits)
	return f, err
}

// timed is how many seconds fn takes. It does not run after an error.
func timed(err *error, fn func() error) float64 {
	if *err != nil {
		return 0
	}
	started := time.Now()
	*err = fn()
	return time.Since(started).Seconds()
}

func list(pkgs string, n int) error {
	entries, err := os.ReadDir(pkgs)
	if err == nil && len(entries) < n { // the session has its directory for repodata beside them
		err = fmt.Errorf("bench: the mount shows %d of %d packages", len(entries), n)
	}
	return err
}

func look(pkgs string, n int) error {
	for i := range n {
		if _, err := os.Stat(filepath.Join(pkgs, fillName(i), "info", "index.json")); err != nil {
			return err
		}
	}
	return nil
}

// commit writes a package as clients do, its record last, and returns how long it takes from then until it is in the
// head.
func (m *mounted) commit(ctx context.Context, from string) (float64, error) {
	const record = "info/repodata_record.json"
	const archive = ".conda"
	name := filepath.Base(from)
	to := filepath.Join(m.point, "pkgs", name)
	if err := copyFile(from+archive, to+archive); err != nil {
		return 0, err
	}
	err := filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		rel := strings.TrimPrefix(strings.TrimPrefix(p, from), "/")
		switch {
		case err != nil || rel == record:
			return err
		case d.IsDir():
			return os.Mkdir(filepath.Join(to, rel), 0o755)
		}
		return copyFile(p, filepath.Join(to, rel))
	})
	if err != nil {
		return 0, err
	}
	if err := copyFile(filepath.Join(from, record), filepath.Join(to, record)); err != nil {
		return 0, err
	}
	started := time.Now()
	err = m.await(ctx, "+ pkgs/"+name+" ")
	return time.Since(started).Seconds(), err
}

// await waits for a commit with a line that begins so.
func (m *mounted) await(ctx context.Context, line string) error {
	const enough = 4 // commits back: nothing but these packages is committed
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		log, err := m.client.Log(ctx, enough)
		if err != nil {
			return err
		}
		for _, c := range log {
			if slices.ContainsFunc(c.What, func(s string) bool { return strings.HasPrefix(s, line) }) {
				return nil
			}
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			return err
		}
	}
	return fmt.Errorf("bench: %q was not committed within a minute", line)
}

func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	st, err := os.Stat(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, st.Mode().Perm())
}

// memory asks the kernel what the daemon has.
func (m *mounted) memory(err *error) Memory {
	var mem Memory
	if *err != nil {
		return mem
	}
	var b []byte
	if b, *err = os.ReadFile(fmt.Sprintf("/proc/%d/status", m.pid)); *err == nil {
		mem, *err = parseMemory(b)
	}
	return mem
}

func parseMemory(status []byte) (m Memory, err error) {
	for lines := bufio.NewScanner(bytes.NewReader(status)); lines.Scan(); {
		var to *int64
		f := strings.Fields(lines.Text())
		switch {
		case len(f) != 3:
			continue
		case f[0] == "VmRSS:":
			to = &m.Resident
		case f[0] == "RssAnon:":
			to = &m.Anonymous
		default:
			continue
		}
		kb, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil {
			return m, fmt.Errorf("bench: %s in /proc/PID/status: %w", f[0], err)
		}
		*to = kb << 10
	}
	if m.Resident == 0 {
		err = errors.New("bench: /proc/PID/status has no VmRSS")
	}
	return m, err
}

// WriteTable prints a line for each store.
func (r *StoreReport) WriteTable(w io.Writer) error {
	fmt.Fprintf(w, "medians of %d; %s\n\n", r.Rounds, &r.Machine)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "packages\tdisk MB\tmount ms\tMB resident\tlist ms\tMB resident\tlook ms\tMB resident\tcommit ms\tratio\t\n")
	mem := func(m Memory) string {
		return fmt.Sprintf("%.0f (%.0f)", float64(m.Resident)/1e6, float64(m.Anonymous)/1e6)
	}
	for _, f := range r.Stores {
		fmt.Fprintf(t, "%d\t%.0f\t%.0f\t%s\t%.0f\t%s\t%.0f\t%s\t%.1f\t%.2f×\t\n", f.Packages, float64(f.StoreBytes)/1e6,
			f.MountSeconds*1e3, mem(f.Mounted), f.ListSeconds*1e3, mem(f.Listed), f.LookSeconds*1e3, mem(f.Looked),
			f.CommitSeconds*1e3, ratio(f.CommitSeconds, r.Stores[0].CommitSeconds))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := io.WriteString(w, `
MB resident: of the daemon after each step; in brackets without pages of files, which the kernel may drop
look: a stat in each package; commit: a package of 200 files, from its last byte until it is in the head
`)
	return err
}
