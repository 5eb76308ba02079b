package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"golang.org/x/sys/unix"
)

// packageName is what the packages of workers are called.
const packageName = "bench"

// FilesOptions are sizes for [RunFiles].
type FilesOptions struct {
	Files int // of the package of small files
	Bytes int // of the large file
}

// FilesFigure is what one kind of work on files took in one place.
type FilesFigure struct {
	Work    string    `json:"work"`
	Place   Place     `json:"place"`
	Seconds float64   `json:"seconds"` // the median
	Samples []float64 `json:"samples"`
	Ratio   float64   `json:"ratio"` // of the median to the native directory's
}

// FilesReport is the result of RunFiles.
type FilesReport struct {
	Machine Machine       `json:"machine"`
	Rounds  int           `json:"rounds"`
	Files   int           `json:"files"`
	Bytes   int           `json:"bytes"`
	Figures []FilesFigure `json:"figures"`
}

// fileWork is one step of a round, in the order in which they are done.
type fileWork struct {
	title string
	op    string
	large bool
	drop  bool // the kernel's caches first
}

var fileWorks = []fileWork{
	{"extract small files", "extract", false, false},
	{"walk and stat, warm", "walk", false, false},
	{"open, read, close, warm", "read", false, false},
	{"write a large file", "write", true, false},
	{"read it, warm", "read", true, false},
	{"open, read, close, cold", "cold", false, true},
	{"read the large file, cold", "cold", true, true},
}

// RunFiles measures work on single files: natively, through the mount, and under `condafs run`. N, Size and Python of the
// options do not count. What needs the kernel's caches dropped is left out for who is not root. It has show take the
// report before it removes what was written.
func RunFiles(ctx context.Context, o Options, f FilesOptions, show func(*FilesReport) error) error {
	if err := o.complete(); err != nil {
		return err
	}
	works := fileWorks
	if os.Geteuid() != 0 {
		works = slices.DeleteFunc(slices.Clone(works), func(w fileWork) bool { return w.drop })
	}
	places := []Place{Native, Mount, Run}
	r := &FilesReport{Machine: machine(), Rounds: o.Rounds, Files: f.Files, Bytes: f.Bytes}
	for _, w := range works {
		for _, p := range places {
			r.Figures = append(r.Figures, FilesFigure{Work: w.title, Place: p})
		}
	}
	return o.inScratch(func(dir string) error {
		b := &bench{o: o, scratch: dir}
		for round := range o.Rounds {
			order := slices.Clone(places)
			if round%2 == 1 {
				slices.Reverse(order)
			}
			for i, p := range order {
				o.Progress(p.String(), round*len(places)+i, o.Rounds*len(places))
				seconds, err := b.filesIn(ctx, p, works, f)
				if err != nil {
					return err
				}
				for w, s := range seconds {
					g := &r.Figures[w*len(places)+slices.Index(places, p)]
					g.Samples = append(g.Samples, s)
				}
			}
		}
		for i := range r.Figures {
			g := &r.Figures[i]
			g.Seconds = median(g.Samples)
			g.Ratio = ratio(g.Seconds, r.Figures[i-i%len(places)].Seconds)
		}
		return show(r)
	})
}

// filesIn does all works in one place, with a store of its own, and returns how long each took.
func (b *bench) filesIn(ctx context.Context, p Place, works []fileWork, o FilesOptions) (_ []float64, err error) {
	dir, err := os.MkdirTemp(b.scratch, "files-")
	if err != nil {
		return nil, err
	}
	pkgs := filepath.Join(dir, "pkgs")
	var m *mounted
	if p.condafs() {
		if m, err = newMounted(b.o.Executable, dir); err != nil {
			return nil, err
		}
		if err := m.mount(); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, m.umount()) }()
		pkgs = filepath.Join(m.point, "pkgs")
	}
	var seconds []float64
	bytesOf := map[bool]int64{true: int64(o.Bytes)}
	for i := range o.Files {
		bytesOf[false] += int64(len(smallFile(i)))
	}
	for _, w := range works {
		pkg, size, files := packageName+"-1.0-0", o.Files, o.Files
		if w.large {
			pkg, size, files = packageName+"-1.0-1", o.Bytes, 1
		}
		unix.Sync()
		if w.drop {
			if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
				return nil, fmt.Errorf("bench: drop the kernel's caches: %w", err)
			}
		}
		args := []string{b.o.Executable, WorkerCommand, w.op, filepath.Join(pkgs, pkg), strconv.Itoa(size)}
		if p == Run {
			args = append([]string{b.o.Executable, "run", "--no-shelf", "--mount", m.point, "--"}, args...)
		}
		done, err := runWorker(ctx, args)
		if err != nil {
			return nil, fmt.Errorf("bench: %s, %s: %w", p, w.title, err)
		}
		if done.Files != files || w.op != "walk" && done.Bytes != bytesOf[w.large] {
			return nil, fmt.Errorf("bench: %s, %s: %d files of %d bytes, not %d of %d", p, w.title, done.Files, done.Bytes, files, bytesOf[w.large])
		}
		seconds = append(seconds, done.Seconds)
		if m != nil {
			if err := m.settle(ctx); err != nil {
				return nil, err
			}
		}
	}
	if m != nil {
		if err := m.umount(); err != nil {
			return nil, err
		}
	}
	return seconds, b.putAside(dir)
}

func runWorker(ctx context.Context, args []string) (w worked, err error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return w, fmt.Errorf("%w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return w, json.Unmarshal(stdout.Bytes(), &w)
}

// WriteTable prints a line for each kind of work.
func (r *FilesReport) WriteTable(w io.Writer) error {
	fmt.Fprintf(w, "%d small files, one of %.0f MB; medians of %d; %s\n\n", r.Files, float64(r.Bytes)/1e6, r.Rounds, &r.Machine)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "seconds (ratio to the native directory)\t")
	const places = 3
	for _, f := range r.Figures[:places] {
		fmt.Fprintf(t, "%s\t", f.Place)
	}
	for i, f := range r.Figures {
		if i%places == 0 {
			fmt.Fprintf(t, "\n%s\t%.3f\t", f.Work, f.Seconds)
			continue
		}
		fmt.Fprintf(t, "%.3f (%.2f×)\t", f.Seconds, f.Ratio)
	}
	fmt.Fprintln(t)
	return t.Flush()
}
