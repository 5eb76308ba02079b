package daemon

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// adoptSurvivors makes what the command of a runner has left running members of its
// session, which so goes on until they have exited. In a private mount namespace they
// never looked at the magic link, and the engine does not know of them. The runner
// has inherited them: they are below it. Those that act as another user (sudo, say) have
// no part in it.
func (d *daemon) adoptSurvivors(runner int, uid uint32) {
	for _, pid := range descendants("/proc", runner) {
		p, err := d.procs.Identify(pid)
		if err != nil || p.UID != uid {
			continue // it has exited meanwhile, or is another user's
		}
		if _, err := d.engine.SessionFor(pid, p.UID, p.GID, false); err != nil {
			d.config.Logger.Warn("left running by its command", "pid", pid, "err", err.Error())
		}
	}
}

// maxDescendants bounds how many processes are looked at.
const maxDescendants = 4096

// descendants lists the processes below pid. Those that come and go meanwhile may be
// missing.
func descendants(proc string, pid int) []int {
	seen := map[int]bool{pid: true}
	list := []int{pid}
	for i := 0; i < len(list) && len(list) < maxDescendants; i++ {
		for _, c := range children(proc, list[i]) {
			if !seen[c] {
				seen[c] = true
				list = append(list, c)
			}
		}
	}
	return list[1:]
}

func children(proc string, pid int) []int {
	files, err := filepath.Glob(filepath.Join(proc, strconv.Itoa(pid), "task", "*", "children"))
	if err != nil {
		return nil
	}
	var l []int
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // the thread has ended
		}
		for _, s := range strings.Fields(string(b)) {
			if n, err := strconv.Atoi(s); err == nil {
				l = append(l, n)
			}
		}
	}
	return l
}
