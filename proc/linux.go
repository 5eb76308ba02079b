package proc

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"condafs/fault"

	"golang.org/x/sys/unix"
)

// Linux is the Table of the running kernel, which must know pidfds (5.3).
//
// One pidfd is kept for each watched process. While it says that the process
// lives, its pid cannot be given away, so Identify and Alive trust it and need
// not look at /proc.
type Linux struct {
	epoll *os.File

	mu     sync.Mutex
	byFD   map[int]*watched
	byPID  map[int]*watched // of several with one pid, the youngest
	heir   map[ID]int       // pidfds of another program, until somebody watches the process
	closed bool
	done   chan struct{}
}

// watched is a process that somebody waits for.
type watched struct {
	id      ID
	fd      int
	waiters map[*func(Exit)]struct{}
}

var errClosed = errors.New("the process table is closed")

// NewLinux returns a table and starts the goroutine that waits for exits.
func NewLinux() (*Linux, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fault.New("watch", "processes", fault.Other, err)
	}
	// Non-blocking, so that the runtime's poller waits and no thread does.
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(fault.New("watch", "processes", fault.Other, err), unix.Close(fd))
	}
	t := &Linux{
		epoll: os.NewFile(uintptr(fd), "epoll"),
		byFD:  make(map[int]*watched),
		byPID: make(map[int]*watched),
		done:  make(chan struct{}),
	}
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return nil, errors.Join(
			fault.New("open pidfd", "", fault.Unsupported, err).WithHint("Linux 5.3 or newer is needed"), t.epoll.Close())
	}
	if err := unix.Close(self); err != nil {
		return nil, errors.Join(fault.New("close pidfd", "", fault.Other, err), t.epoll.Close())
	}
	go t.wait()
	return t, nil
}

// Close forgets all watches without calling anybody.
func (t *Linux) Close() error {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil
	}
	t.closed = true
	var errs []error
	for fd := range t.byFD {
		errs = append(errs, unix.Close(fd))
	}
	for _, fd := range t.heir {
		errs = append(errs, unix.Close(fd))
	}
	clear(t.byFD)
	clear(t.byPID)
	clear(t.heir)
	t.mu.Unlock()
	errs = append(errs, t.epoll.Close())
	<-t.done
	return errors.Join(errs...)
}

// Identify implements Table.
func (t *Linux) Identify(tid int) (Info, error) {
	if tid <= 0 {
		return Info{}, gone(tid)
	}
	fd, err := unix.PidfdOpen(tid, unix.PIDFD_THREAD)
	if errors.Is(err, unix.EINVAL) {
		return identifyByProc(tid) // before 6.9 a pidfd named whole processes only
	}
	if err != nil {
		return Info{}, pidError(tid, err)
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	info, err := pidfdInfo(fd)
	if errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EINVAL) {
		return identifyByProc(tid) // before 6.13
	}
	if err != nil {
		return Info{}, pidError(tid, err)
	}
	if id, ok := t.watchedAlive(info.PID); ok {
		info.ID = id
		return info, nil
	}
	st, err := readStat(info.PID)
	if err != nil {
		return Info{}, err
	}
	// The thread is still there, so its process is, so what /proc showed is that process.
	if exited(fd) {
		return Info{}, gone(tid)
	}
	info.Start = st.start
	return info, nil
}

// Alive implements Table.
func (t *Linux) Alive(id ID) bool {
	if w, ok := t.watchedAlive(id.PID); ok {
		return w == id
	}
	fd, err := t.open(id)
	if err != nil {
		return false
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	return !exited(fd)
}

// Watch implements Table.
func (t *Linux) Watch(id ID, f func(Exit)) (cancel func(), err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, fault.New("watch process", id.String(), fault.Stale, errClosed)
	}
	w := t.byPID[id.PID]
	if w == nil || w.id != id {
		fd, err := t.take(id)
		if fault.Is(err, fault.NotFound) {
			go f(Exit{})
			return func() {}, nil
		}
		if err != nil {
			return nil, err
		}
		w = &watched{id: id, fd: fd, waiters: make(map[*func(Exit)]struct{})}
		if err := t.register(fd); err != nil {
			return nil, errors.Join(fault.New("watch process", id.String(), fault.Other, err), unix.Close(fd))
		}
		t.byFD[fd], t.byPID[id.PID] = w, w
	}
	key := &f
	w.waiters[key] = struct{}{}
	return func() { t.cancel(w, key) }, nil
}

