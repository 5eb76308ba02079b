package main

import (
	"os"
	"path/filepath"
	"strings"

	"condafs/fault"
)

// defaultLog is where the daemon of a mount point logs: a file named after it.
func (a *app) defaultLog(mountPoint string, uid int) (string, error) {
	dir := "/var/log/condafs"
	if uid != 0 {
		if s := a.getenv("XDG_STATE_HOME"); filepath.IsAbs(s) {
			dir = filepath.Join(s, "condafs")
		} else if h := a.getenv("HOME"); filepath.IsAbs(h) {
			dir = filepath.Join(h, ".local", "state", "condafs")
		} else {
			return "", fault.New("choose a log file", "", fault.Usage, nil).WithHint("$HOME is not set; name a file with --log-file")
		}
	}
	// As systemd escapes paths: no two mount points share a file.
	name := strings.NewReplacer("-", `\x2d`, "/", "-").Replace(strings.Trim(mountPoint, "/"))
	const longest = 200 // with ".log" within 255 bytes
	if len(name) > longest {
		name = name[len(name)-longest:]
	}
	return filepath.Join(dir, name+".log"), nil
}

// openLog opens a log to append to, and makes its directory.
func openLog(name string) (*os.File, error) {
	err := os.MkdirAll(filepath.Dir(name), 0o755)
	var f *os.File
	if err == nil {
		f, err = os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
	}
	if err != nil {
		return nil, fault.New("open log", name, fault.Other, err).WithHint("name another file with --log-file")
	}
	return f, nil
}
