package integration

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"condafs/control"
)

// killLoad is the clients of one round: real ones, and scripts that print what condafs has promised them.
type killLoad struct {
	k       *killing
	clients []*client
	done    chan struct{} // closed when all clients have ended by themselves
	watch   chan struct{} // closed when the head is not to be looked at any more
	watcher sync.WaitGroup
	waited  bool
}

// acks is what condafs has promised, over all rounds of a store: what it must have from then on.
type acks struct {
	specs   map[string]bool // installed by `condafs run`, which returned 0, with all that they depend on
	dirs    map[string]bool // extracted or imported
	rattler map[string]bool
	notes   map[string]int  // the value that was committed last
	tried   map[string]int  // and the last that may have been
	victim  string          // what was last done to the package that comes and goes
	seen    map[string]bool // packages that were in the head
}

func newAcks() *acks {
	return &acks{specs: map[string]bool{}, dirs: map[string]bool{}, rattler: map[string]bool{}, notes: map[string]int{}, tried: map[string]int{}, seen: map[string]bool{}}
}

// victim is the package that a client installs and removes in turn. Nobody else installs it.
const victim = "data-files"

// start starts the clients.
func (l *killLoad) start() {
	k := l.k
	k.t.Helper()
	pick := func() string {
		specs := []string{"odd"}
		for range 1 + k.rng.IntN(2) {
			specs = append(specs, []string{
				fmt.Sprintf("lib%02d", k.rng.IntN(24)), fmt.Sprintf("pure%02d", k.rng.IntN(24)), fmt.Sprintf("old%02d", k.rng.IntN(3)),
			}[k.rng.IntN(3)])
		}
		slices.Sort(specs)
		return strings.Join(slices.Compact(specs), ",")
	}
	prefix := func(name string) string {
		return filepath.Join(filepath.Dir(k.m.store), fmt.Sprintf("env-%s-%d", name, k.round))
	}
	l.clients = []*client{
		conda(k.t, k.server, k.m.pkgs(), prefix("run"), pick()).under(k.m),
		conda(k.t, k.server, k.m.pkgs(), prefix("bare"), pick()),
		rattler(k.t, k.server, k.m.rattler(), prefix("rattler"), fmt.Sprintf("lib%02d", k.rng.IntN(24))).under(k.m),
		extractor(k.t, k.m.pkgs(), "cph", []string{"lib00", "lib04", "odd", "many"}[k.rng.IntN(4)]).under(k.m),
		l.script("notes", notesScript, strconv.Itoa(k.round*100)),
		l.script("victim", victimScript, needTools(k.t).python, needTools(k.t).channel, victim),
		l.script("import", importScript, k.cache),
		l.script("gc", gcScript),
		pythonClient(k.t, "evil", "evil.py", "--channel", needTools(k.t).channel, "--pkgs", k.m.pkgs(), "--name", "lib16", "changed_file"),
	}
	for _, c := range l.clients {
		c.start(k.t)
	}
	l.done = make(chan struct{})
	go func() {
		defer close(l.done)
		for _, c := range l.clients {
			var err error = unix.EINTR
			for err == unix.EINTR {
				err = unix.Waitid(unix.P_PID, c.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
			}
		}
	}()
	l.watcher.Go(l.lookAtHead)
}

// Scripts get the binary and the mount point, and their own arguments.
const (
	// notesScript writes notes, commits some on the way, and adds to one that others have written.
	notesScript = `
		for i in 1 2 3 4 5 6; do
			n=$(($3 + i))
			echo "try a $n"
			"$1" run --mount "$2" -- sh -c 'echo '$n' > "$0/pkgs/note-a.txt"' "$2" || exit 0
			echo "note a $n"
			echo "try b $n"
			"$1" run --mount "$2" -- sh -c 'echo '$n' >> "$0/pkgs/note-b.txt" && "$1" commit >/dev/null && echo "note b '$n'"; : > "$0/pkgs/note-c.txt"' "$2" "$1" || exit 0
		done`
	// victimScript installs a package and removes it.
	victimScript = `
		for i in 1 2 3; do
			echo "victim installing"
			"$1" run --no-shelf --mount "$2" -- "$3" cph_client.py --channel "$4" --pkgs "$2/pkgs" "$5" >/dev/null || exit 0
			echo "victim installed"
			echo "victim removing"
			"$1" run --no-shelf --mount "$2" -- sh -c 'rm -rf "$0/pkgs/$1"-*' "$2" "$5" || exit 0
			echo "victim removed"
		done`
	importScript = `"$1" import --mount "$2" "$3" >/dev/null && echo "import done"`
	gcScript     = `for i in 1 2 3 4 5 6 7 8; do "$1" gc --mount "$2" >/dev/null || exit 0; sleep 0.3; done`
)

func (l *killLoad) script(name, script string, args ...string) *client {
	k := l.k
	k.t.Helper()
	c := pythonClient(k.t, name)
	all := append([]string{"sh", "-c", script, name, k.m.bin, k.m.point}, args...)
	c.cmd.Path, c.cmd.Args = "/bin/sh", all
	c.cmd.Env = append(c.cmd.Env, "CONDAFS_MOUNT="+k.m.point)
	return c
}

// lookAtHead remembers every package that was in the head at any time.
func (l *killLoad) lookAtHead() {
	for {
		names, err := os.ReadDir(l.k.m.head())
		if err == nil {
			for _, n := range names {
				if n.IsDir() && strings.Count(n.Name(), "-") >= 2 && !strings.HasPrefix(n.Name(), victim) {
					l.k.acked.seen[n.Name()] = true
				}
			}
		}
		select {
		case <-l.watch:
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (l *killLoad) stopWatching() {
	close(l.watch)
	l.watcher.Wait()
}

// kill ends all clients at once.
func (l *killLoad) kill() {
	for _, c := range l.clients {
		c.kill(l.k.t, syscall.SIGKILL)
	}
}

// wait waits for the clients and takes note of what they were promised.
func (l *killLoad) wait(k *killing) {
	k.t.Helper()
	if l.waited || l.clients == nil {
		return
	}
	l.waited = true
	for _, c := range l.clients {
		c.wait(k.t)
	}
	for i, c := range l.clients {
		switch {
		case i == 0 && c.complaint() == "":
			k.promise(k.acked.specs, c.specs)
		case i == 2 && c.complaint() == "":
			k.promise(k.acked.rattler, c.specs)
		case i == 3 && c.complaint() == "":
			k.promise(k.acked.dirs, c.cmd.Args[len(c.cmd.Args)-1])
		default:
			k.heard(c.stdout.String())
		}
		if c.prefix != "" {
			if err := os.RemoveAll(c.prefix); err != nil {
				k.t.Error(err)
			}
		}
	}
}

func (k *killing) promise(to map[string]bool, specs string) {
	k.tell("acknowledged: %s", specs)
	for s := range strings.SplitSeq(specs, ",") {
		to[s] = true
	}
}

// heard takes note of what a script has printed.
func (k *killing) heard(said string) {
	k.t.Helper()
	for line := range strings.Lines(said) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "try", "note":
			n, err := strconv.Atoi(f[len(f)-1])
			if err != nil {
				k.t.Fatalf("a script says %q", line)
			}
			if f[0] == "note" {
				k.tell("acknowledged: note %s is %d", f[1], n)
				k.acked.notes[f[1]] = n
			} else {
				k.acked.tried[f[1]] = n
			}
		case "victim":
			k.acked.victim = f[1]
		case "import":
			k.promise(k.acked.dirs, "odd,old01,lib00")
		}
	}
}

// check demands of a daemon that has been started in peace everything that was promised.
func (k *killing) check() {
	k.t.Helper()
	m := k.m
	m.settle()
	m.headMustHold("none")
	m.rattlerHeadMustHold("none")
	if len(k.acked.specs) > 0 {
		m.headMustHold(strings.Join(slices.Collect(maps.Keys(k.acked.specs)), ","))
	}
	if len(k.acked.rattler) > 0 {
		m.rattlerHeadMustHold(strings.Join(slices.Collect(maps.Keys(k.acked.rattler)), ","))
	}
	for name := range k.acked.dirs {
		if found, err := filepath.Glob(filepath.Join(m.head(), name+"-*")); err != nil || len(found) < 2 {
			k.t.Errorf("%s was acknowledged, and there are only %v: %v", name, found, err)
		}
	}
	for name := range k.acked.seen {
		if _, err := os.Stat(filepath.Join(m.head(), name, "info", "index.json")); err != nil {
			k.t.Errorf("%s was in the head before: %v", name, err)
		}
	}
	k.checkNotes()
	k.checkVictim()
	k.checkShelf()
	m.condafs("gc")
	m.verify()
	if r := query[control.GCReport](m, "gc", "--dry-run"); r.Blobs > 0 || r.Trees > 0 {
		k.t.Errorf("a collection has left %d blobs and %d trees that nobody refers to", r.Blobs, r.Trees)
	}
	k.checkLeftovers()
	specs := "lib01"
	if len(k.acked.specs) > 0 && k.rng.IntN(2) == 0 {
		specs = fmt.Sprintf("pure%02d", k.rng.IntN(24))
	}
	next := conda(k.t, k.server, m.pkgs(), filepath.Join(filepath.Dir(m.store), "env-next"), specs)
	atOnce(k.t, next)
	mustBeRight(k.t, next)
	m.settle()
	if err := os.RemoveAll(next.prefix); err != nil {
		k.t.Error(err)
	}
}

func (k *killing) checkNotes() {
	k.t.Helper()
	for name, n := range k.acked.notes {
		b, err := os.ReadFile(filepath.Join(k.m.head(), "note-"+name+".txt"))
		if err != nil {
			k.t.Errorf("note %s, acknowledged as %d: %v", name, n, err)
			continue
		}
		lines := strings.Fields(string(b))
		last := 0
		if len(lines) > 0 {
			last, err = strconv.Atoi(lines[len(lines)-1])
		}
		if err != nil || last < n || last > k.acked.tried[name] {
			k.t.Errorf("note %s is %q, and %d was acknowledged, %d tried", name, b, n, k.acked.tried[name])
		}
	}
}

// checkVictim demands that an acknowledged installation is there and an acknowledged removal is not undone. What was
// under way may be either.
func (k *killing) checkVictim() {
	k.t.Helper()
	found, err := filepath.Glob(filepath.Join(k.m.head(), victim+"-*"))
	if err != nil {
		k.t.Fatal(err)
	}
	if k.acked.victim == "installed" && len(found) != 2 || k.acked.victim == "removed" && len(found) != 0 {
		k.t.Errorf("the package that was %s last: %v", k.acked.victim, found)
	}
}

// checkShelf demands that the shelf has what the head has, whole, and nothing half-made or half-gone.
func (k *killing) checkShelf() {
	k.t.Helper()
	var shelf *control.Shelf
	k.m.await("the shelf to follow the head", func() bool {
		verified := 0
		for _, p := range k.m.packages() {
			if p.Directory == "pkgs" && p.Extracted && p.Shared && p.Trust == "verified" {
				verified++
			}
		}
		shelf = k.m.status().Shelf
		return shelf != nil && shelf.Packages == verified
	})
	if j := judge(k.t, "none", "--cache", shelf.Path); !j.OK || j.Leftovers > 0 || j.DirectoriesOK != shelf.Packages {
		k.t.Errorf("%d packages are on the shelf, and it is not right: %+v", shelf.Packages, j)
	}
	for _, name := range []string{"new", "grave"} {
		if left, err := os.ReadDir(filepath.Join(filepath.Dir(shelf.Path), name)); err != nil || len(left) > 0 {
			k.t.Errorf("shelf/%s holds %v, %v", name, left, err)
		}
	}
}

// checkLeftovers demands that nothing of dead sessions is left, and that quarantine holds what its records say.
func (k *killing) checkLeftovers() {
	k.t.Helper()
	list := func(name string) []string {
		entries, err := os.ReadDir(filepath.Join(k.m.store, name))
		if err != nil {
			k.t.Fatal(err)
		}
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
	k.m.await("staging/ and sessions/ to be empty", func() bool { return len(list("staging")) == 0 && len(list("sessions")) == 0 })
	var recorded []string
	for _, q := range k.m.status().Quarantine {
		recorded = append(recorded, q.ID)
	}
	slices.Sort(recorded)
	if kept := list("quarantine"); !slices.Equal(kept, recorded) {
		k.t.Errorf("quarantine/ holds %v, and there are records of %v", kept, recorded)
	}
}
