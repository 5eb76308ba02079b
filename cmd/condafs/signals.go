package main

import (
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// signals passes on to the command what is sent to us.
//
// What a terminal generates (^C, ^\, a changed size) the kernel sends to the whole
// foreground process group, and so to the command as well: passed on, it would
// arrive twice. ^Z stops both of us, and the shell continues both.
type signals struct {
	c    chan os.Signal
	done chan struct{}

	mu      sync.Mutex
	pidfd   int // the command's; -1 before it has started
	pending []syscall.Signal
}

// Forwarded always, and unless the terminal does it.
var (
	ours    = []os.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM}
	keyed   = []os.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGWINCH}
	isKeyed = map[os.Signal]bool{syscall.SIGINT: true, syscall.SIGQUIT: true, syscall.SIGWINCH: true}
)

// holdSignals begins to take signals. Those that we were started to ignore (nohup)
// stay ignored, by the command too.
func holdSignals() *signals {
	s := &signals{c: make(chan os.Signal, 32), done: make(chan struct{}), pidfd: -1}
	for _, sig := range append(append([]os.Signal{}, ours...), keyed...) {
		if !signal.Ignored(sig) {
			signal.Notify(s.c, sig)
		}
	}
	go func() {
		defer close(s.done)
		for sig := range s.c {
			if n, ok := sig.(syscall.Signal); ok && !(isKeyed[sig] && inForeground()) {
				s.send(n)
			}
		}
	}()
	return s
}

// forwardTo names the command by its pidfd, which is closed at the end, and sends
// it what has come meanwhile.
func (s *signals) forwardTo(pidfd int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pidfd = pidfd
	for _, sig := range s.pending {
		s.kill(sig)
	}
	s.pending = nil
}

func (s *signals) send(sig syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pidfd < 0 {
		s.pending = append(s.pending, sig)
		return
	}
	s.kill(sig)
}

// kill is called with mu held. A command that has ended needs no signal.
func (s *signals) kill(sig syscall.Signal) {
	_ = unix.PidfdSendSignal(s.pidfd, sig, nil, 0)
}

func (s *signals) stop() {
	signal.Stop(s.c)
	close(s.c)
	<-s.done
	if s.pidfd >= 0 {
		_ = unix.Close(s.pidfd) // a pidfd has nothing to lose
	}
}

// inForeground reports whether our process group is the terminal's foreground one.
func inForeground() bool {
	tty, err := os.OpenFile("/dev/tty", os.O_RDONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return false // no controlling terminal: somebody has sent it to us alone
	}
	defer tty.Close() //nolint:errcheck // read only
	pgrp, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && pgrp == unix.Getpgrp()
}
