package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// user is a process that uses the mount.
type user struct {
	pid     int
	name    string
	session string // its explicit session, if that is how we know
}

func (u user) String() string {
	s := "pid " + strconv.Itoa(u.pid)
	if u.name != "" {
		s += " (" + u.name + ")"
	}
	if u.session != "" {
		s += " in session " + u.session
	}
	return s
}

// holders finds who has its working directory, its root, its program, an open file
// or a mapped one below the mount point. Other users' processes show only to root.
func holders(proc, mountPoint string) []user {
	dirs, err := os.ReadDir(proc)
	if err != nil {
		return nil // it only makes an error message better
	}
	var l []user
	for _, e := range dirs {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if holds(filepath.Join(proc, e.Name()), mountPoint) {
			l = append(l, user{pid: pid, name: processName(proc, pid)})
		}
	}
	slices.SortFunc(l, func(a, b user) int { return a.pid - b.pid })
	return l
}

func holds(dir, mountPoint string) bool {
	links := []string{"cwd", "root", "exe"}
	for _, sub := range []string{"fd", "map_files"} {
		entries, err := os.ReadDir(filepath.Join(dir, sub))
		if err != nil {
			continue // gone, or not ours to see
		}
		for _, e := range entries {
			links = append(links, sub+"/"+e.Name())
		}
	}
	for _, l := range links {
		to, err := os.Readlink(filepath.Join(dir, l))
		if err == nil && (to == mountPoint || strings.HasPrefix(to, mountPoint+"/")) {
			return true
		}
	}
	return false
}

// processName returns what ps shows, or "". The name is the process's own choice.
func processName(proc string, pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("%s/%d/comm", proc, pid))
	if err != nil {
		return ""
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, string(b))
}
