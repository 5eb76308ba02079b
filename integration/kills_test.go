package integration

import (
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"condafs/internal/failpoint"
	"condafs/internal/longrun"
)

var (
	killCount = flag.Int("kills", 0, "how many rounds TestKilledAnywhere makes; 0: 6, with CONDAFS_LONG 60")
	killSeed  = flag.Uint64("kill-seed", 0, "the seed of TestKilledAnywhere; 0: a new one")
	killPoint = flag.String("kill-point", "", "kill at this point only")
)

// TestKilledAnywhere kills the daemon at named points, chosen at random, while real clients work, and at some more while
// the next daemon takes up what is left. Then one is started in peace, and all must be as promised: see check. Each round
// begins with a new store, or with what the last one left.
func TestKilledAnywhere(t *testing.T) {
	t.Parallel()
	rounds, seed := *killCount, *killSeed
	if rounds == 0 {
		rounds = 60
		if !longrun.Wanted() {
			rounds = 6
		}
	}
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("%d rounds; repeat with -kill-seed %d", rounds, seed)
	bin, err := faultyBinary()
	if err != nil {
		t.Fatal(err)
	}
	k := &killing{
		t: t, bin: bin, server: serve(t), dir: testDir(t), rng: rand.New(rand.NewPCG(seed, 0)),
		passed: make(map[failpoint.Point]int), died: make(map[failpoint.Point]int),
	}
	k.cache = plainCache(t, k.server, "odd,old01,lib00")
	for k.round = range rounds {
		if k.oneRound(); t.Failed() {
			break
		}
	}
	k.report(rounds)
}

// killing is the state of TestKilledAnywhere.
type killing struct {
	t      *testing.T
	bin    string
	server *server
	dir    string // everything of the rounds is below
	cache  string // a plain package directory to import
	rng    *rand.Rand
	round  int

	m         *mount // of this round
	protected bool   // clients cannot write to the bare mount point
	log       string // where its daemons note the points that they pass
	story     []string
	acked     *acks
	passed    map[failpoint.Point]int // in how many rounds
	died      map[failpoint.Point]int // how often a daemon died there
	others    int                     // kills without a point
}

// elsewhere tells of points that no client reaches: tests of package index do, with commits that are larger than any
// session's, and by making a database anew; tests of packages repair and scrub with damaged stores; TestKilledInUpgrade.
func elsewhere(p failpoint.Point) bool {
	return slices.ContainsFunc([]string{"commit.trees", "redo.", "checkpoint.", "rebuild.", "aside.", "repair.", "scrub.", "upgrade."}, func(s string) bool { return strings.HasPrefix(string(p), s) })
}

// inRecovery tells in which life of a daemon a point can be reached: the first one, which works for clients, or the
// next, which takes up what the first has left.
func inRecovery(p failpoint.Point) bool {
	return strings.HasPrefix(string(p), "recover.")
}

// choose returns a point, those more likely at which fewer daemons have died.
func (k *killing) choose(from func(failpoint.Point) bool) failpoint.Point {
	var points []failpoint.Point
	var weights []float64
	sum := 0.0
	for _, p := range failpoint.All() {
		if elsewhere(p) || !from(p) {
			continue
		}
		n := float64(k.died[p])
		points = append(points, p)
		weights = append(weights, 1/((1+n)*(1+n)))
		sum += weights[len(weights)-1]
	}
	at := k.rng.Float64() * sum
	for i, w := range weights {
		if at -= w; at < 0 {
			return points[i]
		}
	}
	return points[len(points)-1]
}

// arm returns what lets a daemon die at a point.
func (k *killing) arm(p failpoint.Point) string {
	// Some points are passed a hundred times in a round and some once.
	most := 3.0
	for _, once := range []string{"identity.", "open.", "mount.", "close.", "recover.done"} {
		if strings.HasPrefix(string(p), once) {
			most = 1
		}
	}
	for _, many := range []string{"blob.", "file.", "seal.moved", "commit.", "publish.", "settle."} {
		if strings.HasPrefix(string(p), many) {
			most = 60
		}
	}
	spec := fmt.Sprintf("%s=kill@%d", p, int(math.Exp(k.rng.Float64()*math.Log(most))))
	switch p {
	case failpoint.PassthroughAsk, failpoint.FileWrite:
		// The latter is passed only where there is no passthrough.
		spec += fmt.Sprintf(" %s=ENOMEM@1+", failpoint.PassthroughAsk)
	case failpoint.SealRestore, failpoint.SealForget:
		spec = fmt.Sprintf("%s=ENOSPC@%d+ %s=kill@1", failpoint.SealMoved, 2+k.rng.IntN(20), p)
	}
	return spec
}

