package doctor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"condafs/control"
)

// mounts looks at what is mounted, and returns those that answer, and all that there are.
func (p *Patient) mounts() (l []Finding, mounted map[string]control.Info, seen map[string]bool) {
	mounted, seen = make(map[string]control.Info), make(map[string]bool)
	list, err := p.Mounts()
	if err != nil {
		return []Finding{complaint("mounts", err)}, mounted, seen
	}
	for _, m := range list {
		if m.Type != control.FSType || m.Root != "/" || seen[m.Point] {
			continue
		}
		seen[m.Point] = true
		info, err := p.Info(m.Point)
		switch {
		case errors.Is(err, control.ErrDead):
			l = append(l, Finding{Check: "mount " + m.Point, State: Wrong, Stale: m.Point,
				What: "its daemon has died, and whoever looks there gets \"Transport endpoint is not connected\"",
				Mend: "condafs mount " + m.Point + " (or condafs doctor --fix, to take it away)"})
		case err != nil:
			l = append(l, complaint("mount "+m.Point, err))
		default:
			mounted[m.Point] = info
			l = append(l, p.daemon(m.Point, info))
		}
	}
	return l, mounted, seen
}

// daemon looks at one that answers.
func (p *Patient) daemon(point string, info control.Info) Finding {
	f := Finding{Check: "mount " + point, State: Fine, What: fmt.Sprintf("served by pid %d from %s", info.PID, info.Store)}
	_, err := os.Stat(filepath.Join(p.Root, "proc", strconv.Itoa(info.PID)))
	switch {
	case errors.Is(err, os.ErrNotExist):
		f.State = Warning
		f.What = "its daemon runs outside of this container, and cannot tell the processes in it apart: they share one session"
		f.Mend = "start clients by: condafs run -- COMMAND"
	case info.Version != p.Version:
		f.State = Warning
		f.What = fmt.Sprintf("its daemon is of version %s, and this program of %s", info.Version, p.Version)
		f.Mend = "condafs upgrade --mount " + point
	}
	return f
}

// places looks at the mount point, unless something has been told of a mount there: one that hangs must not be asked.
func (p *Patient) places(mounted map[string]control.Info, seen map[string]bool) []Finding {
	if seen[p.MountPoint] {
		return nil
	}
	check := "mount point " + p.MountPoint
	if _, err := os.Lstat(p.MountPoint); errors.Is(err, os.ErrNotExist) {
		return []Finding{{Check: check, State: Fine, What: "it is not there yet; `condafs mount` without arguments makes it"}}
	}
	if err := p.Place(p.MountPoint, p.AllowOther); err != nil {
		return []Finding{complaint(check, err)}
	}
	f := Finding{Check: check, State: Fine, What: "nothing is mounted there, but it could be"}
	if len(mounted) == 0 {
		f.State, f.Mend = Warning, "condafs mount"
	}
	return []Finding{f}
}
