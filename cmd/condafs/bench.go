package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"condafs/bench"
	"condafs/control"
	"condafs/demo"
	"condafs/fault"
)

// envBenchPython names an interpreter that can import rattler.
const envBenchPython = "CONDAFS_BENCH_PYTHON"

// benchOptions are the flags of bench.
type benchOptions struct {
	dir    string
	n      int
	rounds int
	quick  bool

	mbits   float64
	latency time.Duration

	sizes []int
}

func (a *app) benchCommand() *cobra.Command {
	var o benchOptions
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure condafs and its rivals side by side on this machine",
		Long: `bench lets the same client processes make environments from a native directory (one
client at a time, and at once where that does not break it), from a directory for
each of them, and from condafs, through the plain mount and with ` + "`condafs run`" + `. It
prints medians and their ratios to the native directory. Every environment is
compared byte by byte; a run that broke one is reported, and its time is not used.

The clients are those of ` + "`condafs demo`" + `: they do on files what conda does, and nothing
else. Rattler is measured too, with its own locks, when python3, or the interpreter
that $` + envBenchPython + ` names, can import py-rattler.

The channel is as fast as memory. --mbits and --latency put a line between it and the
clients, which all of them share; then only clients that download are measured.

The machine should have nothing else to do. No network is used, and nothing is left
behind.`,
		Example: `  condafs bench --quick
  condafs bench -n 32 --repeat 5 --json
  condafs bench --mbits 100 --latency 20ms
  condafs bench files
  condafs bench store --sizes 100,1000,10000`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := a.benchPlan(cmd, &o)
			if err != nil {
				return err
			}
			if o.mbits < 0 || o.latency < 0 {
				return fault.New("bench", "", fault.Usage, errors.New("--mbits and --latency can't be negative"))
			}
			p.Link = demo.Link{BytesPerSecond: int(o.mbits * 1e6 / 8), Latency: o.latency}
			if p.Python, err = a.benchPython(cmd); err != nil {
				return err
			}
			sound := true
			b := a.newBar()
			defer b.Close()
			p.Progress = b.steps
			err = bench.Compare(cmd.Context(), p, func(r *bench.Report) error {
				sound = r.Sound()
				b.Close()
				return a.show(r, r.WriteTable)
			})
			if err != nil {
				return err
			}
			if !sound {
				return fault.New("bench", "", fault.Corrupt, errors.New("condafs broke environments here")).
					WithHint("please report this with the output of --json")
			}
			return nil
		},
	}
	f := cmd.PersistentFlags()
	f.StringVar(&o.dir, "dir", "", "`directory` for everything that is written, on the disk to measure (default $TMPDIR or /var/tmp)")
	f.IntVar(&o.rounds, "repeat", 3, "measure everything so many times")
	cmd.Flags().IntVarP(&o.n, "clients", "n", 8, "clients where there are many")
	cmd.Flags().BoolVar(&o.quick, "quick", false, "a small channel, and measure once unless --repeat is given")
	cmd.Flags().Float64Var(&o.mbits, "mbits", 0, "megabits per second that the channel sends to all clients together; 0: no limit")
	cmd.Flags().DurationVar(&o.latency, "latency", 0, "how long the channel takes before each answer")
	cmd.AddCommand(a.benchStoreCommand(&o), a.benchFilesCommand(&o))
	return cmd
}

func (a *app) benchFilesCommand(o *benchOptions) *cobra.Command {
	var f bench.FilesOptions
	cmd := &cobra.Command{
		Use:   "files",
		Short: "Measure work on single files, natively and on condafs",
		Long: `bench files unpacks a package of many small files and one with a large file, and reads
them again, on a native directory, through the plain mount and under ` + "`condafs run`" + `, and
prints medians and their ratios. As root it also reads with the kernel's caches dropped.`,
		Example: "  condafs bench files --repeat 5",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := a.benchPlan(cmd, o)
			if err != nil {
				return err
			}
			if f.Files < 1 || f.Bytes < 1 {
				return fault.New("bench", "", fault.Usage, errors.New("--files and --bytes must be at least 1"))
			}
			b := a.newBar()
			defer b.Close()
			p.Progress = b.steps
			return bench.RunFiles(cmd.Context(), p, f, func(r *bench.FilesReport) error {
				b.Close()
				return a.show(r, r.WriteTable)
			})
		},
	}
	cmd.Flags().IntVar(&f.Files, "files", 20000, "small `files`, of up to 8 KiB")
	cmd.Flags().IntVar(&f.Bytes, "bytes", 1<<30, "size of the large file")
	return cmd
}

// benchWorkerCommand is what bench files starts.
func (a *app) benchWorkerCommand() *cobra.Command {
	return &cobra.Command{
		Use:                bench.WorkerCommand,
		Hidden:             true,
		DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			if s := bench.WorkerMain(args, a.out, a.err); s != 0 {
				return status(s)
			}
			return nil
		},
	}
}

func (a *app) benchStoreCommand(o *benchOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "store",
		Short: "Measure what the size of the store costs",
		Long: `bench store fills stores with packages and measures each of them: mounting, listing
the packages, committing one more, and the daemon's memory.`,
		Example: "  condafs bench store --sizes 100,1000,10000",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := a.benchPlan(cmd, o)
			if err != nil {
				return err
			}
			for _, n := range o.sizes {
				if n < 1 {
					return fault.New("bench", "", fault.Usage, fmt.Errorf("--sizes: %d is no size", n))
				}
			}
			b := a.newBar()
			defer b.Close()
			p.Progress = b.steps
			return bench.RunStores(cmd.Context(), p, o.sizes, func(r *bench.StoreReport) error {
				b.Close()
				return a.show(r, r.WriteTable)
			})
		},
	}
	cmd.Flags().IntSliceVar(&o.sizes, "sizes", []int{100, 1000, 10000}, "stores of so many `packages`")
	return cmd
}

func (a *app) benchPlan(cmd *cobra.Command, o *benchOptions) (bench.Options, error) {
	p := bench.Options{N: o.n, Rounds: o.rounds, Dir: o.dir, Size: demo.Large}
	if o.n < 1 || o.rounds < 1 {
		return p, fault.New("bench", "", fault.Usage, errors.New("-n and --repeat must be at least 1"))
	}
	if o.quick {
		p.Size = demo.Small
		if !cmd.Flags().Changed("repeat") {
			p.Rounds = 1
		}
	}
	if p.Dir == "" {
		// Not os.TempDir's /tmp, which is in memory on many machines.
		if p.Dir = a.getenv("TMPDIR"); p.Dir == "" {
			p.Dir = "/var/tmp"
		}
	}
	dir, err := absolute(p.Dir)
	if err != nil {
		return p, err
	}
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		return p, fault.New("bench", p.Dir, fault.Usage, errors.New("it is no directory"))
	}
	p.Dir = dir
	return p, nil
}

// benchPython finds the interpreter. That there is none is worth a note, unless it was asked for.
func (a *app) benchPython(cmd *cobra.Command) (string, error) {
	name := a.getenv(envBenchPython)
	if name != "" {
		path, err := bench.FindPython(cmd.Context(), name)
		if err != nil {
			return "", fault.New("bench", envBenchPython, fault.Usage, err)
		}
		return path, nil
	}
	path, err := bench.FindPython(cmd.Context(), "python3")
	if err != nil {
		a.note("Rattler is not measured: " + err.Error())
		return "", nil
	}
	return path, nil
}

// steps shows how many of a benchmark's measurements are done.
func (b *bar) steps(what string, done, total int) {
	b.Report(control.Progress{Phase: what, Done: int64(done), Total: int64(total)})
}