func (k *killing) tell(format string, args ...any) {
	k.story = append(k.story, fmt.Sprintf(format, args...))
}

// oneRound is one life of a daemon, or several, and the judgement.
func (k *killing) oneRound() {
	k.t.Helper()
	k.story = nil
	if k.m == nil || k.rng.IntN(2) == 0 {
		k.newStore()
	}
	k.log = filepath.Join(k.dir, fmt.Sprintf("points-%d", k.round))
	defer func() {
		if k.t.Failed() {
			k.t.Logf("round %d:\n  %s\nthe last daemon's log:\n%s", k.round, strings.Join(k.story, "\n  "), tail(k.m.log.String()))
		}
	}()
	later := k.choose(inRecovery)
	first := k.choose(func(p failpoint.Point) bool {
		return !inRecovery(p) && (*killPoint == "" || string(p) == *killPoint || inRecovery(failpoint.Point(*killPoint)))
	})
	if wanted := failpoint.Point(*killPoint); inRecovery(wanted) {
		later = wanted
	}
	load := k.firstLife(first)
	k.endLoadEarly(load)
	if k.rng.IntN(3) == 0 || *killPoint == string(later) {
		k.laterLife(later, load)
	}
	if k.rng.IntN(2) == 0 {
		load.wait(k)
	}
	k.m.env = nil
	k.again(load)
	k.m.start()
	load.wait(k)
	k.check()
	k.m.stop([]syscall.Signal{syscall.SIGTERM, syscall.SIGKILL}[k.rng.IntN(2)])
	k.count()
}

func (k *killing) newStore() {
	k.t.Helper()
	dir := filepath.Join(k.dir, fmt.Sprint("round-", k.round))
	if k.m != nil {
		k.unprotect(k.m.point)
		if err := os.RemoveAll(filepath.Dir(k.m.store)); err != nil {
			k.t.Fatal(err)
		}
	}
	k.m = &mount{t: k.t, bin: k.bin, store: filepath.Join(dir, "store"), point: filepath.Join(dir, "mnt")}
	if err := os.MkdirAll(k.m.point, 0o755); err != nil {
		k.t.Fatal(err)
	}
	m := k.m
	k.t.Cleanup(func() {
		m.cleanup()
		if _, err := os.Stat(m.point); err == nil { // the last one
			k.unprotect(m.point)
		}
	})
	err := protect(k.m.point, true)
	if k.protected = err == nil; !k.protected {
		k.t.Logf("clients do not outlive daemons here: %v", err)
	}
	k.acked = newAcks()
	k.tell("a new store")
}

// firstLife lets a daemon work for clients until it dies, by the point or, if that is never passed, at the end.
func (k *killing) firstLife(p failpoint.Point) *killLoad {
	k.t.Helper()
	load := &killLoad{k: k, watch: make(chan struct{})}
	if !k.live(k.arm(p)) {
		return load
	}
	load.start()
	// A daemon that is told to stop while clients work passes other points than one that is killed.
	var tired <-chan time.Time
	if ends := []string{"close.", "session.suspend"}; slices.ContainsFunc(ends, func(s string) bool { return strings.HasPrefix(string(p), s) }) {
		tired = time.After(time.Duration(500+k.rng.IntN(4000)) * time.Millisecond)
	}
	select {
	case <-tired:
		k.tell("it gets SIGTERM while clients work")
		k.end(syscall.SIGTERM)
	case <-load.done:
		how := []syscall.Signal{syscall.SIGTERM, syscall.SIGTERM, syscall.SIGKILL}[k.rng.IntN(3)]
		k.tell("the clients have ended, it gets %v", how)
		k.end(how)
	case err := <-k.m.exited:
		k.tell("the daemon has ended: %v", err)
		k.mustBeKilled(err)
		k.buried()
	}
	load.stopWatching()
	return load
}