func (t *Linux) cancel(w *watched, key *func(Exit)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, waits := w.waiters[key]; !waits {
		return
	}
	delete(w.waiters, key)
	if len(w.waiters) == 0 && t.byFD[w.fd] == w {
		t.forget(w)
	}
}

// forget closes w, which also takes it out of the epoll set. t.mu is held.
func (t *Linux) forget(w *watched) {
	delete(t.byFD, w.fd)
	if t.byPID[w.id.PID] == w {
		delete(t.byPID, w.id.PID)
	}
	unix.Close(w.fd) //nolint:errcheck // a pidfd has nothing to lose
}

func (t *Linux) register(fd int) error {
	rc, err := t.epoll.SyscallConn()
	if err != nil {
		return err
	}
	var ctlErr error
	err = rc.Control(func(ep uintptr) {
		ctlErr = unix.EpollCtl(int(ep), unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
	})
	return errors.Join(err, ctlErr)
}

// wait calls the waiters of processes that have exited, until Close.
func (t *Linux) wait() {
	defer close(t.done)
	rc, err := t.epoll.SyscallConn()
	if err != nil {
		return
	}
	events := make([]unix.EpollEvent, 64)
	for {
		var n int
		err := rc.Read(func(ep uintptr) bool {
			n, _ = unix.EpollWait(int(ep), events, 0) // fails on EINTR only: there is a next round
			return n > 0
		})
		if err != nil {
			return // closed
		}
		for _, ev := range events[:n] {
			t.fire(int(ev.Fd))
		}
	}
}

// fire calls the waiters of the process behind fd, if it has exited: fd may have
// been closed and given to another process's pidfd since the event was made.
func (t *Linux) fire(fd int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	w := t.byFD[fd]
	if w == nil || !exited(fd) {
		return
	}
	exit := exitOf(w)
	t.forget(w)
	for f := range w.waiters {
		go (*f)(exit)
	}
	clear(w.waiters)
}

// exitOf asks how the process of w has ended. Until its parent has noticed,
// /proc knows; afterwards the pidfd does (6.15), and a parent that notices
// between the two questions doesn't matter.
func exitOf(w *watched) Exit {
	if st, err := readStat(w.id.PID); err == nil && st.start == w.id.Start && st.zombie {
		return exitStatus(st.exit)
	}
	return pidfdExit(w.fd)
}

func exitStatus(status unix.WaitStatus) Exit {
	if status.Signaled() {
		return Exit{Known: true, Signal: int(status.Signal())}
	}
	return Exit{Known: true, Code: status.ExitStatus()}
}

// watchedAlive returns the watched process with that pid if it lives.
func (t *Linux) watchedAlive(pid int) (ID, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	w := t.byPID[pid]
	if w == nil || exited(w.fd) {
		return ID{}, false
	}
	return w.id, true
}

// take returns a pidfd that was inherited, or a new one. t.mu is held.
func (t *Linux) take(id ID) (int, error) {
	if fd, ok := t.heir[id]; ok {
		delete(t.heir, id)
		return fd, nil
	}
	return t.open(id)
}

// open returns a pidfd of the process, and fault.NotFound if it is gone.
func (t *Linux) open(id ID) (int, error) {
	fd, err := unix.PidfdOpen(id.PID, 0)
	if err != nil {
		return -1, pidError(id.PID, err)
	}
	st, err := readStat(id.PID)
	if err == nil && st.start != id.Start {
		err = gone(id.PID)
	}
	if err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// exited reports whether the process, or the thread, behind a pidfd has exited.
func exited(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(p, 0)
		if !errors.Is(err, unix.EINTR) {
			return err != nil || n > 0
		}
	}
}

func gone(pid int) error {
	return fault.New("find process", fmt.Sprint(pid), fault.NotFound, nil)
}

func pidError(pid int, err error) error {
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) {
		return gone(pid)
	}
	return fault.New("find process", fmt.Sprint(pid), fault.Other, err)
}
