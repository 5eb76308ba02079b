//go:build condafs_faults

package failpoint

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	armEnv = "CONDAFS_FAILPOINTS"
	logEnv = "CONDAFS_FAILPOINTS_LOG"
)

// armed is what the points of this process do.
var armed = struct {
	any atomic.Bool // quick way out: nothing is armed

	mu    sync.Mutex
	rules []*rule // of the environment
	hooks map[*hook]struct{}
	seen  map[Point]bool
	log   *os.File // nil: not wanted
}{hooks: make(map[*hook]struct{}), seen: make(map[Point]bool)}

// hook is what Set has armed.
type hook struct {
	dir string
	f   func(Point) error
}

func init() {
	if err := setup(os.Getenv(armEnv), os.Getenv(logEnv)); err != nil {
		fmt.Fprintln(os.Stderr, "failpoint:", err)
		os.Exit(2) // a test that arms nothing would prove nothing
	}
}

func setup(spec, log string) (err error) {
	if armed.rules, err = parse(spec); err != nil {
		return err
	}
	if log != "" {
		if armed.log, err = os.OpenFile(log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644); err != nil {
			return err
		}
	}
	armed.any.Store(len(armed.rules) > 0 || log != "")
	return nil
}

// Set has f called at each point that concerns the store in dir, from then on until
// unset. What f returns is what [Err] returns there.
func Set(dir string, f func(Point) error) (unset func()) {
	h := &hook{dir, f}
	armed.mu.Lock()
	defer armed.mu.Unlock()
	armed.hooks[h] = struct{}{}
	armed.any.Store(true)
	return func() {
		armed.mu.Lock()
		defer armed.mu.Unlock()
		delete(armed.hooks, h)
	}
}

// Hit passes a point that concerns the store in dir, or a file in it.
func Hit(p Point, dir string) { _ = Err(p, dir) }

// Err is Hit where a failure can be had.
func Err(p Point, dir string) error {
	if !armed.any.Load() {
		return nil
	}
	var due []*rule
	var hooks []*hook
	armed.mu.Lock()
	if !armed.seen[p] {
		armed.seen[p] = true
		note(string(p))
	}
	for _, r := range armed.rules {
		if r.point == p && r.due() {
			due = append(due, r)
		}
	}
	for h := range armed.hooks {
		if strings.HasPrefix(dir, h.dir) {
			hooks = append(hooks, h)
		}
	}
	armed.mu.Unlock()
	var err error
	for _, r := range due {
		if e := r.act(); e != nil {
			err = e
		}
	}
	for _, h := range hooks {
		if e := h.f(p); e != nil {
			err = e
		}
	}
	return err
}

// note appends a line to the log. armed.mu is held.
func note(line string) {
	if armed.log == nil {
		return
	}
	if _, err := armed.log.WriteString(line + "\n"); err != nil {
		fmt.Fprintln(os.Stderr, "failpoint:", err)
	}
}

// die ends the process as a crash does: nothing is closed or written any more.
func die(p Point) {
	armed.mu.Lock()
	note("kill " + string(p))
	_ = unix.Kill(os.Getpid(), unix.SIGKILL)
	select {} // with the lock held: nobody passes a point any more
}