// protect makes a bare mount point immutable, as the README advises, or changeable again.
func protect(dir string, on bool) error {
	change := "-i"
	if on {
		change = "+i"
	}
	if out, err := exec.Command("chattr", change, dir).CombinedOutput(); err != nil {
		return fmt.Errorf("chattr %s %s: %w: %s", change, dir, err, out)
	}
	return nil
}

// unprotect undoes it.
func (k *killing) unprotect(dir string) {
	if k.protected {
		if err := protect(dir, false); err != nil {
			k.t.Error(err)
		}
	}
}

// again makes ready for another daemon.
func (k *killing) again(l *killLoad) {
	k.t.Helper()
	if !k.protected {
		// Then clients that live on write to the bare directory.
		l.wait(k)
		k.m.emptyBarePoint()
	}
}

// live starts a daemon that is armed, and tells whether it has come to work.
func (k *killing) live(spec string) bool {
	k.t.Helper()
	k.tell("a daemon with %s", spec)
	k.m.env = []string{"CONDAFS_FAILPOINTS=" + spec, "CONDAFS_FAILPOINTS_LOG=" + k.log}
	if err := k.m.tryStart(); err != nil {
		k.tell("it has ended before it worked: %v", err)
		k.mustBeKilled(err)
		k.m.detach()
		return false
	}
	return true
}

// end ends a daemon that lives still. Its point may be one of those on the way.
func (k *killing) end(sig syscall.Signal) {
	k.t.Helper()
	if sig == syscall.SIGKILL {
		k.others++
	}
	if err := k.m.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		k.t.Fatal(err)
	}
	if err := <-k.m.exited; err != nil {
		k.tell("it ended with %v", err)
		k.mustBeKilled(err)
	}
	k.buried()
}

func (k *killing) buried() {
	k.t.Helper()
	k.m.gone()
	k.m.checkLog()
	k.m.detach()
}

// mustBeKilled demands that a daemon died as it was told, and not of itself.
func (k *killing) mustBeKilled(err error) {
	k.t.Helper()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		k.t.Fatalf("the daemon was not killed: %v\n%s", err, tail(k.m.log.String()))
	}
}

// endLoadEarly kills the clients in one of three cases, so that their sessions are those of the dead when the next
// daemon comes. In the others they live on and find out by themselves.
func (k *killing) endLoadEarly(l *killLoad) {
	k.t.Helper()
	switch k.rng.IntN(3) {
	case 0:
		k.tell("the clients are killed")
		l.kill()
	case 1:
		k.tell("the clients end by themselves")
		l.wait(k)
	default:
		k.tell("the clients live on")
	}
}

// laterLife lets a daemon take up what is left, and die at that, if it comes that far.
func (k *killing) laterLife(p failpoint.Point, l *killLoad) {
	k.t.Helper()
	k.again(l)
	if k.live(k.arm(p)) {
		k.end(syscall.SIGKILL)
	}
}

// count takes over what the daemons of the round have noted.
func (k *killing) count() {
	k.t.Helper()
	b, err := os.ReadFile(k.log)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	if err != nil {
		k.t.Fatal(err)
	}
	seen := make(map[failpoint.Point]bool)
	for line := range strings.Lines(string(b)) {
		p, killed := strings.CutPrefix(strings.TrimSpace(line), "kill ")
		if killed {
			k.died[failpoint.Point(p)]++
		} else if !seen[failpoint.Point(p)] {
			seen[failpoint.Point(p)] = true
			k.passed[failpoint.Point(p)]++
		}
	}
}

// report prints what was reached, and after many rounds demands that it was everything.
func (k *killing) report(rounds int) {
	k.t.Helper()
	var lines, missed []string
	kills := k.others
	for _, p := range failpoint.All() {
		if elsewhere(p) {
			continue
		}
		kills += k.died[p]
		lines = append(lines, fmt.Sprintf("%-20s passed in %3d rounds, killed at %3d times", p, k.passed[p], k.died[p]))
		if k.passed[p] == 0 {
			missed = append(missed, string(p))
		}
	}
	k.t.Logf("%d daemons were killed, %d of them at no point\n%s", kills, k.others, strings.Join(lines, "\n"))
	if len(missed) > 0 {
		k.t.Logf("never reached: %s", strings.Join(missed, ", "))
		if rounds >= 100 && *killPoint == "" {
			k.t.Error("a run of this length must reach every point")
		}
	}
}
