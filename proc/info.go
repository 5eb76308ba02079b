package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"condafs/fault"

	"golang.org/x/sys/unix"
)

// pidfdInfo asks the kernel about the process of a pidfd: all but its start.
func pidfdInfo(fd int) (Info, error) {
	raw := unix.PidfdInfo{Mask: unix.PIDFD_INFO_PID | unix.PIDFD_INFO_CREDS}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.PIDFD_GET_INFO, uintptr(unsafe.Pointer(&raw))); errno != 0 {
		return Info{}, errno
	}
	const want = unix.PIDFD_INFO_PID | unix.PIDFD_INFO_CREDS
	if raw.Mask&want != want || raw.Tgid == 0 {
		return Info{}, unix.ESRCH // exited, or in a pid namespace that we don't see
	}
	return Info{ID: ID{PID: int(raw.Tgid)}, PPID: int(raw.Ppid), UID: raw.Euid, GID: raw.Egid}, nil
}

// pidfdExit asks the kernel how a process that was reaped has ended.
func pidfdExit(fd int) Exit {
	raw := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.PIDFD_GET_INFO, uintptr(unsafe.Pointer(&raw)))
	if errno != 0 || raw.Mask&unix.PIDFD_INFO_EXIT == 0 {
		return Exit{}
	}
	return exitStatus(unix.WaitStatus(raw.Exit_code))
}

// identifyByProc is Identify for kernels that cannot be asked through a pidfd.
func identifyByProc(tid int) (Info, error) {
	before, err := readStat(tid)
	if err != nil {
		return Info{}, err
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return Info{}, procError(tid, err)
	}
	info, err := parseStatus(b)
	if err != nil {
		return Info{}, fault.New("read status of process", strconv.Itoa(tid), fault.Other, err)
	}
	leader, err := readStat(info.PID)
	if err != nil {
		return Info{}, err
	}
	info.Start = leader.start
	// The same thread before and after: so it was there in between, and its process too.
	if after, err := readStat(tid); err != nil || after.start != before.start {
		return Info{}, gone(tid)
	}
	return info, nil
}

// stat is what we use of /proc/PID/stat.
type stat struct {
	start  uint64
	zombie bool
	exit   unix.WaitStatus // of a zombie; 0 when we may not know
}

func readStat(pid int) (stat, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, procError(pid, err)
	}
	st, err := parseStat(b)
	if err != nil {
		return stat{}, fault.New("read stat of process", strconv.Itoa(pid), fault.Other, err)
	}
	return st, nil
}

// Zombie reports whether a process's first thread has ended, and nobody has been told yet that the process has: as long as other
// threads are left, nobody is.
func Zombie(pid int) bool {
	st, err := readStat(pid)
	return err == nil && st.zombie
}

func procError(pid int, err error) error {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return gone(pid)
	}
	return fault.New("find process", strconv.Itoa(pid), fault.Other, err)
}

var errForm = errors.New("not in the form that the kernel writes")

// parseStat reads the state, the start time and the exit status: fields 3, 22
// and 52. The second field is the command's name in parentheses, in which
// anything may stand, also spaces and parentheses.
func parseStat(b []byte) (stat, error) {
	const first, startField, exitField = 3, 22, 52
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return stat{}, errForm
	}
	fields := bytes.Fields(b[i+1:]) // begins with field 3
	if len(fields) <= exitField-first {
		return stat{}, errForm
	}
	start, err := strconv.ParseUint(string(fields[startField-first]), 10, 64)
	if err != nil {
		return stat{}, errForm
	}
	exit, err := strconv.ParseUint(string(fields[exitField-first]), 10, 32)
	if err != nil {
		return stat{}, errForm
	}
	return stat{start: start, zombie: fields[0][0] == 'Z', exit: unix.WaitStatus(exit)}, nil
}

// parseStatus reads the process, its parent and its effective ids. The name in
// the first line cannot fake another one: the kernel escapes line breaks in it.
func parseStatus(b []byte) (Info, error) {
	var info Info
	found := 0
	for line := range strings.Lines(string(b)) {
		key, rest, _ := strings.Cut(line, ":")
		f := strings.Fields(rest)
		var column int
		switch key {
		case "Tgid", "PPid":
		case "Uid", "Gid":
			column = 1 // real, effective, saved, file system
		default:
			continue
		}
		if len(f) <= column {
			return Info{}, errForm
		}
		n, err := strconv.ParseUint(f[column], 10, 32)
		if err != nil {
			return Info{}, errForm
		}
		found++
		switch key {
		case "Tgid":
			info.PID = int(n)
		case "PPid":
			info.PPID = int(n)
		case "Uid":
			info.UID = uint32(n)
		case "Gid":
			info.GID = uint32(n)
		}
	}
	if found != 4 {
		return Info{}, errForm
	}
	return info, nil
}
